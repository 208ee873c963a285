/* SPDX-License-Identifier: MIT */
/* A compound fires: the executor runs over a directory, or over those below it. */
#ifndef COSY_FIRING_H
#define COSY_FIRING_H

#include "account.h"
#include "dirs.h"
#include "image.h"

#define DOTS 2 /* "." and ".." are no children */

/* compound.c: the image of this process, and how each of its compounds fares. */
extern HIDDEN struct image profile;
extern HIDDEN struct account accounts[COSY_MAX_COMPOUNDS];
extern HIDDEN u32 descents; /* directories opened whose parent had results */

/* May a run over this directory take subdirectories along? */
HIDDEN bool may_descend(const struct account *a, const struct dir_slot *d);
/* COSY_BPF_SMALL or COSY_BPF_LARGE, for so many bytes of records. */
HIDDEN u32 buffer_size(u64 record_bytes, bool deep);
/* Compound number `ci` runs over the directory of this child. */
HIDDEN void fire(u32 ci, const struct child *child);
/*
 * One subdirectory after the other is entered: have the next ones' children
 * ready. True: the one that `rec` is about is among them.
 */
HIDDEN bool fire_below(const struct child *child, const struct record *rec,
		       struct block_ref *below);

#endif
