/* SPDX-License-Identifier: MIT */
/* Compounds as plain calls: what the parts share. */
#ifndef COSY_PLAIN_H
#define COSY_PLAIN_H

#include "cosy.h"

#define PLAIN_MAX_DEADLINE_NS 2000000000ull /* the module's defaults */
#define PLAIN_MAX_OPS (16ull << 20)

/* What a run may still use. */
struct plain_budget {
	uint64_t ops, max_ops, start_ns, deadline_ns;
};

void plain_budget_init(struct plain_budget *budget, const struct cosy_limits *limits);
/* Counts one op: 0, -E2BIG or -ETIME. */
int plain_tick(struct plain_budget *budget);
void plain_ended(const struct plain_budget *budget, struct cosy_outcome *outcome);

static inline bool plain_range_ok(const struct cosy *c, uint64_t offset, uint64_t bytes)
{
	return offset <= c->bytes && bytes <= c->bytes - offset;
}

/* calls.c: -1: not on the list. */
int plain_call_args(int32_t nr);
bool plain_call_is_pure(int32_t nr);
uint64_t plain_call(const struct cosy *c, int32_t nr, const uint64_t *args);

/* fused.c: as the operation returns; *status says whether the run must end. */
int64_t plain_fused(const struct cosy *c, uint32_t op, uint32_t flags, const uint64_t *args,
		    struct plain_budget *budget, uint64_t *used, int *status);
bool plain_fused_exists(uint64_t op);
bool plain_fused_is_pure(uint64_t op);

/* interpret.c: -EINVAL: it cannot be run. */
int plain_verify(const struct cosy_program *p, uint32_t flags, struct cosy_load *refused);
void plain_run(const struct cosy *c, const struct cosy_program *p, struct cosy_run *run);

#endif
