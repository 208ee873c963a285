// SPDX-License-Identifier: MIT
/*
 * Nobody trusts the file: it must be the user's own or root's, writable by
 * nobody else, and pass the verifier. It is copied before it is looked at, so
 * that it cannot change afterwards.
 */
#include "image.h"

#include <asm/unistd_64.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

static bool owner_trusted(const struct stat *st)
{
	return S_ISREG(st->st_mode) && !(st->st_mode & (S_IWGRP | S_IWOTH)) &&
	       (st->st_uid == 0 || st->st_uid == (u32)sys(__NR_geteuid));
}

enum cosy_native_reason image_open(const char *path, struct image *to)
{
	enum cosy_native_reason why = COSY_NATIVE_REASONS;
	struct stat st;
	u8 *map;
	int fd =
		(int)sys(__NR_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

	if (fd < 0)
		return COSY_NATIVE_IMAGE_ABSENT;
	if (sys_failed(sys(__NR_fstat, fd, &st)) || !owner_trusted(&st)) {
		sys(__NR_close, fd);
		return COSY_NATIVE_IMAGE_OWNER;
	}
	if (st.st_size <= 0 || st.st_size > (long)COSY_IMAGE_MAX_SIZE) {
		sys(__NR_close, fd);
		return COSY_NATIVE_IMAGE_CORRUPT;
	}
	map = (u8 *)sys(__NR_mmap, 0, st.st_size, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (sys_failed((long)map)) {
		sys(__NR_close, fd);
		return COSY_NATIVE_IMAGE_ABSENT;
	}
	if (sys(__NR_pread64, fd, map, st.st_size, 0) != st.st_size ||
	    !image_verify((const void *)map, (size_t)st.st_size, to))
		why = COSY_NATIVE_IMAGE_CORRUPT;
	sys(__NR_close, fd);
	if (why != COSY_NATIVE_REASONS)
		sys(__NR_munmap, map, st.st_size);
	else
		sys(__NR_mprotect, map, st.st_size, PROT_READ);
	return why;
}
