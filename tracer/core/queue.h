/* SPDX-License-Identifier: MIT */
/* Operations that have not taken effect yet, the earliest first. */
#ifndef COSY_QUEUE_H
#define COSY_QUEUE_H

#include "operations.h"

/* A binary heap. */
struct queue {
	struct operation *all;
	u64 n, room;
	u64 order; /* of the next one */
	u64 kept; /* all before it have paths of their own */
};

void queue_deinit(struct queue *q);
/* False: no memory. Those of one time stay in the order in which they came. */
bool queue_add(struct queue *q, const struct operation *op);
/* To be freed with operation_deinit(). */
struct operation queue_take(struct queue *q);
void operation_deinit(struct queue *q, struct operation *op);
/* What paths point to goes away: copy them. False: no memory. */
bool queue_keep_paths(struct queue *q);

#endif
