/* SPDX-License-Identifier: MIT */
/*
 * Programs that never gain: a small table in the cache folder, shared by all
 * processes of a user, says of each program file how often it ran under the
 * shim, how often that was worth it, and whether it starts other programs. One
 * that has never gained, and starts none, is a leaf that the next exec leaves
 * alone, so that shell scripts do not pay for it. Now and then it is tried
 * again. Only hints: whatever the table says, programs do what they did.
 */
#ifndef COSY_LEAF_H
#define COSY_LEAF_H

#include "leaf_table.h"
#include "shim.h"

/* This process is a run of its program; the exec was counted where it came from. */
HIDDEN void leaf_start(void);
/* A child is about to be made, which may exec, and then finds the table there. */
HIDDEN void leaf_before_fork(void);
/* A call was answered; hundreds of them are a gain. */
HIDDEN void leaf_answered(void);
/* The process ends. */
HIDDEN void leaf_exit(void);
/* This program starts others. */
HIDDEN void leaf_execs(void);
/* An exec of a program: would the shim be for nothing there, as far as is known? */
HIDDEN bool leaf_pointless(u64 key);

#endif
