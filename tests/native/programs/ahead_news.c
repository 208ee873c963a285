// SPDX-License-Identifier: MIT
/* What makes of no use what was read ahead, and how a walking program learns of it. */
#define _GNU_SOURCE
#include "ahead.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Shared with the helper: what it is to make a file in, and that it did. */
static struct {
	char path[NAME_MAX + 64];
	_Atomic bool go, done;
} *order;
static int news[2];
static pid_t helper;
static const char *manner;
static volatile sig_atomic_t signals;
static int changed;

static void on_signal(int number)
{
	(void)number;
	signals++;
}

static void tell_news(void)
{
	if (!strcmp(manner, "signal"))
		kill(getppid(), SIGUSR1);
	else if (strcmp(manner, "untold") != 0 && strcmp(manner, "wait4") != 0)
		check(write(news[1], "x", 1) != 1, "write");
	order->done = true;
}

static void help(void)
{
	int fd;

	while (!order->go)
		usleep(100);
	fd = open(order->path, O_CREAT | O_WRONLY, 0600);
	check(fd < 0, order->path);
	close(fd);
	tell_news();
	_exit(0);
}

static void start_helper(const char *how)
{
	struct sigaction action = { .sa_handler = on_signal };

	manner = how;
	order = mmap(NULL, sizeof(*order), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	check(order == MAP_FAILED, "mmap");
	check(pipe(news), "pipe");
	check(sigaction(SIGUSR1, &action, NULL), "sigaction");
	helper = fork();
	check(helper < 0, "fork");
	if (!helper)
		help();
}

static void learn(void)
{
	struct pollfd p = { .fd = news[0], .events = POLLIN };
	char byte;
	int status;

	if (!strcmp(manner, "pipe"))
		check(read(news[0], &byte, 1) != 1, "read");
	else if (!strcmp(manner, "poll"))
		check(poll(&p, 1, -1) != 1, "poll");
	else if (!strcmp(manner, "wait4"))
		check(syscall(SYS_wait4, helper, &status, 0, NULL) != helper, "wait4");
	else if (!strcmp(manner, "signal"))
		while (!signals)
			__builtin_ia32_pause();
	else
		while (!order->done)
			__builtin_ia32_pause();
}

/* A file is made in the directory that comes after the next, which is read by then if ever. */
static void make_file(int fd, const char *in)
{
	char path[NAME_MAX + 8];

	snprintf(path, sizeof(path), "%s/new", in);
	if (!manner) {
		close(openat(fd, path, O_CREAT | O_WRONLY, 0600));
		return;
	}
	snprintf(order->path, sizeof(order->path), "/proc/%d/fd/%d/%s", getpid(), fd, path);
	order->go = true;
	learn();
}

static void news_once(int fd, const char *name, const char *after)
{
	(void)name;
	if (n_directories < ONCE || !after || changed++)
		return;
	compute(30000);
	make_file(fd, after);
	compute(manner && !strcmp(manner, "untold") ? 200000 : 0);
}

/*
 * The same where nothing but what was read ahead is alive: the news before ended what the compounds told,
 * and nobody asks about a file in an empty directory.
 */
static void quiet_news(int fd, const char *name, const char *after)
{
	static int before;

	if (strncmp(name, "quiet", 5) != 0 || !name[5] || !after || changed)
		return;
	if (!before++)
		syscall(SYS_sched_yield);
	compute(1000);
	if (before < 20)
		return;
	compute(20000);
	changed = 1;
	make_file(fd, after);
}

static void by_pipe(const char *tree)
{
	(void)tree;
	start_helper("pipe");
}

static void by_poll(const char *tree)
{
	(void)tree;
	start_helper("poll");
}

static void by_wait(const char *tree)
{
	(void)tree;
	start_helper("wait4");
}

static void by_signal(const char *tree)
{
	(void)tree;
	start_helper("signal");
}

static void untold(const char *tree)
{
	(void)tree;
	start_helper("untold");
}

static void exchange(int fd, const char *one, const char *other)
{
	check(syscall(SYS_renameat2, fd, one, fd, other, RENAME_EXCHANGE), "renameat2");
	compute(30000);
}

/* Two directories change places, with what is in them; the names in both are the same. */
static void swap_once(int fd, const char *name, const char *after)
{
	if (n_directories < ONCE || !after || strncmp(name, "part", 4) != 0 || changed++)
		return;
	compute(30000);
	exchange(fd, name, after);
}

/* The same of the directory that was just opened, or in the middle of it. */
static void swap_above(int fd, int parent, const char *name)
{
	(void)fd;
	if (n_directories < ONCE || strncmp(name, "part", 4) != 0 || changed++)
		return;
	compute(30000);
	exchange(parent, name, strcmp(name, "part1") != 0 ? "part1" : "part2");
}

static void swap_in_the_middle(int fd, int parent, const char *name)
{
	static char above[NAME_MAX + 1];
	static int top, n;

	(void)fd;
	if (!strncmp(name, "part", 4)) {
		strcpy(above, name);
		top = parent;
		n = 0;
	}
	if (n_directories >= ONCE && above[0] && ++n == 5 && !changed++)
		exchange(top, above, strcmp(above, "part1") != 0 ? "part1" : "part2");
}

const struct kind news_kinds[] = {
	{ "own", .next = news_once },
	{ "pipe", .begin = by_pipe, .next = news_once },
	{ "poll", .begin = by_poll, .next = news_once },
	{ "wait4", .begin = by_wait, .next = news_once },
	{ "signal", .begin = by_signal, .next = news_once },
	{ "untold", .begin = untold, .next = news_once },
	{ "quiet", .begin = by_pipe, .next = quiet_news },
	{ "swap", .next = swap_once, .every = 1 },
	{ "swap-above", .opened = swap_above, .every = 1 },
	{ "swap-middle", .opened = swap_in_the_middle, .every = 1 },
	{ .name = NULL },
};
