// SPDX-License-Identifier: MIT
/*
 * random_calls SEED ROUNDS THREADS DIRECTORY: does random things to trees of its own, and asks
 * every question twice: through the C library, where the shim may answer, and by a system call
 * instruction of its own, which only the kernel sees. Each difference is a line; the number of
 * questions comes last. Each thread has a tree, descriptors and a working life of its own.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#define FOLDERS 5u
#define NAMES 200u /* that a folder may hold */
#define OPEN 6u /* descriptors of folders */
#define MOST_THREADS 4

struct life {
	unsigned int chance;
	char top[PATH_MAX / 2];
	int fds[OPEN], folder_of[OPEN]; /* -1: closed */
	int news[2];
	long asked, differences;
};

static int rounds;

// --- chance and the kernel itself ------------------------------------------------

static unsigned int below(struct life *l, unsigned int n)
{
	l->chance = l->chance * 1103515245 + 12345;
	return (l->chance >> 16) % n;
}

// The call by an instruction that nobody patched; as the C library returns it.
static long raw(long nr, long a, long b, long c, long d, long e)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	long ret;

	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "0"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
			 : "rcx", "r11", "memory");
	if (ret < 0 && ret > -4096) {
		errno = (int)-ret;
		return -1;
	}
	return ret;
}

__attribute__((format(printf, 2, 3))) static void differs(struct life *l, const char *form, ...)
{
	va_list args;

	l->differences++;
	va_start(args, form);
	flockfile(stdout);
	vprintf(form, args);
	printf(": differs\n");
	funlockfile(stdout);
	va_end(args);
}

// --- names -----------------------------------------------------------------------

static void folder_path(const struct life *l, unsigned int folder, char *to)
{
	snprintf(to, PATH_MAX, "%s/d%u", l->top, folder);
}

static void name_of(unsigned int n, char *to)
{
	// Of many lengths, and some that differ at the end only.
	snprintf(to, NAME_MAX, "%.*se%u", (int)(n * 7 % 40),
		 "a-long-name-that-many-entries-begin-with", n);
}

static void random_path(struct life *l, char *to)
{
	char name[NAME_MAX];

	name_of(below(l, NAMES), name);
	folder_path(l, below(l, FOLDERS), to);
	strcat(to, "/");
	strcat(to, name);
}

// An entry, there or not, of the folder that is open here.
static void entry(const struct life *l, unsigned int at, unsigned int n, char *name, char *path)
{
	name_of(n % NAMES, name);
	folder_path(l, (unsigned int)l->folder_of[at], path);
	strcat(path, "/");
	strcat(path, name);
}

// --- questions -------------------------------------------------------------------

static bool same_stat(const struct stat *a, const struct stat *b)
{
	return !memcmp(a, b, sizeof(*a));
}

static void ask_stat(struct life *l, int dir, const char *path, int flags)
{
	struct stat ours, theirs;
	int ret, why;

	memset(&ours, 0x55, sizeof(ours));
	memset(&theirs, 0x55, sizeof(theirs));
	ret = fstatat(dir, path, &ours, flags);
	why = ret ? errno : 0;
	if (raw(SYS_newfstatat, dir, (long)path, (long)&theirs, flags, 0) != ret ||
	    (ret && errno != why) || !same_stat(&ours, &theirs))
		differs(l, "fstatat(%d, %s, %#x) = %d (%d)", dir, path, flags, ret, why);
}

static void ask_statx(struct life *l, int dir, const char *path, int flags)
{
	static const unsigned int masks[] = { STATX_BASIC_STATS, STATX_SIZE, STATX_MODE | STATX_INO,
					      STATX_BASIC_STATS | STATX_BTIME };
	unsigned int mask = masks[below(l, 4)];
	struct statx ours, theirs;
	int ret, why;

	memset(&ours, 0x55, sizeof(ours));
	memset(&theirs, 0x55, sizeof(theirs));
	ret = statx(dir, path, flags, mask, &ours);
	why = ret ? errno : 0;
	if (raw(SYS_statx, dir, (long)path, flags, mask, (long)&theirs) != ret ||
	    (ret && errno != why) || memcmp(&ours, &theirs, sizeof(ours)))
		differs(l, "statx(%d, %s, %#x, %#x) = %d (%d)", dir, path, flags, mask, ret, why);
}

static void ask_xattr(struct life *l, const char *path)
{
	static const char *const names[] = { "security.selinux", "system.posix_acl_access",
					     "security.capability", "user.cosy" };
	const char *name = names[below(l, 4)];
	char ours[64] = "", theirs[64] = "";
	bool follow = below(l, 2);
	long ret = follow ? getxattr(path, name, ours, 64) : lgetxattr(path, name, ours, 64);
	int why = ret < 0 ? errno : 0;

	if (raw(follow ? SYS_getxattr : SYS_lgetxattr, (long)path, (long)name, (long)theirs, 64,
		0) != ret ||
	    (ret < 0 && errno != why) || memcmp(ours, theirs, 64))
		differs(l, "getxattr(%s, %s) = %ld (%d)", path, name, ret, why);
}

