/* SPDX-License-Identifier: MIT */
/*
 * What an executor read ahead: the next files of a directory that the program has read, or of the
 * list of paths that it was started with. All of it wants the lock of fence.h.
 */
#ifndef COSY_FILE_BATCH_H
#define COSY_FILE_BATCH_H

#include <linux/stat.h>

#include "cosy_module.h"
#include "file_names.h"
#include "sys.h"

#define FILE_MOST (48u << 10) /* bytes of a file that is read ahead */

/* What statx() says of the device, as entries and stat() have it. */
static inline u64 statx_dev(const struct statx *st)
{
	return (st->stx_dev_minor & 0xff) | st->stx_dev_major << 8 |
	       (st->stx_dev_minor & ~0xffu) << 12;
}

struct file_batch {
	struct file_list list; /* what it is of: list.at is where it begins */
	u64 epoch, tsc; /* of before it was read */
	const char *next; /* the name behind the last */
	u32 at, used; /* the next entry, and the end of all */
	u32 told, given; /* files that it holds, and that were asked for */
	u8 *data; /* a struct cosy_block and its entries */
};

/*
 * The file that an open asks for, if it is one that was read ahead or can be now: it is given
 * once. NULL: the kernel must tell.
 */
HIDDEN const struct cosy_entry *file_batch_find(int dirfd, const char *path,
						const struct file_batch **of);
/* Of this epoch, and young enough. */
HIDDEN bool file_batch_fresh(const struct file_batch *b);
/* Of late, less than half of what was read ahead was asked for; begin again. */
HIDDEN bool file_batch_wastes(void);
HIDDEN void file_batch_reset(void);

/*
 * executor_module.c: memory that the module shares, of this process; NULL: there is none. *fresh:
 * it was not there before.
 */
HIDDEN u8 *module_files_buffer(u32 bytes, bool *fresh);
/*
 * Contents of the files named in `n` bytes of names, one behind the other, a struct cosy_block first,
 * in `bytes` bytes at `out`; both places in that memory. What it takes, or -errno.
 */
HIDDEN long module_files(int dirfd, u32 names, u32 n, u32 out, u32 bytes);
/* Names and types of a directory's entries from a position on, in the same way. */
HIDDEN long module_names(int dirfd, u64 position, u32 out, u32 bytes);

#ifdef COSY_FENCE_TESTS
/* executor_plain.c: the same by plain calls. */
HIDDEN u8 *plain_files_buffer(u32 bytes);
HIDDEN long plain_names(int dirfd, u64 position, u8 *out, u32 bytes);
HIDDEN long plain_files(int dirfd, const char *names, u32 n, u8 *out, u32 bytes);
#endif

#endif
