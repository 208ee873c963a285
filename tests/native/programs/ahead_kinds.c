// SPDX-License-Identifier: MIT
/* What happens in the middle of a walk. */
#define _GNU_SOURCE
#include "ahead.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define HIGH 1500 /* descriptors that the shim does not follow */
#define SHORT 512 /* bytes of entries */
#define STORM_MS 400

static char buf[LIST];
static int changed;

// --- positions -------------------------------------------------------------

static void tell(int fd, const struct entry *list, long bytes)
{
	(void)list;
	(void)bytes;
	say("position", lseek(fd, 0, SEEK_CUR) & 0xffff, NULL);
	say("twice", lseek(fd, 0, SEEK_CUR) & 0xffff, NULL);
}

static void again(int fd, const struct entry *list, long bytes)
{
	(void)list;
	(void)bytes;
	say("back", lseek(fd, 0, SEEK_SET), NULL);
	read_on(fd, "again", LIST);
}

static void from_the_middle(int fd, const struct entry *list, long bytes)
{
	const struct entry *e = list;

	for (long at = 0; at < bytes / 2; at += e->reclen)
		e = (const void *)((const char *)list + at);
	say("middle", lseek(fd, e->off, SEEK_SET) & 0xffff, NULL);
	read_on(fd, "second half", LIST);
	lseek(fd, list->off, SEEK_SET);
	read_on(fd, "all but one", SHORT);
}

static void beyond(int fd, const struct entry *list, long bytes)
{
	(void)list;
	(void)bytes;
	say("to the end", lseek(fd, 0, SEEK_END) & 0xffff, NULL);
	read_on(fd, "behind", LIST);
}

static void again_at_the_end(int fd)
{
	read_on(fd, "still", LIST);
	say("back", lseek(fd, 0, SEEK_SET), NULL);
	read_on(fd, "again", LIST);
}

static void short_afterwards(int fd, const struct entry *list, long bytes)
{
	(void)list;
	(void)bytes;
	read_on(fd, "short", SHORT);
}

static void short_first(int fd, int parent, const char *name)
{
	(void)parent;
	(void)name;
	say("short", entries(fd, buf, SHORT), buf);
}

static void too_short_first(int fd, int parent, const char *name)
{
	(void)parent;
	(void)name;
	say("too short", entries(fd, buf, 8), buf);
}

static void old_call(int fd, const struct entry *list, long bytes)
{
	(void)list;
	(void)bytes;
	memset(buf, 0, sizeof(buf));
	say("old call", syscall(SYS_getdents, fd, buf, LIST), buf);
}

static void old_call_first(int fd, int parent, const char *name)
{
	(void)parent;
	(void)name;
	memset(buf, 0, sizeof(buf));
	say("old call", syscall(SYS_getdents, fd, buf, SHORT), buf);
}

static void bad(int fd, int parent, const char *name)
{
	(void)parent;
	(void)name;
	say("nowhere", entries(fd, NULL, LIST), NULL);
	say("read-only", entries(fd, (void *)"constant", LIST), NULL);
}

static void torn(int fd, int parent, const char *name)
{
	long page = sysconf(_SC_PAGESIZE);
	char *at = mmap(NULL, LIST + (size_t)page, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)parent;
	(void)name;
	check(at == MAP_FAILED, "mmap");
	check(munmap(at + page, LIST), "munmap");
	say("torn", entries(fd, at + page - 160, LIST), at + page - 160);
	say("torn again", entries(fd, at + page - 160, LIST), at + page - 160);
	munmap(at, (size_t)page);
}

// --- other descriptors -----------------------------------------------------

static void on_another(int other, int fd, const char *what)
{
	check(other < 0, what);
	read_on(other, what, LIST);
	say("back", lseek(other, 0, SEEK_SET), NULL);
	read_on(fd, "both", LIST);
	close(other);
}

static void dup_it(int fd, const struct entry *list, long bytes)
{
	(void)list;
	(void)bytes;
	on_another(dup(fd), fd, "dup");
	read_on(fd, "alone", LIST);
}

static void dup_it_first(int fd, int parent, const char *name)
{
	int other = dup(fd);

	(void)parent;
	(void)name;
	say("by the other", entries(other, buf, LIST), buf);
	say("by the one", entries(fd, buf, LIST), buf);
	lseek(fd, 0, SEEK_SET);
	close(other);
}