// The same path in other words; mostly in the same.
static void spell(struct life *l, const char *path, char *to)
{
	static const char *const ways[] = { "%s//%s", "%s/./%s", "%s/../%s/%s", "%s/%s/",
					    "%s///%s/." };
	unsigned int way = below(l, 40);
	const char *slash = strrchr(path, '/'), *before = slash;
	char head[PATH_MAX / 2], folder[NAME_MAX];

	snprintf(to, PATH_MAX, "%s", path);
	if (way >= 5)
		return;
	while (before > path && before[-1] != '/')
		before--;
	snprintf(head, sizeof(head), "%.*s", (int)(slash - path), path);
	snprintf(folder, sizeof(folder), "%.*s", (int)(slash - before), before);
	if (way == 2)
		snprintf(to, PATH_MAX, ways[way], head, folder, slash + 1);
	else
		snprintf(to, PATH_MAX, ways[way], head, slash + 1);
}

static void ask(struct life *l, int dir, const char *path, const char *plain)
{
	char whole[PATH_MAX];
	int flags = below(l, 4) ? AT_SYMLINK_NOFOLLOW : 0;

	spell(l, plain, whole);
	l->asked++;
	switch (below(l, 7)) {
	case 6:
		ask_stat(l, dir, whole, flags); // the descriptor does not matter
		break;
	case 0:
		ask_statx(l, dir, path, flags);
		break;
	case 1:
		ask_xattr(l, whole);
		break;
	case 2:
		ask_stat(l, AT_FDCWD, whole, flags);
		break;
	default:
		ask_stat(l, dir, path, flags);
	}
}

// --- what happens ----------------------------------------------------------------

static void scan(struct life *l)
{
	unsigned int at = below(l, OPEN), folder = below(l, FOLDERS);
	char plain[PATH_MAX], path[PATH_MAX], entries[8192];

	folder_path(l, folder, plain);
	spell(l, plain, path);
	if (l->fds[at] >= 0)
		close(l->fds[at]);
	l->fds[at] = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	l->folder_of[at] = (int)folder;
	while (l->fds[at] >= 0 && getdents64(l->fds[at], entries, sizeof(entries)) > 0)
		;
}

// By the C library, or where the shim does not see it, as another process would.
static void change(struct life *l, const char *path, const char *other)
{
	struct timespec times[2] = { { below(l, 1000000), 5 }, { below(l, 1000000), 7 } };
	int fd;

	switch (below(l, 12)) {
	case 0:
		unlink(path);
		break;
	case 1:
		rename(path, other);
		break;
	case 2:
		chmod(path, 0400 + below(l, 0400));
		break;
	case 3:
		utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW);
		break;
	case 4:
		symlink(other, path);
		break;
	case 5:
		link(other, path);
		break;
	case 6:
		mkdir(path, 0700);
		break;
	case 7:
		rmdir(path);
		break;
	case 8:
		truncate(path, below(l, 100000));
		break;
	case 9:
		setxattr(path, "user.cosy", "value", 5, 0);
		break;
	default:
		fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		if (fd >= 0) {
			if (write(fd, path, below(l, 64)) < 0)
				differs(l, "write to %s: %d", path, errno);
			close(fd);
		}
	}
}

static void unseen(const char *path, const char *other, unsigned int what, unsigned int mode)
{
	long fd;

	switch (what) {
	case 0:
		raw(SYS_unlink, (long)path, 0, 0, 0, 0);
		break;
	case 1:
		raw(SYS_rename, (long)path, (long)other, 0, 0, 0);
		break;
	case 2:
		raw(SYS_chmod, (long)path, 0400 + mode, 0, 0, 0);
		break;
	default:
		fd = raw(SYS_open, (long)path, O_RDWR | O_CREAT | O_CLOEXEC, 0600, 0, 0);
		if (fd >= 0) {
			raw(SYS_write, fd, (long)path, 16, 0, 0);
			raw(SYS_close, fd, 0, 0, 0, 0);
		}
	}
}

// Then the program hears of it: whatever was known is old.
static void hear_news(struct life *l)
{
	char byte = 0;

	if (write(l->news[1], &byte, 1) != 1 || read(l->news[0], &byte, 1) != 1)
		differs(l, "a pipe: %d", errno);
}

