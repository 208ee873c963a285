/* SPDX-License-Identifier: MIT */
/* Fused operations as plain calls: what the files that hold them share. */
#ifndef COSY_PLAIN_FUSED_H
#define COSY_PLAIN_FUSED_H

#include "plain.h"

/* An operation under way. */
struct op {
	struct plain_budget *budget;
	const uint64_t *args;
	uint32_t want; /* COSY_WANT_* */
	unsigned char *out;
	uint64_t room, used;
	const char *xattrs[COSY_MAX_XATTRS];
	uint32_t n_xattrs;
	int status;
};

static inline uint64_t padded(uint64_t bytes)
{
	return (bytes + 7) & ~7ull;
}

/* sockets.c: memory is there; they return as the operation does. */
int64_t plain_accept(struct op *op);
int64_t plain_receive(struct op *op, const unsigned char *fds, uint64_t bytes);
int64_t plain_send(struct op *op, const unsigned char *messages, uint64_t left);

#endif
