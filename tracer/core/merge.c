// SPDX-License-Identifier: MIT
/* The events of several threads in one row, by time (tracer/timeline.py). */
#include <stdlib.h>

#include "api.h"

#define RUNS 512 /* that are found before they are copied */

/* Where the next event of a part is. */
struct head {
	u64 tsc;
	u64 at;
	s32 thread;
	u32 part;
};

/* At equal times by thread, then as the parts are given. */
static bool before(const struct head *a, const struct head *b)
{
	if (a->tsc != b->tsc)
		return a->tsc < b->tsc;
	return a->thread != b->thread ? a->thread < b->thread : a->part < b->part;
}

/* Let the first of a heap sink to its place. */
static void sink(struct head *heads, u64 n)
{
	struct head first = heads[0];
	u64 i = 0;

	for (;;) {
		u64 child = 2 * i + 1;

		if (child + 1 < n && before(&heads[child + 1], &heads[child]))
			child++;
		if (child >= n || !before(&heads[child], &first))
			break;
		heads[i] = heads[child];
		i = child;
	}
	heads[i] = first;
}

static void look(struct head *h, const struct cosy_chunk *part)
{
	h->tsc = row(part, TSC)[h->at];
	h->thread = part->thread[h->at];
}

/* Go on to the first event of h that comes behind the next part's; returns how many are passed. */
static u64 pass(struct head *h, const struct cosy_chunk *part, const struct head *next)
{
	u64 first = h->at;

	do {
		if (++h->at == part->n)
			break;
		look(h, part);
	} while (!next || before(h, next));
	return h->at - first;
}

/* Events of a part that come one behind the other. */
struct run {
	const struct cosy_chunk *part;
	u64 first, n;
	s64 heap_at;
};

/* Row by row, so that there are only as many places to read from as there are parts. Most runs are short. */
static void copy(const struct run *runs, u64 n, const struct cosy_chunk *to, u64 done)
{
	s32 *thread = (s32 *)to->thread + done;
	s64 *at = (s64 *)to->at + done;

	for (u32 w = 0; w < EVENT_WORDS; w++) {
		u64 *words = (u64 *)row(to, w) + done;

		for (const struct run *r = runs; r < runs + n; r++) {
			const u64 *from = row(r->part, w) + r->first;

			for (u64 i = 0; i < r->n; i++)
				*words++ = from[i];
		}
	}
	for (const struct run *r = runs; r < runs + n; r++) {
		for (u64 i = r->first; i < r->first + r->n; i++) {
			*thread++ = r->part->thread[i];
			*at++ = r->part->at[i] + r->heap_at;
		}
	}
}

int cosy_merge(const struct cosy_chunk *parts, u64 n_parts, const struct cosy_chunk *to)
{
	struct head *heads = malloc(n_parts * sizeof(*heads));
	s64 *heap_at = malloc(n_parts * sizeof(*heap_at));
	u64 n = 0, n_runs = 0, waiting = 0, done = 0, heap = 0;
	struct run runs[RUNS];

	if (!heads || !heap_at) {
		free(heads);
		free(heap_at);
		return -1;
	}
	for (u32 i = 0; i < n_parts; i++) {
		u64 child = n;

		heap_at[i] = (s64)heap;
		if (parts[i].heap_size)
			memcpy((u8 *)to->heap + heap, parts[i].heap, parts[i].heap_size);
		heap += parts[i].heap_size;
		if (!parts[i].n)
			continue;
		heads[n] = (struct head){ .part = i };
		look(&heads[n++], &parts[i]);
		for (; child && before(&heads[child], &heads[(child - 1) / 2]);
		     child = (child - 1) / 2) {
			struct head up = heads[(child - 1) / 2];

			heads[(child - 1) / 2] = heads[child];
			heads[child] = up;
		}
	}
	while (n) {
		struct head *h = &heads[0];
		const struct cosy_chunk *part = &parts[h->part];
		const struct head *next = n > 1 ? &heads[1] : NULL;
		u64 first = h->at, size;

		if (n > 2 && before(&heads[2], next))
			next = &heads[2];
		size = pass(h, part, next);
		runs[n_runs++] = (struct run){ part, first, size, heap_at[h->part] };
		waiting += size;
		if (h->at == part->n)
			heads[0] = heads[--n];
		if (n)
			sink(heads, n);
		if (n_runs == RUNS || !n) {
			copy(runs, n_runs, to, done);
			done += waiting;
			n_runs = waiting = 0;
		}
	}
	free(heads);
	free(heap_at);
	return 0;
}