static void another_process(struct life *l, const char *path, const char *other)
{
	pid_t child = fork();

	if (!child) {
		change(l, path, other);
		_exit(0);
	}
	if (child > 0 && waitpid(child, NULL, 0) != child)
		differs(l, "wait: %d", errno);
}

static void descriptors(struct life *l)
{
	unsigned int from = below(l, OPEN), to = below(l, OPEN);
	int fd;

	if (from == to || l->fds[from] < 0)
		return;
	if (l->fds[to] < 0)
		fd = dup(l->fds[from]);
	else if (below(l, 2))
		fd = dup2(l->fds[from], l->fds[to]);
	else {
		close(l->fds[to]);
		fd = fcntl(l->fds[from], F_DUPFD_CLOEXEC, 0);
	}
	l->fds[to] = fd;
	l->folder_of[to] = l->folder_of[from];
}

// Reading moves times; what is written through a mapping changes them without a call.
static void contents(struct life *l, const char *path)
{
	int fd = open(path, below(l, 2) ? O_RDONLY | O_CLOEXEC : O_RDWR | O_CLOEXEC);
	char buffer[256];
	struct stat ours, theirs;

	if (fd < 0)
		return;
	if (below(l, 2) && read(fd, buffer, sizeof(buffer)) > 0)
		lseek(fd, 0, SEEK_SET);
	if (!below(l, 3))
		pwrite(fd, path, 8, below(l, 4096));
	memset(&ours, 0x55, sizeof(ours));
	memset(&theirs, 0x55, sizeof(theirs));
	l->asked++;
	fstat(fd, &ours);
	raw(SYS_fstat, fd, (long)&theirs, 0, 0, 0);
	if (!same_stat(&ours, &theirs))
		differs(l, "fstat of %s", path);
	close(fd);
}

static void happen(struct life *l, const char *path)
{
	char other[PATH_MAX];

	random_path(l, other);
	switch (below(l, 16)) {
	case 0:
		another_process(l, path, other);
		break;
	case 1:
	case 2:
	case 3:
		unseen(path, other, below(l, 4), below(l, 0400));
		hear_news(l);
		break;
	case 4:
	case 5:
	case 6:
		descriptors(l);
		break;
	case 7:
	case 8:
	case 9:
		contents(l, path);
		break;
	default:
		change(l, path, other);
	}
}

// About many entries of an open folder, there or not, while things happen to those that come next.
static void burst(struct life *l)
{
	unsigned int at = below(l, OPEN), n = 1 + below(l, NAMES), first = below(l, NAMES);
	char name[NAME_MAX], path[PATH_MAX];

	for (unsigned int i = 0; i < n && l->fds[at] >= 0; i++) {
		if (!below(l, 60)) {
			entry(l, at, first + i + below(l, 4), name, path);
			happen(l, path);
		}
		entry(l, at, first + i, name, path);
		ask(l, l->fds[at], name, path);
	}
}

static void *live(void *arg)
{
	struct life *l = arg;

	for (int i = 0; i < rounds; i++) {
		scan(l);
		burst(l);
		burst(l);
	}
	return NULL;
}

static void begin(struct life *l, unsigned int seed, unsigned int number, const char *folder)
{
	char path[PATH_MAX], name[NAME_MAX];

	l->chance = seed * 31 + number;
	snprintf(l->top, sizeof(l->top), "%s/t%u", folder, number);
	mkdir(l->top, 0700);
	for (unsigned int at = 0; at < OPEN; at++)
		l->fds[at] = -1;
	for (unsigned int d = 0; d < FOLDERS; d++) {
		folder_path(l, d, path);
		mkdir(path, 0700);
		for (unsigned int n = 0; n < NAMES; n += 1 + below(l, 3)) {
			size_t len = strlen(path);

			name_of(n, name);
			strcat(path, "/");
			strcat(path, name);
			close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
			path[len] = 0;
		}
	}
	if (pipe2(l->news, O_CLOEXEC))
		exit(2);
}

int main(int argc, char **argv)
{
	static struct life lives[MOST_THREADS];
	pthread_t threads[MOST_THREADS];
	long asked = 0, differences = 0;
	int n;

	if (argc < 5)
		return 2;
	rounds = atoi(argv[2]);
	n = atoi(argv[3]);
	if (n < 1 || n > MOST_THREADS)
		return 2;
	for (int i = 0; i < n; i++)
		begin(&lives[i], (unsigned int)atoi(argv[1]), (unsigned int)i, argv[4]);
	for (int i = 1; i < n; i++)
		if (pthread_create(&threads[i], NULL, live, &lives[i]))
			return 2;
	live(&lives[0]);
	for (int i = 1; i < n; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < n; i++) {
		asked += lives[i].asked;
		differences += lives[i].differences;
	}
	printf("%ld questions\n", asked);
	return differences != 0;
}
