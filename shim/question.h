/* SPDX-License-Identifier: MIT */
/*
 * A call that asks something, taken apart by the system call table: what it is
 * about, what it wants to know, and where the answer goes. Calls that want the
 * same in different words (lstat, newfstatat) come out the same.
 */
#ifndef COSY_QUESTION_H
#define COSY_QUESTION_H

#include "cosy_image.h"
#include "sys.h"

#define QUESTION_TEXT 4096

enum want {
	WANT_STAT, /* struct stat */
	WANT_STATX, /* struct statx; `detail` is the mask */
	WANT_ACCESS, /* `detail` is the mode */
	WANT_LINK, /* a symbolic link's target */
	WANT_XATTR, /* the attribute `name` */
	WANT_OPEN, /* a descriptor for reading */
	WANT_DATA, /* bytes of a file */
};

struct question {
	const struct regs *regs; /* as it came */
	u32 nr;
	enum want want;
	bool about_fd; /* about the open file `fd`, not about a path */
	int fd;
	int dirfd; /* AT_FDCWD if the call has none */
	const char *path;
	u32 path_len;
	const char *name; /* of an attribute; NULL: none */
	u32 said; /* flags as they were said: AT_* or O_* */
	u32 flags; /* those that change the answer */
	u32 detail;
	void *out;
	u64 size; /* of the buffer; WANT_STAT, WANT_STATX: what is filled */
	u64 offset;
	bool at_offset; /* `offset` counts, not the file's own */
};

/* False: it asks nothing that is known here. Strings are not looked at yet. */
HIDDEN bool question_take(const struct regs *r, struct question *to);
/* The strings can be read; their lengths. False: leave it to the kernel. */
HIDDEN bool question_read(struct question *q);
HIDDEN bool question_matches(const struct question *q, const struct cosy_pattern *p,
			     const char *strings);

#endif
