/* SPDX-License-Identifier: MIT */
/* Descriptor tables: which object a descriptor of a process means. */
#ifndef COSY_DESCRIPTORS_H
#define COSY_DESCRIPTORS_H

#include "core.h"

#define AT_CWD (-100) /* AT_FDCWD; the working directory is kept like a descriptor */

struct descriptor {
	s32 fd;
	s32 object;
	bool cloexec;
	bool used;
};

/* Open addressing, linear probing. */
struct table {
	struct descriptor *slots; /* a power of two, or NULL */
	u32 mask, n;
	bool started; /* its process has begun */
};

void table_deinit(struct table *t);
/* NULL: there is no such descriptor. */
struct descriptor *table_find(const struct table *t, s32 fd);
/* The same, or a new one; NULL: no memory. */
struct descriptor *table_make(struct table *t, s32 fd);
void table_remove(struct table *t, s32 fd);
/* `t` must be empty; false: no memory. */
bool table_copy(struct table *t, const struct table *from);
/* Those of [first, last], and with `cloexec` those only that an exec closes. */
void table_remove_all(struct table *t, s64 first, s64 last, bool cloexec);

#endif
