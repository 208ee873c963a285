/* SPDX-License-Identifier: MIT */
/* What lowering and running a compound share. */
#ifndef COSY_LOWER_H
#define COSY_LOWER_H

#include "cosy_compound.h"
#include "verify.h"

/* Registers with a meaning between runs; the rest is lower.c's. */
enum {
	REG_CURSOR = 1, /* where the next record goes */
	REG_END, /* no record reaches beyond */
	REG_STOP, /* why it stopped: 0: all is done; STOP_CALLS; else where to go on with new room */
	REG_MOST, /* calls that may be made */
	REG_DIR, /* D */
	REG_FAILED, /* 0, or -errno of reading D */
};
#define STOP_CALLS (-1)

#define PREFIX_BYTES 64 /* "/proc/self/fd/N/" */

/* Fills *to and *p; 0 or -errno (cosy_compound_load). */
int lower_compound(const struct image *im, const struct cosy_compound *compound,
		   struct cosy_program *p, struct cosy_compound_ready *to);

#endif