static void dup2_it(int fd, const struct entry *list, long bytes)
{
	(void)list;
	(void)bytes;
	on_another(dup2(fd, 500), fd, "dup2");
}

static void dup3_over(int fd, const struct entry *list, long bytes)
{
	int first = dup(fd);

	(void)list;
	(void)bytes;
	// The number is another directory's now, and then the same one's again.
	check(dup3(open("/", O_RDONLY | O_DIRECTORY), fd, O_CLOEXEC) < 0, "dup3");
	read_on(first, "kept", LIST);
	check(dup2(first, fd) < 0, "dup2");
	close(first);
	read_on(fd, "back again", LIST);
}

static void fcntl_it(int fd, const struct entry *list, long bytes)
{
	(void)list;
	(void)bytes;
	on_another(fcntl(fd, F_DUPFD_CLOEXEC, 200), fd, "fcntl");
}

static void dup_high(int fd, const struct entry *list, long bytes)
{
	(void)list;
	(void)bytes;
	on_another(dup2(fd, HIGH), fd, "high");
	on_another(fcntl(fd, F_DUPFD, HIGH), fd, "high");
}

// The end is known; somebody goes back by a descriptor that is not followed.
static void dup_high_first(int fd, int parent, const char *name)
{
	int other = dup2(fd, HIGH);

	(void)parent;
	(void)name;
	check(other < 0, "dup2");
	say("by one", entries(fd, buf, LIST), buf);
	say("back", lseek(other, 0, SEEK_SET), NULL);
	read_on(fd, "then", LIST);
	say("back", lseek(other, 0, SEEK_SET), NULL);
	close(other);
}

static void many_descriptors(const char *tree)
{
	struct rlimit limit;

	(void)tree;
	check(getrlimit(RLIMIT_NOFILE, &limit), "getrlimit");
	if (limit.rlim_cur < 2 * HIGH)
		limit.rlim_cur = 2 * HIGH;
	check(setrlimit(RLIMIT_NOFILE, &limit), "setrlimit");
}

static void reopen(int fd, const struct entry *list, long bytes)
{
	int parent = openat(fd, "..", O_RDONLY | O_DIRECTORY);
	int other = openat(fd, ".", O_RDONLY | O_DIRECTORY);

	(void)list;
	(void)bytes;
	check(parent < 0 || other < 0, "openat");
	read_on(other, "itself", LIST);
	say("parent", entries(parent, buf, LIST), buf);
	close(parent);
	close(other);
}

static void close_and_open(int fd, int parent, const char *name)
{
	int other = openat(parent, name, O_RDONLY | O_DIRECTORY);

	check(other < 0, name);
	say("first", entries(fd, buf, LIST), buf);
	check(dup2(other, fd) < 0, "dup2");
	close(other);
}

static int held[4096], n_held;

static void hold(int fd, int parent, const char *name)
{
	int other = openat(parent, name, O_RDONLY | O_DIRECTORY);

	(void)fd;
	check(other < 0, name);
	say("held", entries(other, buf, LIST), buf);
	held[n_held++] = other;
}

static void read_held(const char *tree)
{
	(void)tree;
	for (int i = 0; i < n_held; i++) {
		say("position", lseek(held[i], 0, SEEK_CUR) & 0xffff, NULL);
		read_on(held[i], "held", LIST);
		close(held[i]);
	}
}

static void keep(int fd)
{
	held[n_held++] = fd;
}

// --- other processes -------------------------------------------------------

static int wait_for(pid_t pid)
{
	int status;

	check(waitpid(pid, &status, 0) != pid, "waitpid");
	return status;
}

static void fork_it(int fd, const struct entry *list, long bytes)
{
	pid_t pid;

	(void)list;
	(void)bytes;
	fflush(stdout);
	pid = fork();
	check(pid < 0, "fork");
	if (!pid) {
		read_on(fd, "child", LIST);
		lseek(fd, 0, SEEK_SET);
		fflush(stdout);
		_exit(0);
	}
	say("status", wait_for(pid), NULL);
	read_on(fd, "after the child", LIST);
}

static void vfork_it(int fd, const struct entry *list, long bytes)
{
	char number[16];
	pid_t pid;

	(void)list;
	(void)bytes;
	snprintf(number, sizeof(number), "%d", fd);
	fcntl(fd, F_SETFD, 0);
	fflush(stdout);
	pid = vfork();
	if (!pid) {
		execl("/proc/self/exe", "ahead", "rest", number, NULL);
		_exit(1);
	}
	check(pid < 0, "vfork");
	say("status", wait_for(pid), NULL);
}

