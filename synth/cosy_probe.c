// SPDX-License-Identifier: MIT
/*
 * What calls cost here: `cosy-doctor --calibrate` runs it, native and under cosy-auto.
 *
 *   cosy-probe calls N       ns of CPU time per call: getppid
 *   cosy-probe copy FILE N   ns of CPU time per byte that a read of FILE copies, which holds COPIED bytes
 *   cosy-probe walk STEP MORE DIR
 *                            reads the directories below DIR, asks for the attributes of every
 *                            STEPth entry (0: of none) and MORE times for an extended one, as ls
 *                            does; prints the CPU time in ns and how often it asked
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define COPIED (64L << 10)
#define FEW (4L << 10)
#define MOST (60L * 1000) // entries, then it does not go further down

static const char *const attributes[] = { "security.selinux", "system.posix_acl_access" };

static double cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static int calls(long n)
{
	double start = cpu_ns();

	for (long i = 0; i < n; i++)
		getppid();
	printf("%.2f\n", (cpu_ns() - start) / (double)n);
	return 0;
}

// ns of N reads of so many bytes, or -1.
static double reads(int fd, size_t bytes, long n)
{
	static char to[COPIED];
	double start = cpu_ns();

	for (long i = 0; i < n; i++)
		if (pread(fd, to, bytes, 0) != (ssize_t)bytes)
			return -1;
	return cpu_ns() - start;
}

// The reads' own cost is in both, and goes.
static int copy(const char *path, long n)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	double few, many;

	if (fd < 0 || reads(fd, COPIED, 1) < 0)
		return 1;
	few = reads(fd, FEW, n);
	many = reads(fd, COPIED, n);
	close(fd);
	printf("%.4f\n", (many - few) / (double)(n * (COPIED - FEW)));
	return few < 0 || many < 0;
}

struct names {
	char *text; // the names one after the other, with their zeros
	size_t used, size;
};

static int add(struct names *names, const char *name)
{
	size_t length = strlen(name) + 1;

	if (names->used + length > names->size) {
		size_t size = names->size * 2 + length;
		char *text = realloc(names->text, size);

		if (!text)
			return -1;
		names->text = text;
		names->size = size;
	}
	memcpy(names->text + names->used, name, length);
	names->used += length;
	return 0;
}

// Ask about a child; how often, or -1. Attributes that are there are no failure: others set them.
static long ask(const char *path, long more)
{
	struct stat st;

	if (lstat(path, &st))
		return -1;
	for (long i = 0; i < more; i++)
		(void)lgetxattr(path, attributes[i % 2], NULL, 0);
	return 1 + more;
}

// As du does: read a directory to its end, ask, then go down. Returns how often it asked, or -1.
static long walk(char *path, long step, long more, long *left)
{
	size_t length = strlen(path);
	struct names all = { 0 }, below = { 0 };
	long asked = 0, i = 0;
	DIR *dir = opendir(path);
	struct dirent *e;

	if (!dir)
		return 0; // not ours to read
	while ((e = readdir(dir))) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (add(&all, e->d_name) || (e->d_type == DT_DIR && add(&below, e->d_name)))
			asked = -1;
	}
	for (char *n = all.text; asked >= 0 && n < all.text + all.used; n += strlen(n) + 1, i++) {
		long done = 0;

		if (length + strlen(n) + 2 > PATH_MAX)
			continue;
		sprintf(path + length, "/%s", n);
		if (step && i % step == 0)
			done = ask(path, more);
		asked = done < 0 ? -1 : asked + done;
		--*left;
	}
	closedir(dir);
	for (char *n = below.text; asked >= 0 && *left > 0 && n < below.text + below.used;
	     n += strlen(n) + 1) {
		long done = 0;

		if (length + strlen(n) + 2 > PATH_MAX)
			continue;
		sprintf(path + length, "/%s", n);
		done = walk(path, step, more, left);
		asked = done < 0 ? -1 : asked + done;
	}
	path[length] = '\0';
	free(all.text);
	free(below.text);
	return asked;
}

static int timed_walk(long step, long more, const char *folder)
{
	static char path[PATH_MAX];
	long asked, left = MOST;
	double start = cpu_ns();

	if (strlen(folder) >= sizeof(path))
		return 1;
	strcpy(path, folder);
	asked = walk(path, step, more, &left);
	printf("%.0f %ld\n", cpu_ns() - start, asked);
	return asked < 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "calls"))
		return calls(atol(argv[2]));
	if (argc == 4 && !strcmp(argv[1], "copy"))
		return copy(argv[2], atol(argv[3]));
	if (argc == 5 && !strcmp(argv[1], "walk"))
		return timed_walk(atol(argv[2]), atol(argv[3]), argv[4]);
	fprintf(stderr, "usage: cosy-probe calls N | copy FILE N | walk STEP MORE DIR\n");
	return 2;
}
