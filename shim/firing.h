/* SPDX-License-Identifier: MIT */
/* A compound fires: the executor runs over a directory. */
#ifndef COSY_FIRING_H
#define COSY_FIRING_H

#include "dirs.h"
#include "image.h"

#define DOTS 2 /* "." and ".." are no children */

/* compound.c: the image of this process. */
extern HIDDEN struct image profile;

/* The program's descriptor of it was opened in this epoch: it and its path mean the same. */
HIDDEN bool opened_now(const struct dir_slot *d, u64 epoch, u64 tsc);
/*
 * A descriptor of the directory that the call means; -errno. By path it must be
 * the one the path leads to now: the program's own if that was opened in this
 * epoch, else one opened for the moment (*ours), unless other threads could meet it.
 */
HIDDEN int run_fd(const struct child *child, u64 epoch, u64 tsc, bool *ours);
/*
 * Entries that the next firing in the directory may go over: the compound's chunk, or further than
 * the last, if that stopped before the end.
 */
HIDDEN u32 next_reach(const struct cosy_compound *c, const struct dir_slot *d);
struct work;
/* Compound number `ci` runs over the directory of this child. */
HIDDEN void fire(u32 ci, struct work *work, const struct child *child);

#endif
