/* SPDX-License-Identifier: MIT */
/*
 * The tree that compounds read while others change it. Names come from a small
 * set, so that everybody meets everybody. All of it is below the working folder.
 */
#ifndef FUZZ_TREE_H
#define FUZZ_TREE_H

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "fuzz_random.h"

#define TREE_DIRS 6
#define TREE_NAMES 24
#define TREE_FILE_BYTES 70000

static inline const char *tree_dir(char path[64])
{
	unsigned int depth = below(3);
	int n = snprintf(path, 64, "d%u", (unsigned int)below(TREE_DIRS));

	while (depth--)
		n += snprintf(path + n, 64 - n, "/d%u", (unsigned int)below(TREE_DIRS));
	return path;
}

static inline const char *tree_name(char path[96])
{
	char dir[64];

	snprintf(path, 96, "%s/n%u", tree_dir(dir), (unsigned int)below(TREE_NAMES));
	return path;
}

static inline void tree_write(const char *path)
{
	static char block[TREE_FILE_BYTES];
	int fd = open(path, O_RDWR | O_CREAT | (one_in(2) ? O_TRUNC : 0) | O_NOFOLLOW | O_NONBLOCK,
		      0644);

	if (fd < 0)
		return;
	if (one_in(3))
		(void)!ftruncate(fd, (off_t)below(4 * TREE_FILE_BYTES));
	else
		(void)!pwrite(fd, block, below(sizeof(block)), (off_t)below(TREE_FILE_BYTES));
	close(fd);
}

/* One random change. */
static inline void tree_change(void)
{
	char a[96], b[96];

	switch (below(16)) {
	case 0 ... 4:
		tree_write(tree_name(a));
		break;
	case 5:
	case 6:
		unlink(tree_name(a));
		break;
	case 7:
	case 8:
		rename(tree_name(a), tree_name(b));
		break;
	case 9:
		rename(tree_dir(a), tree_dir(b));
		break;
	case 10:
		mkdir(tree_dir(a), 0755);
		break;
	case 11:
		rmdir(tree_dir(a));
		break;
	case 12:
		(void)!symlink(one_in(4) ? "/proc/self/fd" : tree_name(a), tree_name(b));
		break;
	case 13:
		(void)!link(tree_name(a), tree_name(b));
		break;
	case 14:
		if (one_in(2))
			chmod(tree_name(a), below(01000));
		else
			chmod(tree_dir(a), 0700 | below(0100));
		break;
	default:
		if (one_in(2))
			mkfifo(tree_name(a), 0644);
		else
			setxattr(tree_name(a), "user.fuzz", a, below(sizeof(a)), 0);
	}
}

static inline void tree_create(void)
{
	for (int i = 0; i < 600; i++) {
		char path[64];

		mkdir(tree_dir(path), 0755);
		tree_change();
	}
}

#endif