static void spawn_it(int fd, const struct entry *list, long bytes)
{
	char number[16], *words[] = { "ahead", "rest", number, NULL };
	pid_t pid;

	(void)list;
	(void)bytes;
	snprintf(number, sizeof(number), "%d", fd);
	fcntl(fd, F_SETFD, 0);
	fflush(stdout);
	check(posix_spawn(&pid, "/proc/self/exe", NULL, NULL, words, environ), "posix_spawn");
	say("status", wait_for(pid), NULL);
}

static void exec_it(int fd, const struct entry *list, long bytes)
{
	char number[16];

	(void)list;
	(void)bytes;
	execl("/nowhere", "nowhere", NULL);
	if (n_directories < ONCE)
		return;
	snprintf(number, sizeof(number), "%d", fd);
	fcntl(fd, F_SETFD, 0);
	fflush(stdout);
	execl("/proc/self/exe", "ahead", "rest", number, NULL);
	check(true, "exec");
}

static int to_reader = -1;

static int receive(int from)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} control;
	char byte;
	struct iovec iov = { &byte, 1 };
	struct msghdr m = { .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = &control,
			    .msg_controllen = sizeof(control) };

	if (recvmsg(from, &m, 0) <= 0)
		_exit(0);
	return *(int *)CMSG_DATA(&control.head);
}

// Whatever it is passed, it reads one time and tells how much that was.
static void start_reader(const char *tree)
{
	int pair[2];
	long n;

	(void)tree;
	check(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), "socketpair");
	if (!fork()) {
		close(pair[0]);
		for (;;) {
			int fd = receive(pair[1]);

			n = entries(fd, buf, LIST);
			lseek(fd, 0, SEEK_SET);
			close(fd);
			check(write(pair[1], &n, sizeof(n)) != sizeof(n), "write");
		}
	}
	close(pair[1]);
	to_reader = pair[0];
}

static void pass_it(int fd, const struct entry *list, long bytes)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} control = { .head = { CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS } };
	char byte = 0;
	struct iovec iov = { &byte, 1 };
	struct msghdr m = { .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = &control,
			    .msg_controllen = sizeof(control) };
	long n;

	(void)list;
	(void)bytes;
	*(int *)CMSG_DATA(&control.head) = fd;
	check(sendmsg(to_reader, &m, 0) != 1, "sendmsg");
	check(read(to_reader, &n, sizeof(n)) != sizeof(n), "read");
	say("the reader", n, NULL);
	read_on(fd, "after the reader", LIST);
}

// A child that goes on with the walk by descriptors of its parent, where nobody knows them by number.
static void walk_in_child(int fd, const char *name, const char *after)
{
	pid_t pid;

	(void)fd;
	(void)name;
	(void)after;
	if (n_directories < ONCE || changed++)
		return;
	fflush(stdout);
	pid = fork();
	check(pid < 0, "fork");
	if (pid)
		exit(WEXITSTATUS(wait_for(pid)));
}

// --- signals ---------------------------------------------------------------

static volatile sig_atomic_t signals;
static sigjmp_buf checkpoint;
static bool jumping;
static pid_t storm;

static void on_signal(int number)
{
	(void)number;
	signals++;
	if (jumping)
		siglongjmp(checkpoint, 1);
}

static void start_storm(int number)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	pid_t parent = getpid();

	check(sigaction(number, &action, NULL), "sigaction");
	storm = fork();
	check(storm < 0, "fork");
	if (storm)
		return;
	for (int i = 0; i < STORM_MS * 4; i++) {
		usleep(250);
		if (kill(parent, number))
			break;
	}
	_exit(0);
}

static void signal_storm(const char *tree)
{
	(void)tree;
	start_storm(SIGUSR1);
}

static void timer_storm(const char *tree)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	struct itimerval timer = { { 0, 300 }, { 0, 300 } };

	(void)tree;
	check(sigaction(SIGALRM, &action, NULL), "sigaction");
	check(setitimer(ITIMER_REAL, &timer, NULL), "setitimer");
}

