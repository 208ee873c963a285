// SPDX-License-Identifier: MIT
/*
 * Opens file after file of a folder, reads each to its end and closes it, as grep -r and cat do, and does
 * something else with the descriptor in between: slurps FOLDER KIND [SEED]. KIND is one of
 * `kinds` for every file, "none", "random": of all, at random places, or "sparse": most files are
 * passed over. All that a program can see is printed.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define FILES 512
#define STEPS 12 /* reads of a file at most */
#define PLAIN 8 /* files at first, with nothing in between */

static const char *folder;
static int dir;
static char *names[FILES];
static int n_names;
static const char *now; /* name of the file at hand */
static unsigned seed;
static volatile int handled;

static unsigned draw(unsigned below)
{
	seed = seed * 1103515245 + 12345;
	return (seed >> 16) % below;
}

static unsigned sum(const void *at, long n)
{
	unsigned s = 1;

	for (long i = 0; i < n; i++)
		s = s * 31 + ((const unsigned char *)at)[i];
	return s;
}

static void say(const char *what, long ret)
{
	printf(" %s=%ld", what, ret < 0 ? (long)-errno : ret);
}

static long get(int fd, unsigned most)
{
	static unsigned char buffer[1 << 17];
	long n = read(fd, buffer, most);

	say("read", n);
	if (n > 0)
		printf(":%x", sum(buffer, n));
	return n;
}

static void where(int fd)
{
	say("at", lseek(fd, 0, SEEK_CUR));
}

// --- what comes in between -----------------------------------------------------------

static void k_none(int fd)
{
	(void)fd;
}

static void k_dup(int fd)
{
	int other = dup(fd);

	say("dup", other);
	get(other, 10);
	where(fd);
	close(other);
}

static void k_dup2(int fd)
{
	say("dup2", dup2(fd, 50));
	get(50, 10);
	say("close", close(50));
}

static void k_over(int fd)
{
	int null = open("/dev/null", O_RDONLY);

	say("null", null);
	say("over", dup2(null, fd));
	close(null);
}

static void k_fork(int fd)
{
	int status;
	pid_t child;

	fflush(stdout);
	child = fork();
	if (!child) {
		get(fd, 20);
		fflush(stdout);
		_exit(7);
	}
	waitpid(child, &status, 0);
	say("child", WEXITSTATUS(status));
	where(fd);
}

static void k_vfork(int fd)
{
	int status;
	pid_t child = vfork();

	if (!child)
		_exit(lseek(fd, 0, SEEK_CUR) >= 0 ? 3 : 4);
	waitpid(child, &status, 0);
	say("child", WEXITSTATUS(status));
}

static void k_exec(int fd)
{
	char command[64];

	fflush(stdout);
	snprintf(command, sizeof(command), "head -c 30 <&%d | cksum", fd);
	say("system", system(command));
	where(fd);
}

static void k_mmap(int fd)
{
	struct stat st;
	void *at;

	fstat(fd, &st);
	at = mmap(NULL, (size_t)st.st_size + 1, PROT_READ, MAP_PRIVATE, fd, 0);
	say("mmap", at == MAP_FAILED ? -1 : 0);
	if (at == MAP_FAILED)
		return;
	printf(":%x", sum(at, st.st_size));
	munmap(at, (size_t)st.st_size + 1);
}

static void k_back(int fd)
{
	say("back", lseek(fd, 0, SEEK_SET));
	get(fd, 100);
}

static void k_end(int fd)
{
	say("end", lseek(fd, -5, SEEK_END));
	say("bad", lseek(fd, -1, SEEK_SET));
	say("data", lseek(fd, 0, SEEK_DATA));
}

static void k_pread(int fd)
{
	char b[64];
	long n = pread(fd, b, sizeof(b), 3);

	say("pread", n);
	if (n > 0)
		printf(":%x", sum(b, n));
	where(fd);
}

static void k_readv(int fd)
{
	char a[7], b[9];
	struct iovec v[] = { { a, sizeof(a) }, { b, sizeof(b) } };

	say("readv", readv(fd, v, 2));
	say("preadv", preadv(fd, v, 2, 1));
}

