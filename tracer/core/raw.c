// SPDX-License-Identifier: MIT
/*
 * The shim's blocks (kmod/uapi/cosy_trace.h). They lie in mapped files that a program may write to
 * even now: each word is read once, and what is used later is a copy.
 */
#include "api.h"

struct unaligned {
	u64 word;
} __attribute__((packed));

static inline u64 word(const u8 *event, u32 k)
{
	return ((const volatile struct unaligned *)event)[k].word;
}

/* What tells whether an event is whole. */
struct telling {
	u64 tsc, dur, what, sizes;
};

static inline struct telling telling(const u8 *event)
{
	return (struct telling){ word(event, TSC), word(event, DUR), word(event, WHAT),
				 word(event, SIZES) };
}

static inline bool is_whole(const struct telling *t, u64 heap_size)
{
	u64 size = payload_size(t->sizes);

	return what_flags(t->what) & COSY_EVENT_DONE && t->tsc <= MAX_TIME && t->dur <= MAX_TIME &&
	       (!size || what_place(t->what) + size <= heap_size);
}

void cosy_scan(const struct cosy_block *blocks, u64 n_blocks, u64 end_tsc, const u8 *rare, s64 none,
	       s64 *first, u64 *n_rare, struct cosy_scan *total)
{
	for (u64 i = 0; i < n_blocks; i++) {
		const struct cosy_block *b = &blocks[i];
		u64 lowest = (u64)none, rares = 0, calls = 0, lost = 0;

		for (u64 k = 0; k < b->n; k++) {
			struct telling t = telling(b->events + k * sizeof(struct cosy_trace_event));

			if (unlikely(!is_whole(&t, b->heap_size))) {
				lost += t.tsc != 0;
				continue;
			}
			if (unlikely(t.tsc > end_tsc))
				continue;
			lowest = t.tsc < lowest ? t.tsc : lowest;
			calls += what_nr(t.what) < COSY_EVENT_PROCESS;
			rares += rare[what_nr(t.what)];
		}
		first[i] = (s64)lowest;
		n_rare[i] = rares;
		total->n_calls += calls;
		total->lost += lost;
	}
}

u64 cosy_load(const struct cosy_block *blocks, u64 n_blocks, u64 end_tsc, const u8 *wanted,
	      u64 stride, u64 *words, s64 *at, u8 *heap)
{
	u64 n = 0, base = 0;

	for (u64 i = 0; i < n_blocks; i++) {
		const struct cosy_block *b = &blocks[i];

		for (u64 k = 0; k < b->n && n < stride; k++) {
			const u8 *event = b->events + k * sizeof(struct cosy_trace_event);
			struct telling t = telling(event);
			u64 *to = words + n;

			if (unlikely(!is_whole(&t, b->heap_size) || t.tsc > end_tsc))
				continue;
			if (unlikely(!wanted[what_nr(t.what)]))
				continue;
			to[TSC * stride] = t.tsc;
			to[DUR * stride] = t.dur;
#pragma GCC unroll 8
			for (u32 w = RET; w < WHAT; w++)
				to[w * stride] = word(event, w);
			to[WHAT * stride] = t.what;
			to[SIZES * stride] = t.sizes;
			at[n++] = (s64)(base + (payload_size(t.sizes) ? what_place(t.what) : 0));
		}
		if (b->heap_size)
			memcpy(heap + base, b->heap, b->heap_size);
		base += b->heap_size;
	}
	return n;
}
