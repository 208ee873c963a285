/* SPDX-License-Identifier: MIT */
/*
 * Which files a program is likely to open next: those behind this one among the entries of the
 * directory as it read them, or among its arguments. Names lie one behind the other, each ended by
 * NUL. Hints only: each is looked up when it is read, and told by its name.
 */
#ifndef COSY_FILE_NAMES_H
#define COSY_FILE_NAMES_H

#include "dirs.h"
#include "sys.h"

#define TYPE_UNKNOWN 0 /* of a directory entry */
#define TYPE_REGULAR 8

struct file_list {
	int dirfd; /* AT_FDCWD: arguments */
	const struct dir_slot *dir; /* NULL: arguments */
	u32 generation; /* of dir */
	const char *at, *end; /* from the name in question on */
};

/* Room for names. False: no memory. */
HIDDEN bool file_names_start(void);
/* The list that a path is in; false: none. */
HIDDEN bool file_names_find(int dirfd, const char *path, u32 len, struct file_list *to);
/* The program read entries of a directory. */
HIDDEN void file_names_scanned(u64 fd, const void *entries, u64 bytes);
/* Nothing can be added to what is known of it, which may be nothing. */
HIDDEN bool file_names_known(int dirfd);
/* One more of its names, of a type as getdents64 tells it. False: no more can be. */
HIDDEN bool file_names_add(int dirfd, const char *name, u32 len, u8 type);
/* A path of the program's arguments, and at least so many are behind it. */
HIDDEN bool file_names_is_argument(const char *path);
HIDDEN bool file_names_left(const char *path, u32 least);

#endif
