// SPDX-License-Identifier: MIT
/*
 * pointers DIRECTORY: asks about its entries, so that answers are there, and then with
 * pointers that lead nowhere. Prints what each call returned; what the kernel says, or dies.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#define MOST 512
#define PAGE 4096

static char paths[MOST][PATH_MAX];
static const char *names[MOST];
static char *edge; /* readable up to here */
static char *closed; /* cannot be written */
static void *volatile nowhere; /* unknown to the compiler */

static void say(const char *what, long ret)
{
	printf("%s: %ld %s\n", what, ret, ret < 0 ? strerrorname_np(errno) : "");
}

// Strings that end, or do not, where memory does.
static char *at_edge(const char *s, size_t len)
{
	return memcpy(edge - len, s, len);
}

static void ask_nowhere(int dir, int next)
{
	struct stat st;
	struct statx sx;
	char value[64];

	say("no name", fstatat(dir, nowhere, &st, AT_SYMLINK_NOFOLLOW));
	say("name in the first page", fstatat(dir, (char *)8, &st, AT_SYMLINK_NOFOLLOW));
	say("no path", lstat(nowhere, &st));
	say("name cut", fstatat(dir, at_edge(names[next], 3), &st, AT_SYMLINK_NOFOLLOW));
	say("path cut", lstat(at_edge(paths[next], strlen(paths[next])), &st));
	say("name up to the edge",
	    fstatat(dir, at_edge(names[next], strlen(names[next]) + 1), &st, 0));
	say("path up to the edge", lstat(at_edge(paths[next], strlen(paths[next]) + 1), &st));
	say("no room", fstatat(dir, names[next + 1], nowhere, AT_SYMLINK_NOFOLLOW));
	say("room in the first page", fstatat(dir, names[next + 2], (void *)8, 0));
	say("closed room", fstatat(dir, names[next + 3], (void *)closed, AT_SYMLINK_NOFOLLOW));
	say("room beyond the edge", fstatat(dir, names[next + 4], (void *)(edge - 8), 0));
	say("statx, no room", statx(dir, names[next + 5], 0, STATX_BASIC_STATS, nowhere));
	say("statx, no name", statx(dir, nowhere, 0, STATX_BASIC_STATS, &sx));
	say("no attribute's name", lgetxattr(paths[next + 6], nowhere, value, sizeof(value)));
	say("attribute's name cut",
	    lgetxattr(paths[next + 7], at_edge("security.sel", 12), value, 64));
	say("attribute, no path", getxattr(nowhere, "security.selinux", value, sizeof(value)));
	say("an action at the top", syscall(SYS_rt_sigaction, SIGUSR1, -1L, nowhere, 8));
	say("attribute, no room", getxattr(paths[next + 8], "security.selinux", nowhere, 64));
}

// In the heap, and where it was.
static void ask_in_heap(int dir, int next)
{
	char *heap = sbrk(PAGE - (unsigned long)sbrk(0) % PAGE) == (void *)-1 ? NULL :
										sbrk(3 * PAGE);
	struct stat *room = (void *)(heap + 512), st;

	strcpy(heap, names[next]);
	say("name and room in the heap", fstatat(dir, heap, room, AT_SYMLINK_NOFOLLOW));
	strcpy(heap + PAGE, names[next + 1]);
	say("name in its next page", fstatat(dir, heap + PAGE, room, AT_SYMLINK_NOFOLLOW));
	mprotect(heap + PAGE, PAGE, PROT_NONE);
	say("name in the heap, closed", fstatat(dir, heap + PAGE, &st, AT_SYMLINK_NOFOLLOW));
	say("room in the heap, closed", fstatat(dir, names[next + 2], (void *)(heap + PAGE), 0));
	mprotect(heap + PAGE, PAGE, PROT_READ | PROT_WRITE);
	sbrk(-3 * PAGE);
	say("name where the heap was", fstatat(dir, heap, &st, AT_SYMLINK_NOFOLLOW));
	say("room where the heap was", fstatat(dir, names[next + 3], room, AT_SYMLINK_NOFOLLOW));
}

int main(int argc, char **argv)
{
	char *map =
		mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int n = 0;

	edge = map + PAGE;
	closed = map + 2 * PAGE;
	if (argc < 2 || mprotect(edge, PAGE, PROT_NONE) || mprotect(closed, PAGE, PROT_READ))
		return 2;
	// Twice, since it is only then known that all is asked for.
	for (int turn = 0; turn < 2; turn++) {
		DIR *dir = opendir(argv[1]);
		struct stat st;

		n = 0;
		for (struct dirent *e; (e = readdir(dir)) && n < MOST;)
			if (e->d_name[0] != '.') {
				snprintf(paths[n], PATH_MAX, "%s/%s", argv[1], e->d_name);
				names[n] = strrchr(paths[n], '/') + 1;
				n++;
			}
		for (int i = 0; i < n / 2; i++) {
			fstatat(dirfd(dir), names[i], &st, AT_SYMLINK_NOFOLLOW);
			lstat(paths[i], &st);
		}
		ask_nowhere(dirfd(dir), n / 2);
		ask_in_heap(dirfd(dir), n / 2 + 20);
		closedir(dir);
	}
	return 0;
}
