// SPDX-License-Identifier: MIT
/*
 * lent DIRECTORY: a child of fork lends its memory to a child of vfork, which opens another
 * directory under a descriptor that both have. Prints the sizes of half of the entries by the
 * descriptor, which is still the first directory's, and of the other directory's others by path.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fill.h"

static char path[512];

static void borrow(int fd, const char *other)
{
	pid_t borrower = vfork();

	if (!borrower) {
		close(fd);
		_exit(open(other, O_RDONLY | O_DIRECTORY) != fd);
	}
	// Not waited for, which would end all that is known.
}

static int lend(DIR *dir, const char *other)
{
	long by_fd = 0, by_path = 0;
	int fd = dirfd(dir);
	struct stat st;

	borrow(fd, other);
	while (readdir(dir))
		;
	for (int i = 0; i < FILES; i++) {
		bool whole = i >= FILES / 2;

		snprintf(path, sizeof(path), "%s%sf%d", whole ? other : "", whole ? "/" : "", i);
		if (!fstatat(whole ? AT_FDCWD : fd, path, &st, AT_SYMLINK_NOFOLLOW))
			*(whole ? &by_path : &by_fd) += st.st_size;
	}
	printf("%ld %ld\n", by_fd, by_path);
	return fflush(stdout);
}

int main(int argc, char **argv)
{
	char one[256], other[256];
	pid_t child;
	DIR *dir;

	if (argc < 2)
		return 2;
	snprintf(one, sizeof(one), "%s/a", argv[1]);
	snprintf(other, sizeof(other), "%s/b", argv[1]);
	fill(one, 1);
	fill(other, 1000);
	dir = opendir(one);
	child = fork();
	if (!child)
		_exit(lend(dir, other));
	waitpid(child, NULL, 0);
	return 0;
}
