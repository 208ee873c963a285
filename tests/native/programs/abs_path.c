// SPDX-License-Identifier: MIT
/*
 * abs_path DIRECTORY: a descriptor of a directory that was renamed since, and another directory in
 * its place. Prints the sizes of half of the entries, by the descriptor, and of the others, by
 * absolute paths (and a descriptor that does not matter).
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fill.h"

static char path[512];

int main(int argc, char **argv)
{
	char old[256], moved[256], other[256];
	struct stat st;
	long by_fd = 0, by_path = 0;
	int fd, top;
	DIR *dir;

	if (argc < 2)
		return 2;
	snprintf(old, sizeof(old), "%s/a", argv[1]);
	snprintf(moved, sizeof(moved), "%s/b", argv[1]);
	snprintf(other, sizeof(other), "%s/c", argv[1]);
	fill(old, 1);
	fill(other, 1000);
	top = open(argv[1], O_RDONLY | O_DIRECTORY);
	dir = opendir(old);
	fd = dirfd(dir);
	rename(old, moved);
	rename(other, old);
	while (readdir(dir))
		;
	for (int i = 0; i < FILES; i++) {
		bool whole = i >= FILES / 2;

		snprintf(path, sizeof(path), "%s%sf%d", whole ? old : "", whole ? "/" : "", i);
		if (!fstatat(whole ? top : fd, path, &st, AT_SYMLINK_NOFOLLOW))
			*(whole ? &by_path : &by_fd) += st.st_size;
	}
	printf("%ld %ld\n", by_fd, by_path);
	return 0;
}
