/* SPDX-License-Identifier: MIT */
/* A compound fires: the executor runs over a directory. */
#ifndef COSY_FIRING_H
#define COSY_FIRING_H

#include "account.h"
#include "dirs.h"
#include "image.h"

#define DOTS 2 /* "." and ".." are no children */

/* compound.c: the image of this process, and how each of its compounds fares. */
extern HIDDEN struct image profile;
extern HIDDEN struct account accounts[COSY_MAX_COMPOUNDS];

/* Compound number `ci` runs over the directory of this child. */
HIDDEN void fire(u32 ci, const struct child *child);

#endif