static void walk_quietly(int fd, int depth)
{
	struct stat st;
	const struct entry *e;
	char list[LIST];
	long n;

	while ((n = entries(fd, list, LIST)) > 0)
		for (long at = 0; at < n; at += e->reclen) {
			e = (const void *)(list + at);
			if (e->name[0] == '.' || fstatat(fd, e->name, &st, AT_SYMLINK_NOFOLLOW))
				continue;
			if (S_ISDIR(st.st_mode) && depth < 16) {
				int child = openat(fd, e->name, O_RDONLY | O_DIRECTORY);

				if (child >= 0)
					walk_quietly(child, depth + 1);
				close(child);
			}
		}
}

// Leaves calls, and whatever is behind them, by longjmp; then walks in peace.
static void jumping_storm(const char *tree)
{
	static volatile int lowest;
	volatile bool begun = false;

	lowest = dup(0);
	close(lowest);
	jumping = true;
	sigsetjmp(checkpoint, 1);
	if (!begun) {
		begun = true;
		start_storm(SIGUSR1);
	}
	while (waitpid(storm, NULL, WNOHANG) == 0) {
		int fd = open(tree, O_RDONLY | O_DIRECTORY);

		if (fd > 300)
			close_range((unsigned)lowest, 600, 0);
		walk_quietly(fd, 0);
		close(fd);
	}
	jumping = false;
	close_range((unsigned)lowest, 1000, 0);
}

static void stop_storm(const char *tree)
{
	(void)tree;
	if (storm)
		kill(storm, SIGKILL);
}

// Walks from within a handler.
static const char *whole_tree;

static void walk_here(int number)
{
	int fd = open(whole_tree, O_RDONLY | O_DIRECTORY);

	(void)number;
	signals++;
	walk_quietly(fd, 0);
	close(fd);
}

static void walking_storm(const char *tree)
{
	struct sigaction action = { .sa_handler = walk_here, .sa_flags = SA_RESTART };
	struct itimerval timer = { { 0, 20000 }, { 0, 3000 } };

	whole_tree = tree;
	check(sigaction(SIGALRM, &action, NULL), "sigaction");
	check(setitimer(ITIMER_REAL, &timer, NULL), "setitimer");
}

// --- the process -----------------------------------------------------------

static int tasks(void)
{
	struct dirent *e;
	int n = 0;
	DIR *dir = opendir("/proc/self/task");

	check(!dir, "/proc/self/task");
	while ((e = readdir(dir)))
		n += e->d_name[0] != '.';
	closedir(dir);
	return n;
}

static void *threads_work(void *at)
{
	int fd = *(int *)at;

	say("thread", entries(fd, buf, LIST), buf);
	say("back", lseek(fd, 0, SEEK_SET), NULL);
	read_on(fd, "thread", LIST);
	return NULL;
}

static void thread_it(int fd, const struct entry *list, long bytes)
{
	pthread_t thread;

	(void)list;
	(void)bytes;
	check(pthread_create(&thread, NULL, threads_work, &fd), "pthread_create");
	check(pthread_join(thread, NULL), "pthread_join");
}

enum change {
	NEW_USERS,
	NEW_MOUNTS,
	JOIN,
	NOBODY,
	NO_NEW,
	FILTER,
	DUMPABLE,
	ROOT,
	GO_DOWN,
	UNMOUNT,
	FEWER,
};

static long change(enum change how)
{
	struct sock_filter all = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog filter = { 1, &all };
	int fd;
	long ret;

	switch (how) {
	case NEW_USERS:
		return unshare(CLONE_NEWUSER);
	case NEW_MOUNTS:
		return unshare(CLONE_NEWNS);
	case JOIN:
		fd = open("/proc/self/ns/mnt", O_RDONLY);
		ret = setns(fd, CLONE_NEWNS);
		close(fd);
		return ret;
	case NOBODY:
		return syscall(SYS_setuid, 65534);
	case NO_NEW:
		return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	case FILTER:
		prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
		return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter);
	case DUMPABLE:
		return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	case ROOT:
		return chroot("/");
	case GO_DOWN:
		return chdir("/");
	case UNMOUNT:
		return umount2("/nowhere", 0);
	case FEWER:
		return syscall(SYS_sched_setaffinity, 0, 8, &(unsigned long){ 1 });
	}
	return -1;
}

static void change_once(enum change how)
{
	if (n_directories < ONCE || changed++)
		return;
	say("changed", change(how), NULL);
	say("tasks", tasks(), NULL);
}

