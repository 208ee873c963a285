/* SPDX-License-Identifier: MIT */
/*
 * Answers of plain calls that were made ahead, and the way back to them from a
 * question. All are of one epoch: the first run of a new one starts afresh.
 * Everything here wants the lock of fence.h.
 */
#ifndef COSY_RECORDED_H
#define COSY_RECORDED_H

#include "dirs.h"
#include "question.h"
#include "results.h"

/* What a question is about: a child of a known directory, a path, or an open file. */
struct subject {
	enum { ABOUT_CHILD, ABOUT_PATH, ABOUT_FILE } kind;
	u32 id; /* ABOUT_CHILD: the directory's slot; ABOUT_FILE: number of the file */
	u32 generation; /* ABOUT_CHILD: of the slot */
	const char *text; /* the name or the path */
	u32 len;
};

/* Which inode an answer is about, and whether reading moves its access time. */
struct inode {
	u64 dev, ino; /* dev as in st_dev; ino 0: not known */
	u32 mode;
	bool atime_stable;
};

/* One run of a compound. */
struct recorded_run {
	struct run_start start;
	u32 compound;
	u16 site; /* --stats: number of the call site that made it run */
	bool by_fd, by_path; /* ABOUT_CHILD: the answers hold for calls that go this way */
};

struct answer {
	u64 hash;
	struct subject about;
	enum want want;
	u32 flags, detail;
	const char *name;
	u32 run; /* index */
	bool used;
	bool whole; /* WANT_DATA: up to the end of the file */
	long ret; /* or -errno; WANT_OPEN: 0 */
	u32 file; /* WANT_OPEN: number of the file */
	u8 *data;
	u64 offset; /* WANT_DATA: of data[0] in the file */
	u64 next; /* WANT_DATA: bytes before this one were given */
	u64 bytes;
	struct inode inode;
};

HIDDEN bool recorded_open(void);
/* A run begins; NULL: no more fit in this epoch. Its index is *number. */
HIDDEN struct recorded_run *recorded_run_new(u32 *number);
HIDDEN struct recorded_run *recorded_run(u32 number);
/* A number for a file that is opened ahead, or that the program has open. */
HIDDEN u32 recorded_file_new(void);
/* Room for the bytes of the next answer, at most *room. */
HIDDEN u8 *recorded_room(u64 *room);
/* Keep an answer; its data must lie at recorded_room(). False: no room. */
HIDDEN bool recorded_keep(const struct answer *a);
/* The next answer to (about, q) after `last` (NULL: the first); NULL: none. */
HIDDEN struct answer *recorded_find(const struct subject *about, const struct question *q,
				    struct answer *last);
/* What is left of a file's attributes is not given any more. */
HIDDEN void recorded_drop_attributes(const struct subject *about);

/* Lock-free: the program's descriptors and the files that they are. */
HIDDEN void recorded_bind(int fd, u32 file);
/* 0: none that this process opened itself, as far as is known */
HIDDEN u32 recorded_file_of(int fd);
HIDDEN void recorded_forget(u64 first, u64 to);

#endif
