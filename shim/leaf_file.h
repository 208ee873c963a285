/* SPDX-License-Identifier: MIT */
/*
 * Opening the table of leaf_table.h, by shim and cosy-auto alike: the one has no C library, so it is
 * all system calls. LEAF_SYS(number, ...), negative on failure, is whoever includes this file's own.
 */
#ifndef COSY_LEAF_FILE_H
#define COSY_LEAF_FILE_H

#include <asm/unistd_64.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/statfs.h>

#include "leaf_table.h"

/* Not in linux/magic.h. */
#define LEAF_ZFS_MAGIC 0x2fc12fc1
#define LEAF_BCACHEFS_MAGIC 0xca451a4e

/* File systems that give a block new storage whenever it is written. */
static inline bool leaf_never_overwrites(int fd)
{
	struct statfs fs;

	if (LEAF_SYS(__NR_fstatfs, fd, &fs) < 0)
		return true;
	switch ((uint32_t)fs.f_type) {
	case BTRFS_SUPER_MAGIC:
	case LEAF_ZFS_MAGIC:
	case LEAF_BCACHEFS_MAGIC:
		return true;
	}
	return false;
}

/* All of a table that is new, or that has holes. False: there is no room. */
static inline bool leaf_allocate(int fd, struct stat *st, uint32_t uid)
{
	uint64_t limit[2] = { 0, 0 }; /* beyond it the kernel would send a signal */

	return leaf_file_ours(st, uid) && st->st_size <= (off_t)sizeof(struct leaf_table) &&
	       !leaf_never_overwrites(fd) &&
	       LEAF_SYS(__NR_prlimit64, 0, RLIMIT_FSIZE, 0, limit) >= 0 &&
	       limit[0] >= sizeof(struct leaf_table) &&
	       LEAF_SYS(__NR_fallocate, fd, 0, 0, sizeof(struct leaf_table)) >= 0 &&
	       LEAF_SYS(__NR_fstat, fd, st) >= 0;
}

/* The user's own file at `path`, made if need be. NULL: it is not as it should be, and there is no table. */
static inline struct leaf_table *leaf_file_map(const char *path)
{
	const int flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW;
	int fd = (int)LEAF_SYS(__NR_openat, AT_FDCWD, path, flags);
	uint32_t uid = (uint32_t)LEAF_SYS(__NR_geteuid);
	struct leaf_table *table;
	struct stat st;
	long at = -1;

	/* Two at once do the same. */
	if (fd < 0)
		fd = (int)LEAF_SYS(__NR_openat, AT_FDCWD, path, flags | O_CREAT, 0600);
	if (fd < 0)
		return NULL;
	if (LEAF_SYS(__NR_fstat, fd, &st) >= 0 &&
	    (leaf_file_valid(&st, uid) ||
	     (leaf_allocate(fd, &st, uid) && leaf_file_valid(&st, uid))))
		at = (long)LEAF_SYS(__NR_mmap, 0, sizeof(*table), PROT_READ | PROT_WRITE,
				    MAP_SHARED, fd, 0);
	LEAF_SYS(__NR_close, fd);
	if (at < 0)
		return NULL;
	table = (struct leaf_table *)at;
	if (table->magic != LEAF_MAGIC) {
		for (uint32_t i = 0; i < LEAF_SLOTS; i++)
			table->slots[i] = (struct leaf_slot){ 0 };
		table->magic = LEAF_MAGIC;
	}
	return table;
}

#endif
