// SPDX-License-Identifier: MIT
/*
 * go_calls DIRECTORY: asks for the sizes of half of the files, makes the others longer by a system
 * call instruction of its own, as Go's runtime has, and asks for those. Prints the sums.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifdef NOTE
#include "go_note.h"
#endif
#ifdef LIBRARY
extern int go_library;
#endif

#define FILES 40

static char path[4200];

static long own_truncate(const char *name, long size)
{
	long ret;

	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "0"(SYS_truncate), "D"(name), "S"(size)
			 : "rcx", "r11", "memory");
	return ret;
}

static const char *file(const char *top, int i)
{
	snprintf(path, sizeof(path), "%s/f%d", top, i);
	return path;
}

static long sum(const char *top, int from, int to)
{
	struct stat st;
	long bytes = 0;

	for (int i = from; i < to; i++)
		if (!lstat(file(top, i), &st))
			bytes += st.st_size;
	return bytes;
}

int main(int argc, char **argv)
{
	long before;
	DIR *dir;

	if (argc < 2)
		return 2;
#ifdef LIBRARY
	if (!go_library)
		return 3;
#endif
	for (int i = 0; i < FILES; i++) {
		struct stat st;
		int fd = open(file(argv[1], i), O_WRONLY | O_CREAT, 0600);

		if (write(fd, "x", 1) != 1 || fsync(fd) || close(fd) || stat(path, &st))
			return 4; // a change time that nobody saw yet is not told
	}
	dir = opendir(argv[1]);
	while (dir && readdir(dir))
		;
	before = sum(argv[1], 0, FILES / 2);
	for (int i = FILES / 2; i < FILES; i++)
		if (own_truncate(file(argv[1], i), 1000))
			return 5;
	printf("%ld %ld\n", before, sum(argv[1], FILES / 2, FILES));
	return 0;
}
