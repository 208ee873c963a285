// SPDX-License-Identifier: MIT
/*
 * by_path DIRECTORY [thread]: reads a directory, closes it, and asks for its entries by path; beside
 * another thread, whose next descriptor is the lowest that is free.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char names[256][64];

static void *wait_for_ever(void *unused)
{
	pause();
	return unused;
}

int main(int argc, char **argv)
{
	struct dirent *entry;
	char *path;
	pthread_t thread;
	struct stat st;
	long bytes = 0;
	int n = 0;
	DIR *dir;

	if (argc < 2 || (argc > 2 && pthread_create(&thread, NULL, wait_for_ever, NULL)))
		return 2;
	dir = opendir(argv[1]);
	if (!dir)
		return 3;
	while ((entry = readdir(dir)) && n < 256)
		if (entry->d_name[0] != '.')
			snprintf(names[n++], sizeof(*names), "%.63s", entry->d_name);
	closedir(dir);
	for (int i = 0; i < n; i++) {
		if (asprintf(&path, "%s/%s", argv[1], names[i]) < 0)
			return 4;
		if (!lstat(path, &st))
			bytes += st.st_size;
		free(path);
	}
	printf("%ld\n", bytes);
	return 0;
}
