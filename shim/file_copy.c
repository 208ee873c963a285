// SPDX-License-Identifier: MIT
#include "file_copy.h"

#include <asm/unistd_64.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>

/*
 * Two devices between which the kernel copies nothing. Where the target's file system has no
 * copy_file_range() of its own, the kernel looks at the two super blocks before all but the kinds and modes of
 * the files: commit 868f9f2f8e00 ("vfs: fix copy_file_range() regression in cross-fs copies") (in v5.19).
 */
static struct {
	u64 from, to;
} refused;

// Files that are made of others' (overlayfs), or are a server's, are refused one by one.
static bool is_plain(int fd)
{
	struct statfs fs;

	if (sys_failed(sys(__NR_fstatfs, fd, &fs)))
		return false;
	return fs.f_type == EXT4_SUPER_MAGIC || fs.f_type == TMPFS_MAGIC ||
	       fs.f_type == XFS_SUPER_MAGIC;
}

// The offset of an open file, no flags: nothing else that could be wrong with the call.
static bool is_simple(const struct regs *r)
{
	return !r->a[1] && !r->a[3] && !(u32)r->a[5];
}

static bool is_open_for_writing(int fd)
{
	long flags = sys(__NR_fcntl, fd, F_GETFL);
	long mode = flags & O_ACCMODE;

	return !sys_failed(flags) && !(flags & O_APPEND) && (mode == O_WRONLY || mode == O_RDWR);
}

bool file_copy_refused(const struct regs *r, u32 dev)
{
	struct stat to;

	return refused.to && dev == refused.from && is_simple(r) &&
	       is_open_for_writing((int)r->a[2]) &&
	       !sys_failed(sys(__NR_fstat, (int)r->a[2], &to)) && S_ISREG(to.st_mode) &&
	       to.st_dev == refused.to;
}

void file_copy_learn(const struct regs *r)
{
	struct stat from, to;

	if (sys_failed(sys(__NR_fstat, (int)r->a[0], &from)) ||
	    sys_failed(sys(__NR_fstat, (int)r->a[2], &to)) || from.st_dev == to.st_dev ||
	    !is_plain((int)r->a[2]))
		return;
	refused.from = from.st_dev;
	refused.to = to.st_dev;
}
