/* SPDX-License-Identifier: MIT */
/* What calls do to descriptor tables. */
#ifndef COSY_OPERATIONS_H
#define COSY_OPERATIONS_H

#include "api.h"

struct operation {
	s64 tsc; /* when it takes effect */
	u64 order; /* of those of the same time */
	s64 row; /* of the call, in the whole trace */
	s64 fd, other; /* CLOSE, OPEN: fd; DUP: fd becomes what other is; RANGE: from fd to other */
	const u8 *path; /* of what is opened, relative to `other`; NULL: none is known */
	u32 path_len;
	s32 table;
	u8 does, kind;
	bool cloexec;
};

/*
 * What call i of a chunk does, at most two operations; returns how many. Their tsc, fd, other, kind and cloexec
 * are set, and path points into the chunk.
 */
u32 operations_of(const struct cosy_chunk *c, u64 i, const struct cosy_effect *effect,
		  struct operation *to);

#endif
