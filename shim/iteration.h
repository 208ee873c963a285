/* SPDX-License-Identifier: MIT */
/* One iteration of a compound's body: what came of its operations, and what the next one asks. */
#ifndef COSY_ITERATION_H
#define COSY_ITERATION_H

#include "reference.h"

#define PATH_BYTES 4096

/* What one operation of the body came to, in this iteration. */
struct made {
	bool ran;
	long ret;
	int fd; /* opened by it; -1: none */
	u32 file; /* number of that file */
	u64 pos; /* in that file */
	bool has_stat;
	u64 size;
	struct inode inode;
};

struct iteration {
	const struct body_run *run;
	struct made made[COSY_MAX_OPS];
	const char *item; /* e.name or p */
	u32 answers;
	u64 bytes;
	bool full;
};

/* Where a call of the body goes. */
struct place {
	int dirfd, fd;
	struct subject about;
	char path[PATH_BYTES]; /* as the call is made */
	char said[PATH_BYTES]; /* as the program would say it, if that is another */
};

/*
 * The call that the operation stands for, as a question; `p` says what it is about. False: it
 * cannot be made in this iteration.
 */
HIDDEN bool iteration_ask(struct iteration *it, const struct cosy_op *op, struct question *q,
			  struct place *p);
/* Does the condition hold? */
HIDDEN bool iteration_allows(const struct iteration *it, const struct cosy_cond *cond);

#endif
