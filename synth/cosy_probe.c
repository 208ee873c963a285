// SPDX-License-Identifier: MIT
/*
 * What calls cost here: `cosy-doctor --calibrate` runs it, native and under cosy-auto.
 *
 *   cosy-probe calls N       ns of CPU time per call: getppid, pread of 1 byte, pread of 64 KiB
 *   cosy-probe walk STEP DIR reads every directory in DIR, asks for the attributes of every STEPth
 *                            entry (0: of none); prints the CPU time in ns and the calls
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LARGE (64 << 10)
#define MAX_NAMES 4096

static double cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static int calls(long n)
{
	static char data[LARGE];
	int fd = memfd_create("data", 0);
	double start, plain, small, large;

	if (fd < 0 || write(fd, data, LARGE) != LARGE)
		return 1;
	start = cpu_ns();
	for (long i = 0; i < n; i++)
		getppid();
	plain = cpu_ns() - start;
	start = cpu_ns();
	for (long i = 0; i < n; i++)
		if (pread(fd, data, 1, 0) != 1)
			return 1;
	small = cpu_ns() - start;
	start = cpu_ns();
	for (long i = 0; i < n / 16; i++)
		if (pread(fd, data, LARGE, 0) != LARGE)
			return 1;
	large = (cpu_ns() - start) * 16;
	printf("%.2f %.2f %.2f\n", plain / (double)n, small / (double)n, large / (double)n);
	return 0;
}

static long walk_one(int parent, const char *name, long step)
{
	static char names[MAX_NAMES][32];
	long count = 0, asked = 0;
	int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;
	struct stat st;

	if (!dir)
		return -1;
	while ((e = readdir(dir)) && count < MAX_NAMES)
		if (e->d_name[0] != '.' && strlen(e->d_name) < sizeof(names[0]))
			strcpy(names[count++], e->d_name);
	for (long i = 0; step && i < count; i += step, asked++)
		if (fstatat(fd, names[i], &st, AT_SYMLINK_NOFOLLOW))
			asked = -MAX_NAMES;
	closedir(dir);
	return asked;
}

static int walk(long step, const char *path)
{
	DIR *top = opendir(path);
	long asked = 0;
	double start;
	struct dirent *e;

	if (!top)
		return 1;
	start = cpu_ns();
	while ((e = readdir(top))) {
		long n = e->d_name[0] == '.' ? 0 : walk_one(dirfd(top), e->d_name, step);

		if (n < 0)
			return 1;
		asked += n;
	}
	printf("%.0f %ld\n", cpu_ns() - start, asked);
	closedir(top);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "calls"))
		return calls(atol(argv[2]));
	if (argc == 4 && !strcmp(argv[1], "walk"))
		return walk(atol(argv[2]), argv[3]);
	fprintf(stderr, "usage: cosy-probe calls N | walk STEP DIR\n");
	return 2;
}