static void k_stat(int fd)
{
	struct statx sx;
	struct stat st;

	for (int i = 0; i < 3; i++) {
		say("fstat", fstat(fd, &st));
		printf(":%ld:%o:%ld:%d", (long)st.st_size, st.st_mode, (long)st.st_nlink,
		       (int)st.st_uid);
	}
	say("statx", statx(fd, "", AT_EMPTY_PATH, STATX_SIZE, &sx));
	say("stat", syscall(SYS_fstat, fd, &st));
	say("bad", syscall(SYS_fstat, fd, (void *)8));
}

static void k_twice(int fd)
{
	say("close", close(fd));
	say("again", close(fd));
	say("read", read(fd, &fd, 1));
}

static void k_another(int fd)
{
	int other = openat(dir, names[0], O_RDONLY), third = open("/", O_RDONLY | O_DIRECTORY);

	say("another", other);
	say("third", third);
	get(other, 11);
	get(fd, 11);
	close(third);
	close(other);
}

static void k_create(int fd)
{
	int other = openat(dir, "new", O_RDWR | O_CREAT | O_TRUNC, 0600);

	say("new", other);
	say("write", write(other, "abc", 3));
	get(fd, 5);
	close(other);
	say("unlink", unlinkat(dir, "new", 0));
}

static void on_signal(int signal)
{
	char b[32];
	int fd = openat(dir, names[1], O_RDONLY), keep = errno;

	handled = 100 * signal + fd;
	handled += (int)read(fd, b, sizeof(b));
	close(fd);
	errno = keep;
}

static void k_signal(int fd)
{
	signal(SIGUSR1, on_signal);
	raise(SIGUSR1);
	say("handled", handled);
	get(fd, 13);
}

static int held;

static void on_read(int signal)
{
	char b[16];

	(void)signal;
	handled = (int)read(held, b, 9);
}

static void k_signal_reads(int fd)
{
	held = fd;
	signal(SIGUSR2, on_read);
	raise(SIGUSR2);
	say("handled", handled);
	where(fd);
}

static void k_range(int fd)
{
	say("range", close_range((unsigned)fd, (unsigned)fd + 5, 0));
	say("read", read(fd, &fd, 1));
}

static void k_list(int fd)
{
	DIR *d = opendir("/proc/self/fd");
	char target[4096];
	struct dirent *e;
	ssize_t n;

	(void)fd;
	while ((e = readdir(d))) {
		n = readlinkat(dirfd(d), e->d_name, target, sizeof(target) - 1);
		if (n < 0)
			continue;
		target[n] = 0;
		if (strncmp(target, "pipe", 4) && strncmp(target, "/proc", 5))
			printf(" %s:%s", e->d_name,
			       strrchr(target, '/') ? strrchr(target, '/') : "?");
	}
	closedir(d);
}

static void k_fcntl(int fd)
{
	say("getfl", fcntl(fd, F_GETFL));
	say("getfd", fcntl(fd, F_GETFD));
	say("setfd", fcntl(fd, F_SETFD, FD_CLOEXEC));
	say("getfd", fcntl(fd, F_GETFD));
}

static void k_fcntl_dup(int fd)
{
	int other = fcntl(fd, F_DUPFD, 20), next = fcntl(fd, F_DUPFD_CLOEXEC, 0);

	say("dupfd", other);
	say("dupfd", next);
	get(other, 9);
	close(next);
	close(other);
}

static void k_ioctl(int fd)
{
	int n = -1;

	say("fionread", ioctl(fd, FIONREAD, &n));
	say("n", n);
	say("isatty", isatty(fd));
}

static void k_poll(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	fd_set set;
	struct timeval none = { 0, 0 };

	FD_ZERO(&set);
	FD_SET(fd, &set);
	say("poll", poll(&p, 1, 0));
	say("events", p.revents);
	say("select", select(fd + 1, &set, NULL, NULL, &none));
}

static void k_epoll(int fd)
{
	struct epoll_event e = { .events = EPOLLIN };
	int other = epoll_create1(0);

	say("epoll", other);
	say("ctl", epoll_ctl(other, EPOLL_CTL_ADD, fd, &e));
	close(other);
}

