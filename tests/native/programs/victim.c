// SPDX-License-Identifier: MIT
/*
 * victim KIND DIRECTORY OTHER: see victim.h. The helper process changes the
 * target for the kinds of news_kinds; own_kinds change it by themselves.
 */
#define _GNU_SOURCE
#include "victim.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define EARLY 6 /* children asked for before the event */

void check(bool failed, const char *what)
{
	if (!failed)
		return;
	fprintf(stderr, "victim: %s: %s\n", what, strerror(errno));
	_exit(3);
}

void spin_ms(int ms)
{
	struct timespec start, now;

	// Answered by the vDSO: no call reaches the kernel.
	clock_gettime(CLOCK_MONOTONIC, &start);
	do
		clock_gettime(CLOCK_MONOTONIC, &now);
	while ((now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000 < ms);
}

void spin_until(_Atomic bool *flag)
{
	while (!*flag)
		__builtin_ia32_pause();
}

static void run_helper(struct scene *s, const struct kind *kind, int ready, int start)
{
	char byte = 0;

	if (kind->take)
		kind->take(s);
	check(write(ready, &byte, 1) != 1, "write to the victim");
	if (read(start, &byte, 1) != 1)
		_exit(0);
	if (kind->late)
		usleep(50000);
	check(chmod(s->target, 0600), "chmod by the helper");
	if (kind->tell)
		kind->tell(s);
	_exit(0);
}

// Returns the descriptor that sets the helper off.
static int start_helper(struct scene *s, const struct kind *kind)
{
	int ready[2], start[2];
	char byte;

	check(pipe(ready) || pipe(start), "pipe");
	s->helper = fork();
	check(s->helper < 0, "fork");
	if (!s->helper) {
		close(start[1]);
		run_helper(s, kind, ready[1], start[0]);
	}
	check(read(ready[0], &byte, 1) != 1, "read from the helper");
	return start[1];
}

static void scan(struct scene *s)
{
	char *names[64];
	struct dirent *entry;
	struct stat st;
	int n = 0;
	DIR *dir;

	s->dirfd = open(s->dir, O_RDONLY | O_DIRECTORY);
	check(s->dirfd < 0, s->dir);
	dir = fdopendir(s->dirfd);
	check(!dir, "fdopendir");
	while ((entry = readdir(dir)) && n < 64)
		if (entry->d_type == DT_REG && strcmp(entry->d_name, TARGET) != 0)
			names[n++] = strdup(entry->d_name);
	check(n < EARLY, "too few children");
	for (int i = 0; i < EARLY; i++)
		check(fstatat(s->dirfd, names[i], &st, AT_SYMLINK_NOFOLLOW), names[i]);
}

static const char *age(struct timespec now, struct timespec before)
{
	return now.tv_sec == before.tv_sec && now.tv_nsec == before.tv_nsec ? "old" : "new";
}

static void report(const struct scene *s, const char *name, const struct stat *before)
{
	struct stat st;

	if (fstatat(s->dirfd, name, &st, AT_SYMLINK_NOFOLLOW)) {
		printf("%s\n", strerror(errno));
		return;
	}
	printf("mode %o links %lu uid %u size %ld ", st.st_mode, (unsigned long)st.st_nlink,
	       st.st_uid, (long)st.st_size);
	if (st.st_ino != before->st_ino)
		puts("another file");
	else
		printf("mtime %s atime %s ctime %s\n", age(st.st_mtim, before->st_mtim),
		       age(st.st_atim, before->st_atim), age(st.st_ctim, before->st_ctim));
}

static const struct kind *find(const struct kind *kinds, const char *name)
{
	for (; kinds->name; kinds++)
		if (!strcmp(kinds->name, name))
			return kinds;
	return NULL;
}

int main(int argc, char **argv)
{
	const struct kind *news, *own, *kind;
	struct scene s = { .targetfd = -1, .otherfd = -1 };
	struct stat before, asked;
	const char *last;
	int start = -1;
	char path[4200];

	if (argc != 4) {
		fprintf(stderr, "usage: victim KIND DIRECTORY OTHER\n");
		return 2;
	}
	news = find(news_kinds, argv[1]);
	own = find(own_kinds, argv[1]);
	kind = news ? news : own;
	check(!kind, argv[1]);
	alarm(30);
	s.dir = argv[2];
	s.other = argv[3];
	s.victim = getpid();
	snprintf(s.target, sizeof(s.target), "%s/%s", s.dir, TARGET);
	last = kind->last ? kind->last : TARGET;
	snprintf(path, sizeof(path), "%s/%s", s.dir, last);
	s.shared = mmap(NULL, sizeof(*s.shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			-1, 0);
	check(s.shared == MAP_FAILED, "mmap");
	check(lstat(path, &before), path);
	if (kind->prepare)
		kind->prepare(&s);
	if (news)
		start = start_helper(&s, kind);
	scan(&s);
	for (int i = 0; i < kind->ask; i++)
		check(fstatat(s.dirfd, last, &asked, AT_SYMLINK_NOFOLLOW), last);
	// A write to a pipe brings no news: what is held stays.
	if (news)
		check(write(start, "", 1) != 1, "write to the helper");
	kind->event(&s);
	report(&s, last, &before);
	fflush(stdout);
	return 0;
}
