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

#include <sys/stat.h>

#include "shim.h"

/* What a program's file is known by; changes when the file does. */
HIDDEN u64 leaf_key(const struct stat *st);
/* This process is a run of its program. */
HIDDEN void leaf_start(void);
/* A call was answered; several of them are a gain. */
HIDDEN void leaf_answered(void);
/* This program starts others. */
HIDDEN void leaf_execs(void);
/* Would the shim be for nothing there, as far as is known? */
HIDDEN bool leaf_pointless(u64 key);

#endif