#define CHANGE(function, how)                                                                      \
	static void function(int fd, const struct entry *list, long bytes)                         \
	{                                                                                          \
		(void)fd;                                                                          \
		(void)list;                                                                        \
		(void)bytes;                                                                       \
		change_once(how);                                                                  \
	}

CHANGE(new_users, NEW_USERS)
CHANGE(new_mounts, NEW_MOUNTS)
CHANGE(join, JOIN)
CHANGE(become_nobody, NOBODY)
CHANGE(no_new, NO_NEW)
CHANGE(filter, FILTER)
CHANGE(dumpable, DUMPABLE)
CHANGE(root, ROOT)
CHANGE(go_down, GO_DOWN)
CHANGE(unmount_nothing, UNMOUNT)
CHANGE(fewer, FEWER)

static void end_thread(int fd, const struct entry *list, long bytes)
{
	(void)fd;
	(void)list;
	(void)bytes;
	if (n_directories < ONCE || changed++)
		return;
	fflush(stdout);
	syscall(SYS_exit, 7);
}

static void end_by_signal(int fd, const struct entry *list, long bytes)
{
	(void)fd;
	(void)list;
	(void)bytes;
	if (n_directories < ONCE || changed++)
		return;
	fflush(stdout);
	abort();
}

static void profile_timer(const char *tree)
{
	struct itimerval timer = { { 1000, 0 }, { 1000, 0 } };

	(void)tree;
	check(setitimer(ITIMER_PROF, &timer, NULL), "setitimer");
}

static void unmount(const char *tree)
{
	say("umount", umount2(tree, 0), NULL);
}

static void half(int fd, const struct entry *list, long bytes)
{
	(void)fd;
	(void)list;
	(void)bytes;
	if (n_directories < ONCE)
		return;
	compute(20000);
	fflush(stdout);
	_exit(0);
}

const struct kind kinds[] = {
	{ .name = "none" },
	{ "tell", .listed = tell },
	{ "again", .listed = again },
	{ "middle", .listed = from_the_middle },
	{ "beyond", .listed = beyond },
	{ "end", .ended = again_at_the_end },
	{ "short", .listed = short_afterwards },
	{ "short-first", .opened = short_first },
	{ "too-short", .opened = too_short_first },
	{ "old", .listed = old_call },
	{ "old-first", .opened = old_call_first },
	{ "bad", .opened = bad },
	{ "torn", .opened = torn },
	{ "dup", .listed = dup_it },
	{ "dup-first", .opened = dup_it_first },
	{ "dup2", .listed = dup2_it },
	{ "dup3", .listed = dup3_over },
	{ "fcntl", .listed = fcntl_it },
	{ "high", .begin = many_descriptors, .listed = dup_high },
	{ "high-first", .begin = many_descriptors, .opened = dup_high_first },
	{ "reopen", .listed = reopen },
	{ "reopen-first", .opened = close_and_open },
	{ "many", .begin = many_descriptors, .opened = hold, .finish = read_held },
	{ "keep", .begin = many_descriptors, .ended = keep, .finish = read_held, .keeps = true },
	{ "fork", .listed = fork_it, .every = 16 },
	{ "vfork", .listed = vfork_it, .every = 16 },
	{ "spawn", .listed = spawn_it, .every = 16 },
	{ "exec", .listed = exec_it, .every = 16 },
	{ "pass", .begin = start_reader, .listed = pass_it },
	{ "child-walks", .next = walk_in_child },
	{ "storm", .begin = signal_storm, .finish = stop_storm },
	{ "timer", .begin = timer_storm },
	{ "jumps", .begin = jumping_storm, .finish = stop_storm },
	{ "handler-walks", .begin = walking_storm },
	{ "thread", .listed = thread_it, .every = 16 },
	{ "new-users", .listed = new_users },
	{ "new-mounts", .listed = new_mounts },
	{ "setns", .listed = join },
	{ "setuid", .listed = become_nobody },
	{ "no-new-privs", .listed = no_new },
	{ "seccomp", .listed = filter },
	{ "dumpable", .listed = dumpable },
	{ "chroot", .listed = root },
	{ "chdir", .listed = go_down },
	{ "umount2", .listed = unmount_nothing },
	{ "affinity", .listed = fewer },
	{ "thread-exit", .listed = end_thread },
	{ "abort", .listed = end_by_signal },
	{ "profiled", .begin = profile_timer },
	{ "unmount", .finish = unmount },
	{ "half", .listed = half },
	{ .name = NULL },
};
