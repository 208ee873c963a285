/* SPDX-License-Identifier: MIT */
/* What exec would run, as its file says, and whether the shim can live in it. */
#ifndef COSY_JUDGE_H
#define COSY_JUDGE_H

#include "cosy_stats.h"
#include "sys.h"

/* There is no such file: the kernel has its own word for that. */
#define JUDGE_ABSENT (COSY_NATIVE_REASONS + 1)

/*
 * COSY_NATIVE_REASONS: nothing speaks against it. *key: what the program is known by
 * (leaf.h), 0 if that is not known.
 */
HIDDEN u32 judge_program(int dirfd, const char *path, int flags, u64 *key);

#endif
