/* SPDX-License-Identifier: MIT */
/*
 * What a patched site jumps to (entry.S): a stub makes calls that nobody wants to see by itself, and
 * leaves the others to cosy_entry.
 */
#ifndef COSY_STUB_H
#define COSY_STUB_H

#include "shim.h"

#define STUB_TABLES 8

/* What stubs look at, at a distance from them that is the same in every process. */
struct stub_table {
	u8 *entry;
	u8 actions[COSY_ACTIONS]; /* as cosy_actions */
};

/* A system call instruction that becomes a jump. */
struct stub_site {
	const u8 *behind; /* the text behind it */
	const u8 *runs_at; /* where that will run */
	u32 moved; /* bytes of the instruction behind it that move along; 0: mov $nr,%eax in front of it is overwritten */
};

/* Write the stub of a site to `to`; it will run at `runs_at`, with its table at `table`. */
HIDDEN void stub_build(u8 *to, const u8 *runs_at, const struct stub_site *site, const u8 *table);
/* From now on stubs look here: memory of our own, empty, of STUB_TABLES at most. */
HIDDEN void stub_table_open(struct stub_table *table);

#endif
