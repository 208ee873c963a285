// SPDX-License-Identifier: MIT
/*
 * Walks a tree depth first by descriptors, as fts does, and asks for each file's attributes; does
 * something else with the descriptors of its directories in between: ahead KIND TREE. All that a
 * program can see is printed. Between directories it computes, so that somebody who reads ahead of it
 * has the time to.
 */
#define _GNU_SOURCE
#include "ahead.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int n_directories;

void check(bool failed, const char *what)
{
	if (!failed)
		return;
	fprintf(stderr, "ahead: %s: %s\n", what, strerror(errno));
	_exit(3);
}

void compute(long us)
{
	struct timespec start, now;

	// Answered by the vDSO: no call reaches the kernel.
	clock_gettime(CLOCK_MONOTONIC, &start);
	do
		clock_gettime(CLOCK_MONOTONIC, &now);
	while ((now.tv_sec - start.tv_sec) * 1000000 + (now.tv_nsec - start.tv_nsec) / 1000 < us);
}

unsigned sum(const void *at, long n)
{
	unsigned s = 1;

	for (long i = 0; i < n; i++)
		s = s * 31 + ((const unsigned char *)at)[i];
	return s;
}

// A path in the tree and a value that depends on nothing else.
void say(const char *what, long ret, const void *data)
{
	if (ret < 0)
		printf("%s: %s\n", what, strerrorname_np(errno));
	else
		printf("%s: %ld %08x\n", what, ret, data ? sum(data, ret) : 0);
}

// What is between a name's end and the next entry is no part of the answer.
static void tidy(char *list, long bytes)
{
	struct entry *e;

	for (long at = 0; at < bytes; at += e->reclen) {
		size_t len;

		e = (void *)(list + at);
		len = offsetof(struct entry, name) + strlen(e->name) + 1;
		memset(list + at + len, 0, e->reclen - len);
	}
}

long entries(int fd, void *buf, size_t size)
{
	long n = syscall(SYS_getdents64, fd, buf, size);

	tidy(buf, n);
	return n;
}

void read_on(int fd, const char *what, size_t size)
{
	static char buf[LIST];
	long n;

	do {
		n = entries(fd, buf, size);
		say(what, n, buf);
	} while (n > 0);
}

static void ask(int dirfd, const char *name)
{
	struct stat st;

	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW))
		printf("  %s: %s\n", name, strerrorname_np(errno));
	else
		printf("  %s: %o %ld\n", name, st.st_mode, (long)st.st_size);
}

static int add_directories(char **names, int n, const char *list, long bytes, int dirfd)
{
	const struct entry *e;

	for (long at = 0; at < bytes; at += e->reclen) {
		e = (const void *)(list + at);
		if (!strcmp(e->name, ".") || !strcmp(e->name, ".."))
			continue;
		ask(dirfd, e->name);
		if (e->type == DIRECTORY && n < MOST_NAMES)
			names[n++] = strdup(e->name);
	}
	return n;
}

static void walk(const struct kind *kind, int parent, const char *name)
{
	char *names[MOST_NAMES], *buf = malloc(LIST);
	int n = 0, number = n_directories++;
	bool now = number >= EARLY && number % (kind->every ? kind->every : 2) == 0;
	long bytes;
	int fd;

	compute(number < EARLY ? 100 : kind->us ? kind->us : 100);
	fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
	printf("%s %s\n", name, fd < 0 ? strerrorname_np(errno) : "");
	if (fd < 0)
		return;
	if (now && kind->opened)
		kind->opened(fd, parent, name);
	while ((bytes = entries(fd, buf, LIST)) > 0) {
		n = add_directories(names, n, buf, bytes, fd);
		if (now && kind->listed)
			kind->listed(fd, (const struct entry *)buf, bytes);
	}
	say("end", bytes, NULL);
	if (now && kind->ended)
		kind->ended(fd);
	for (int i = 0; i < n; i++) {
		if (n_directories >= EARLY && kind->next)
			kind->next(fd, names[i], i + 1 < n ? names[i + 1] : NULL);
		walk(kind, fd, names[i]);
		free(names[i]);
	}
	if (!(kind->keeps && now))
		close(fd);
	free(buf);
}

static const struct kind *kind_of(const struct kind *kind, const char *name)
{
	while (kind->name && strcmp(kind->name, name) != 0)
		kind++;
	return kind->name ? kind : NULL;
}

int main(int argc, char **argv)
{
	const struct kind *kind = NULL;

	if (argc == 3 && !strcmp(argv[1], "rest")) {
		read_on(atoi(argv[2]), "inherited", LIST);
		return 0;
	}
	if (argc == 3)
		kind = kind_of(kinds, argv[1]);
	if (argc == 3 && !kind)
		kind = kind_of(news_kinds, argv[1]);
	if (!kind) {
		fprintf(stderr, "usage: ahead KIND TREE\n");
		return 2;
	}
	if (kind->begin)
		kind->begin(argv[2]);
	walk(kind, AT_FDCWD, argv[2]);
	if (kind->finish)
		kind->finish(argv[2]);
	return 0;
}
