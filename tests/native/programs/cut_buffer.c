// SPDX-License-Identifier: MIT
/*
 * cut_buffer HOW DIRECTORY DIRECTORY: asks about the entries of the first with a buffer in a mapped
 * file, which is then cut; about the second's with one on the stack, so that there are answers
 * again, and with the first buffer. Prints what each call of the last kind came to.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE 4096
#define MOST 256
#define FEW 8

static char names[MOST][256];

static int list(const char *top, int *count)
{
	DIR *dir = opendir(top);
	struct dirent *entry;

	for (*count = 0; dir && (entry = readdir(dir)) && *count < MOST;)
		if (entry->d_name[0] != '.')
			strcpy(names[(*count)++], entry->d_name);
	return dir ? dirfd(dir) : -1;
}

static int ask(int dir, int i, struct stat *to)
{
	return fstatat(dir, names[i], to, AT_SYMLINK_NOFOLLOW);
}

static int cut(const char *how, const char *path, int fd)
{
	if (!strcmp(how, "ftruncate"))
		return ftruncate(fd, 0);
	if (!strcmp(how, "truncate"))
		return truncate(path, 0);
	if (!strcmp(how, "creat"))
		return creat(path, 0600) < 0;
	if (!strcmp(how, "collapse"))
		return fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 0, PAGE);
	return open(path, O_WRONLY | O_TRUNC) < 0;
}

int main(int argc, char **argv)
{
	char path[] = "/tmp/cut_buffer-XXXXXX";
	struct stat *mapped, st;
	int fd = mkstemp(path), dir, count;
	char *map;

	// Two pages, so that one can be left out.
	if (argc < 4 || fd < 0 || posix_fallocate(fd, 0, 2 * PAGE))
		return 2;
	map = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return 3;
	mapped = (struct stat *)(map + PAGE);
	dir = list(argv[2], &count);
	for (int i = 0; i < count; i++)
		if (ask(dir, i, mapped))
			return 4;
	if (cut(argv[1], path, fd))
		printf("not here: %s\n", strerror(errno));
	unlink(path);
	dir = list(argv[3], &count);
	for (int i = 0; i < FEW && i < count; i++)
		if (ask(dir, i, &st))
			return 5;
	for (int i = FEW; i < count; i++)
		puts(ask(dir, i, mapped) ? strerrorname_np(errno) : "answered");
	return 0;
}