static void k_send(int fd)
{
	int pair[2];
	char b[64];

	say("pair", socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	say("first", pair[0]);
	say("sendfile", sendfile(pair[0], fd, NULL, 20));
	say("recv", recv(pair[1], b, sizeof(b), MSG_DONTWAIT));
	where(fd);
	close(pair[0]);
	close(pair[1]);
}

static void k_copy(int fd)
{
	int out = openat(dir, "copy", O_RDWR | O_CREAT | O_TRUNC, 0600);

	say("copy", copy_file_range(fd, NULL, out, NULL, 40, 0));
	where(fd);
	close(out);
	unlinkat(dir, "copy", 0);
}

// Numbers of files that stay open all the time: the target at hand, and what it may be.
enum { TARGET = 100, ELSEWHERE, HERE };

static void open_targets(void)
{
	int elsewhere = memfd_create("elsewhere", 0);
	int here = openat(dir, ".here", O_RDWR | O_CREAT, 0600);

	unlinkat(dir, ".here", 0);
	dup2(elsewhere, ELSEWHERE);
	dup2(elsewhere, TARGET);
	dup2(here, HERE);
	close(elsewhere);
	close(here);
}

static void k_across(int fd)
{
	say("across", copy_file_range(fd, NULL, TARGET, NULL, 40, 0));
	where(fd);
	say("nothing", copy_file_range(fd, NULL, TARGET, NULL, 0, 0));
}

// And what makes the kernel say something else, of this file or of the next ones.
static void k_across_odd(int fd)
{
	loff_t at = 1;

	k_across(fd);
	switch (draw(8)) {
	case 0:
		say("flags", copy_file_range(fd, NULL, TARGET, NULL, 40, 1));
		break;
	case 1:
		say("from", copy_file_range(fd, (loff_t *)8, TARGET, NULL, 40, 0));
		break;
	case 2:
		say("to", copy_file_range(fd, NULL, TARGET, (loff_t *)8, 40, 0));
		break;
	case 3:
		say("offset", copy_file_range(fd, &at, TARGET, NULL, 40, 0));
		break;
	case 4:
		say("here", copy_file_range(fd, NULL, HERE, NULL, 40, 0));
		break;
	case 5:
		fcntl(TARGET, F_SETFL, fcntl(TARGET, F_GETFL) ^ O_APPEND);
		break;
	case 6:
		say("dup2", dup2(draw(2) ? HERE : ELSEWHERE, TARGET));
		break;
	case 7:
		say("itself", copy_file_range(fd, NULL, fd, NULL, 40, 0));
		break;
	}
	where(fd);
}

static void k_pass(int fd)
{
	char control[CMSG_SPACE(sizeof(int))] = { 0 }, b = 'x';
	struct iovec v = { &b, 1 };
	struct msghdr m = { .msg_iov = &v,
			    .msg_iovlen = 1,
			    .msg_control = control,
			    .msg_controllen = sizeof(control) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	int pair[2], got;

	socketpair(AF_UNIX, SOCK_DGRAM, 0, pair);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	say("send", sendmsg(pair[0], &m, 0));
	m.msg_controllen = sizeof(control);
	say("got", recvmsg(pair[1], &m, 0));
	memcpy(&got, CMSG_DATA(c), sizeof(got));
	say("number", got);
	get(got, 12);
	where(fd);
	close(got);
	close(pair[0]);
	close(pair[1]);
}

static void k_refused(int fd)
{
	say("write", write(fd, "x", 1));
	say("ftruncate", ftruncate(fd, 0));
	say("fsync", fsync(fd));
	say("getdents", syscall(SYS_getdents64, fd, names, 8));
}

static void k_bad(int fd)
{
	say("bad", syscall(SYS_read, fd, 8, 100));
	say("none", syscall(SYS_read, fd, NULL, 0));
	say("huge", syscall(SYS_read, fd, 1ul << 63, 1));
	where(fd);
}

static void k_edge(int fd)
{
	char *at = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	long n;

	munmap(at + 4096, 4096);
	n = read(fd, at + 4090, 6);
	say("edge", n);
	n = read(fd, at + 4080, 4000);
	say("over", n < 0 ? n : 0);
	munmap(at, 4096);
}

static void k_pipe(int fd)
{
	int p[2];

	say("pipe", pipe(p));
	say("first", p[0]);
	say("second", p[1]);
	close(p[0]);
	get(fd, 3);
	close(p[1]);
}

static void k_lock(int fd)
{
	say("flock", flock(fd, LOCK_SH | LOCK_NB));
	say("unlock", flock(fd, LOCK_UN));
}

static void k_posix_lock(int fd)
{
	struct flock l = { .l_type = F_RDLCK, .l_whence = SEEK_SET };

	say("setlk", fcntl(fd, F_SETLK, &l));
}

static void k_chmod(int fd)
{
	struct stat st;

	say("fchmod", fchmod(fd, 0640));
	fstat(fd, &st);
	printf(":%o", st.st_mode);
}

static void k_unlink(int fd)
{
	struct stat st;

	say("unlink", unlinkat(dir, now, 0));
	get(fd, 17);
	fstat(fd, &st);
	say("links", (long)st.st_nlink);
}

static void k_replace(int fd)
{
	char path[4096];
	int other;

	snprintf(path, sizeof(path), "%s/fresh", folder);
	other = open(path, O_WRONLY | O_CREAT, 0600);
	say("write", write(other, "other", 5));
	close(other);
	say("rename", renameat(AT_FDCWD, path, dir, now));
	get(fd, 1000);
}

static void k_append(int fd)
{
	int other = openat(dir, now, O_WRONLY | O_APPEND);

	say("write", write(other, "more", 4));
	close(other);
	get(fd, 1 << 17);
}

static void k_dirs(int fd)
{
	(void)fd;
	say("chdir", chdir("/"));
	say("reach", fcntl(dir, F_GETFD));
}

static void *thread(void *fd)
{
	get(*(int *)fd, 15);
	return NULL;
}

static void k_thread(int fd)
{
	pthread_t t;

	pthread_create(&t, NULL, thread, &fd);
	pthread_join(t, NULL);
}

static void k_limit(int fd)
{
	struct rlimit old, low;

	getrlimit(RLIMIT_NOFILE, &old);
	low = old;
	low.rlim_cur = (rlim_t)fd;
	setrlimit(RLIMIT_NOFILE, &low);
	say("open", openat(dir, names[2], O_RDONLY));
	setrlimit(RLIMIT_NOFILE, &old);
}

static void k_path(int fd)
{
	char path[64];
	struct stat st = { 0 };

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	say("stat", stat(path, &st));
	say("size", (long)st.st_size);
	say("access", access(path, R_OK));
}

static void k_closes(int fd)
{
	int low = dup(0);

	close(0);
	say("open", openat(dir, names[3], O_RDONLY));
	close(0);
	dup2(low, 0);
	close(low);
	get(fd, 2);
}

// Another process, which is told and tells by memory alone.
static struct other {
	volatile int asked, done;
	char name[256];
} *other;

static void replace_it(void)
{
	char old[512], new[512];
	int fd;

	snprintf(old, sizeof(old), "%s/%s", folder, other->name);
	snprintf(new, sizeof(new), "%s/.new", folder);
	fd = open(new, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	if (write(fd, "something else", 14) != 14 || rename(new, old))
		_exit(1);
	close(fd);
	if (other->asked == 2)
		unlink(old);
}

static void start_other(void)
{
	pid_t parent = getpid();

	other = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (fork())
		return;
	while (getppid() == parent) {
		if (other->asked) {
			replace_it();
			other->asked = 0;
			other->done = 1;
		}
		usleep(100);
	}
	_exit(0);
}

static void let_other(int fd, int ask)
{
	int copy;

	snprintf(other->name, sizeof(other->name), "%s", now);
	other->done = 0;
	other->asked = ask;
	while (!other->done)
		;
	copy = dup(fd);
	say("at", lseek(copy, 0, SEEK_CUR));
	say("back", lseek(fd, 3, SEEK_SET));
	get(copy, 65536);
	close(copy);
}

static void k_swap(int fd)
{
	let_other(fd, 1);
}

static void k_gone(int fd)
{
	let_other(fd, 2);
}

static const struct kind {
	const char *name;
	void (*run)(int fd);
	int ends; /* what comes after is another kind of program, or the descriptor is gone */
} kinds[] = {
	{ "none", k_none, 0 },
	{ "dup", k_dup, 0 },
	{ "dup2", k_dup2, 0 },
	{ "over", k_over, 0 },
	{ "fork", k_fork, 0 },
	{ "exec", k_exec, 0 },
	{ "mmap", k_mmap, 0 },
	{ "back", k_back, 0 },
	{ "end", k_end, 0 },
	{ "pread", k_pread, 0 },
	{ "readv", k_readv, 0 },
	{ "stat", k_stat, 0 },
	{ "twice", k_twice, 1 },
	{ "another", k_another, 0 },
	{ "create", k_create, 0 },
	{ "signal", k_signal, 0 },
	{ "signal-reads", k_signal_reads, 0 },
	{ "range", k_range, 1 },
	{ "list", k_list, 0 },
	{ "fcntl", k_fcntl, 0 },
	{ "fcntl-dup", k_fcntl_dup, 0 },
	{ "ioctl", k_ioctl, 0 },
	{ "poll", k_poll, 0 },
	{ "epoll", k_epoll, 0 },
	{ "send", k_send, 0 },
	{ "copy", k_copy, 0 },
	{ "pass", k_pass, 0 },
	{ "refused", k_refused, 0 },
	{ "bad", k_bad, 0 },
	{ "edge", k_edge, 0 },
	{ "pipe", k_pipe, 0 },
	{ "lock", k_lock, 0 },
	{ "chmod", k_chmod, 0 },
	{ "unlink", k_unlink, 0 },
	{ "replace", k_replace, 0 },
	{ "append", k_append, 0 },
	{ "dirs", k_dirs, 0 },
	{ "limit", k_limit, 0 },
	{ "path", k_path, 0 },
	{ "closes", k_closes, 0 },
	{ "across", k_across, 0 },
	{ "across-odd", k_across_odd, 0 },
	/* never drawn */
	{ "swap", k_swap, 2 },
	{ "gone", k_gone, 2 },
	{ "posix-lock", k_posix_lock, 2 },
	{ "vfork", k_vfork, 2 },
	{ "thread", k_thread, 2 },
};
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

static const struct kind *draw_kind(void)
{
	const struct kind *kind;

	do
		kind = &kinds[draw(KINDS)];
	while (kind->ends == 2);
	printf(" [%s]", kind->name);
	return kind;
}

static void slurp(const char *name, const struct kind *kind, int random)
{
	int fd = openat(dir, name, O_RDONLY | (random && draw(2) ? O_CLOEXEC : 0));
	struct stat st;
	long n;

	now = name;
	printf("%s", name);
	say("fd", fd);
	if (fd < 0)
		goto out;
	if (draw(4)) {
		fstat(fd, &st);
		printf(" %ld", (long)st.st_size);
	}
	for (int step = 0; step < STEPS; step++) {
		n = get(fd, random ? 1 + draw(3000) : 65536);
		if (random)
			kind = draw(3) ? kinds : draw_kind();
		else if (step)
			kind = kinds;
		kind->run(fd);
		if (kind->ends == 1)
			goto out;
		if (n <= 0)
			break;
	}
	say("close", close(fd));
out:
	printf("\n");
}

int main(int argc, char **argv)
{
	const struct kind *kind = kinds;
	int random = argc > 2 && !strcmp(argv[2], "random");
	int sparse = argc > 2 && !strcmp(argv[2], "sparse");
	struct dirent *e;
	DIR *d;

	setvbuf(stdout, NULL, _IOFBF, 1 << 16);
	seed = argc > 3 ? (unsigned)atoi(argv[3]) : 1;
	for (unsigned i = 0; argc > 2 && i < KINDS; i++)
		if (!strcmp(kinds[i].name, argv[2]))
			kind = &kinds[i];
	folder = argv[1];
	if (kind->run == k_swap || kind->run == k_gone)
		start_other();
	d = opendir(folder);
	dir = dirfd(d);
	open_targets();
	while ((e = readdir(d)) && n_names < FILES)
		if (e->d_name[0] != '.')
			names[n_names++] = strdup(e->d_name);
	for (int i = 0; i < n_names; i++) {
		if (sparse && i >= PLAIN && i % 10)
			continue;
		slurp(names[i], i < PLAIN ? kinds : kind, random && i >= PLAIN);
	}
	closedir(d);
	return 0;
}
