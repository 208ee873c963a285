// SPDX-License-Identifier: MIT
/*
 * magic HOW DIRECTORY: paths through links of /proc, which mean what a descriptor, the working
 * directory or the root is at the moment. Two directories with the same names, files of 1 and of
 * 1000 bytes: half of the names are asked for while the path leads to the one, half when it leads
 * to the other. Prints the sums.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILES 40

static char one[256], other[256], path[1024];
static int fd, other_fd, base = AT_FDCWD;

static void check(bool failed, const char *what)
{
	if (!failed)
		return;
	fprintf(stderr, "magic: %s: %s\n", what, strerror(errno));
	exit(3);
}

static void fill(const char *top, long size)
{
	struct stat st;

	check(mkdir(top, 0755), top);
	for (int i = 0; i < FILES; i++) {
		char name[512];
		int file;

		snprintf(name, sizeof(name), "%s/f%d", top, i);
		file = open(name, O_WRONLY | O_CREAT, 0644);
		check(file < 0 || ftruncate(file, size) || close(file), name);
		stat(name, &st); // a change time that nobody saw yet is not told
	}
}

static void set_path(const char *format, int number)
{
	snprintf(path, sizeof(path), format, number);
}

// --- where the path leads through ----------------------------------------------

static void self(void)
{
	set_path("/proc/self/fd/%d", fd);
}

static void by_pid(void)
{
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", getpid(), fd);
}

static void thread_self(void)
{
	set_path("/proc/thread-self/fd/%d", fd);
}

static void dev(void)
{
	set_path("/dev/fd/%d", fd);
}

static void standard_input(void)
{
	check(dup2(fd, 0), "dup2");
	fd = 0;
	strcpy(path, "/dev/stdin");
}

static void own_link(void)
{
	char to[64];

	snprintf(to, sizeof(to), "/proc/self/fd/%d", fd);
	check(symlink(to, "mine"), "mine");
	strcpy(path, "mine");
}

static void link_to_all(void)
{
	check(symlink("/proc/self/fd", "all"), "all");
	set_path("./all/%d/.", fd);
}

static void from_proc(void)
{
	check(chdir("/proc/self"), "/proc/self");
	set_path("fd/%d", fd);
}

static void from_fds(void)
{
	check(chdir("/proc/self/fd"), "/proc/self/fd");
	set_path("%d", fd);
}

static void below_descriptor(void)
{
	base = open("/proc/self/fd", O_RDONLY | O_DIRECTORY);
	check(base < 0, "/proc/self/fd");
	set_path("%d", fd);
}

static void working(void)
{
	check(chdir(one), one);
	strcpy(path, "/proc/self/cwd");
}

static void root(void)
{
	snprintf(path, sizeof(path), "/proc/self/root%s", one);
}

static void plain(void)
{
	strcpy(path, one);
}

// --- how it comes to lead elsewhere ------------------------------------------------

static void replace(void)
{
	check(dup2(other_fd, fd) != fd, "dup2");
}

static void open_another(void)
{
	close(fd);
	check(open(other, O_RDONLY | O_DIRECTORY) != fd, "another number");
}

static void move(void)
{
	check(chdir(other), other);
}

static void change_root(void)
{
	check(chroot(other), other);
}

static void exchange(void)
{
	check(renameat2(AT_FDCWD, one, AT_FDCWD, other, RENAME_EXCHANGE), "renameat2");
}

static const struct {
	const char *name;
	void (*lead)(void);
	void (*turn)(void);
	int flags;
} ways[] = {
	{ "self", self, replace, O_DIRECTORY },
	{ "self-closed", self, open_another, O_DIRECTORY },
	{ "self-file", self, replace, 0 },
	{ "pid", by_pid, replace, O_DIRECTORY },
	{ "thread-self", thread_self, replace, O_DIRECTORY },
	{ "dev", dev, replace, O_DIRECTORY },
	{ "stdin", standard_input, replace, O_DIRECTORY },
	{ "own-link", own_link, replace, O_DIRECTORY },
	{ "link-to-all", link_to_all, replace, O_DIRECTORY },
	{ "from-proc", from_proc, replace, O_DIRECTORY },
	{ "from-fds", from_fds, replace, O_DIRECTORY },
	{ "below-descriptor", below_descriptor, replace, O_DIRECTORY },
	{ "cwd", working, move, O_DIRECTORY },
	{ "root", root, change_root, O_DIRECTORY },
	{ "plain", plain, exchange, O_DIRECTORY },
};

static long sum(int from, int to)
{
	char name[1200];
	struct stat st;
	long bytes = 0;

	for (int i = from; i < to; i++) {
		snprintf(name, sizeof(name), "%s/f%d", path, i);
		if (!fstatat(base, name, &st, AT_SYMLINK_NOFOLLOW))
			bytes += st.st_size;
	}
	return bytes;
}

int main(int argc, char **argv)
{
	unsigned int way = 0;
	long before;
	DIR *dir;

	if (argc < 3)
		return 2;
	while (way < sizeof(ways) / sizeof(*ways) && strcmp(ways[way].name, argv[1]))
		way++;
	check(way == sizeof(ways) / sizeof(*ways), argv[1]);
	check(chdir(argv[2]), argv[2]);
	snprintf(one, sizeof(one), "%s/a", argv[2]);
	snprintf(other, sizeof(other), "%s/b", argv[2]);
	fill(one, 1);
	fill(other, 1000);
	fd = open(one, O_RDONLY | O_DIRECTORY);
	other_fd = open(other, O_RDONLY | O_DIRECTORY);
	check(fd < 0 || other_fd < 0, "open");
	ways[way].lead();
	dir = fdopendir(openat(base, path, O_RDONLY | O_CLOEXEC | ways[way].flags));
	check(!dir, path);
	while (readdir(dir))
		;
	before = sum(0, FILES / 2);
	ways[way].turn();
	printf("%ld %ld\n", before, sum(FILES / 2, FILES));
	return 0;
}
