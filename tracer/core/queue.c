// SPDX-License-Identifier: MIT
#include "queue.h"

#include <stdlib.h>

#define LEAST_ROOM 64

static bool owns_path(const struct queue *q, const struct operation *op)
{
	return op->path && op->order < q->kept;
}

void operation_deinit(struct queue *q, struct operation *op)
{
	if (owns_path(q, op))
		free((u8 *)op->path);
}

void queue_deinit(struct queue *q)
{
	for (u64 i = 0; i < q->n; i++)
		operation_deinit(q, &q->all[i]);
	free(q->all);
}

static bool before(const struct operation *a, const struct operation *b)
{
	return a->tsc < b->tsc || (a->tsc == b->tsc && a->order < b->order);
}

bool queue_add(struct queue *q, const struct operation *op)
{
	u64 i = q->n;

	if (q->n == q->room) {
		u64 room = q->room ? 2 * q->room : LEAST_ROOM;
		struct operation *all = realloc(q->all, room * sizeof(*all));

		if (!all)
			return false;
		q->all = all;
		q->room = room;
	}
	q->n++;
	q->all[i] = *op;
	q->all[i].order = q->order++;
	while (i && before(&q->all[i], &q->all[(i - 1) / 2])) {
		struct operation up = q->all[i];

		q->all[i] = q->all[(i - 1) / 2];
		i = (i - 1) / 2;
		q->all[i] = up;
	}
	return true;
}

struct operation queue_take(struct queue *q)
{
	struct operation first = q->all[0], last = q->all[--q->n];
	u64 i = 0;

	for (;;) {
		u64 child = 2 * i + 1;

		if (child + 1 < q->n && before(&q->all[child + 1], &q->all[child]))
			child++;
		if (child >= q->n || !before(&q->all[child], &last))
			break;
		q->all[i] = q->all[child];
		i = child;
	}
	if (q->n)
		q->all[i] = last;
	return first;
}

bool queue_keep_paths(struct queue *q)
{
	for (u64 i = 0; i < q->n; i++) {
		struct operation *op = &q->all[i];
		u8 *own;

		if (!op->path || owns_path(q, op))
			continue;
		own = malloc(op->path_len);
		if (!own)
			return false;
		memcpy(own, op->path, op->path_len);
		op->path = own;
	}
	q->kept = q->order;
	return true;
}
