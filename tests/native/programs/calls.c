// SPDX-License-Identifier: MIT
/*
 * Programs that are hard to interpose, one per word on the command line. Each
 * prints what it saw; the tests compare that with a native run.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static int fail(const char *what)
{
	perror(what);
	return 1;
}

static int wait_for(pid_t pid)
{
	int status;

	if (waitpid(pid, &status, 0) != pid)
		return fail("waitpid");
	return status;
}

static int do_fork(void)
{
	for (int i = 0; i < 50; i++) {
		pid_t pid = fork();

		if (pid < 0)
			return fail("fork");
		if (!pid)
			_exit(getppid() > 0 && getpid() == gettid() ? 7 : 1);
		if (wait_for(pid) != 7 << 8)
			return fail("child of fork");
	}
	puts("fork ok");
	return 0;
}

static int do_vfork(void)
{
	// static: what the child of vfork leaves in registers is not ours.
	static int i;

	for (i = 0; i < 50; i++) {
		pid_t pid = vfork();

		if (pid < 0)
			return fail("vfork");
		if (!pid) {
			execl("/bin/sh", "sh", "-c", "exit 7", (char *)NULL);
			_exit(1);
		}
		if (wait_for(pid) != 7 << 8)
			return fail("child of vfork");
	}
	puts("vfork ok");
	return 0;
}

static int do_spawn(void)
{
	char *argv[] = { "sh", "-c", "exit 7", NULL };

	for (int i = 0; i < 50; i++) {
		pid_t pid;

		if (posix_spawn(&pid, "/bin/sh", NULL, NULL, argv, environ))
			return fail("posix_spawn");
		if (wait_for(pid) != 7 << 8)
			return fail("spawned child");
	}
	puts("spawn ok");
	return 0;
}

static void *count_calls(void *errors)
{
	for (int i = 0; i < 20000; i++) {
		char byte;

		errno = 0;
		if (read(-1, &byte, 1) != -1 || errno != EBADF)
			__atomic_fetch_add((int *)errors, 1, __ATOMIC_RELAXED);
		if (getppid() <= 0)
			__atomic_fetch_add((int *)errors, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static int run_threads(int n, size_t stack)
{
	pthread_t threads[8];
	pthread_attr_t attr;
	int errors = 0;

	pthread_attr_init(&attr);
	if (stack && pthread_attr_setstacksize(&attr, stack))
		return fail("stack size");
	for (int i = 0; i < n; i++)
		if (pthread_create(&threads[i], &attr, count_calls, &errors))
			return fail("pthread_create");
	for (int i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
	printf("%d wrong answers\n", errors);
	return errors != 0;
}

static volatile sig_atomic_t signals;

static void on_signal(int number)
{
	int saved = errno;

	(void)number;
	signals++;
	getppid();
	if (write(-1, "", 0) != -1)
		_exit(9);
	errno = saved;
}

static int do_signals(void)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM };
	struct itimerspec often = { { 0, 50000 }, { 0, 50000 } }, never = { { 0, 0 }, { 0, 0 } };
	int status;
	timer_t timer;

	if (sigaction(SIGALRM, &action, NULL) || timer_create(CLOCK_MONOTONIC, &event, &timer) ||
	    timer_settime(timer, 0, &often, NULL))
		return fail("timer");
	status = run_threads(4, 0);
	timer_settime(timer, 0, &never, NULL);
	printf("signals %s\n", signals > 100 ? "arrived" : "are missing");
	return status;
}

static int do_close_all(void)
{
	for (int fd = 3; fd < 1024; fd++)
		close(fd);
	syscall(SYS_close_range, 3, ~0u, 0);
	if (getppid() <= 0)
		return fail("getppid");
	puts("closed all");
	fflush(stdout);
	return system("echo a shell still starts") != 0;
}

static int do_empty_env(void)
{
	char *argv[] = { "cat", "/proc/self/maps", NULL }, *none[] = { NULL };

	execve("/bin/cat", argv, none);
	return fail("execve");
}

static int do_null_env(void)
{
	char *argv[] = { "env", NULL };

	syscall(SYS_execve, "/usr/bin/env", argv, NULL);
	return fail("execve");
}

static int do_bad_exec(void)
{
	char *argv[] = { "x", NULL };

	execve("/nonexistent", argv, environ);
	printf("absent: %s\n", strerror(errno));
	execve("/etc/passwd", argv, environ);
	printf("not executable: %s\n", strerror(errno));
	execve("/tmp", argv, environ);
	printf("a folder: %s\n", strerror(errno));
	syscall(SYS_execve, 8, argv, environ);
	printf("a bad pointer: %s\n", strerror(errno));
	return 0;
}

static sig_atomic_t volatile frames_seen;

static void on_alarm(int number)
{
	void *frames[64];
	int n = backtrace(frames, 64);

	(void)number;
	for (int i = 0; i < n; i++) {
		Dl_info info;

		if (dladdr(frames[i], &info) && info.dli_sname &&
		    !strcmp(info.dli_sname, "block_in_read"))
			frames_seen = 1;
	}
}

// Exported, not inlined: the name that a backtrace must find.
__attribute__((noinline, visibility("default"))) int block_in_read(int fd)
{
	char byte;
	ssize_t n = read(fd, &byte, 1);

	__asm__ volatile("" : : "r"(n) : "memory");
	return n < 0 ? errno : 0;
}

static int do_unwind(void)
{
	struct sigaction action = { .sa_handler = on_alarm };
	struct itimerspec soon = { { 0, 0 }, { 0, 20000000 } };
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM };
	void *warm[4];
	timer_t timer;
	int fds[2];

	backtrace(warm, 4); // loads libgcc_s outside of the handler
	if (pipe(fds) || sigaction(SIGALRM, &action, NULL) ||
	    timer_create(CLOCK_MONOTONIC, &event, &timer) || timer_settime(timer, 0, &soon, NULL))
		return fail("timer");
	printf("%s, %s\n", strerror(block_in_read(fds[0])),
	       frames_seen ? "the caller was found" : "the caller was lost");
	return !frames_seen;
}

// argv[2]: a library that makes its own system calls in own_getppid().
static int do_dlopen(const char *path)
{
	void *library = dlopen(path, RTLD_NOW);
	long (*own_getppid)(void);
	const unsigned char *code;
	bool patched = false;

	if (!library) {
		fprintf(stderr, "%s\n", dlerror());
		return 1;
	}
	own_getppid = (long (*)(void))dlsym(library, "own_getppid");
	if (!own_getppid)
		return fail("dlsym");
	printf("%s\n", own_getppid() == getppid() ? "same answer" : "another answer");
	code = (const unsigned char *)own_getppid;
	for (int i = 0; i < 32; i++)
		patched = patched || code[i] == 0xe9;
	printf("%s\n", patched ? "patched" : "as compiled");
	return 0;
}

static int do_red_zone(void)
{
	long sum = 0;

	// The compiler keeps locals of leaf code below the stack pointer.
	for (long i = 0; i < 1000; i++) {
		long got;

		__asm__ volatile("movq %1, -8(%%rsp)\n\t"
				 "movq %1, -120(%%rsp)\n\t"
				 "movq -8(%%rsp), %0\n\t"
				 "addq -120(%%rsp), %0"
				 : "=&r"(got)
				 : "r"(i)
				 : "memory", "cc");
		sum += got + (getppid() > 0);
	}
	printf("sum %ld\n", sum);
	return 0;
}

static atomic_int cleaned;
static atomic_bool ready;

static void clean(void *unused)
{
	(void)unused;
	cleaned++;
}

static void *call_for_ever(void *unused)
{
	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
	pthread_cleanup_push(clean, unused);
	ready = true;
	for (;;)
		getppid();
	pthread_cleanup_pop(0);
	return NULL;
}

static int do_cancel(void)
{
	for (int i = 0; i < 200; i++) {
		pthread_t thread;
		void *result;

		ready = false;
		if (pthread_create(&thread, NULL, call_for_ever, NULL))
			return fail("pthread_create");
		while (!ready)
			usleep(10);
		usleep(20 + i % 90);
		pthread_cancel(thread);
		pthread_join(thread, &result);
		if (result != PTHREAD_CANCELED)
			return fail("not cancelled");
	}
	printf("%d of 200 handlers ran\n", cleaned);
	return cleaned != 200;
}

static int do_thread_exec(void)
{
	char *argv[] = { "sh", "-c", "echo executed by a thread", NULL };
	pthread_t thread;
	int errors = 0;

	if (pthread_create(&thread, NULL, count_calls, &errors))
		return fail("pthread_create");
	execve("/bin/sh", argv, environ);
	return fail("execve");
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	alarm(60);
	if (!strcmp(what, "fork"))
		return do_fork();
	if (!strcmp(what, "vfork"))
		return do_vfork();
	if (!strcmp(what, "spawn"))
		return do_spawn();
	if (!strcmp(what, "threads"))
		return run_threads(8, 0);
	if (!strcmp(what, "small-stack"))
		return run_threads(2, 16384);
	if (!strcmp(what, "signals"))
		return do_signals();
	if (!strcmp(what, "close-all"))
		return do_close_all();
	if (!strcmp(what, "empty-env"))
		return do_empty_env();
	if (!strcmp(what, "null-env"))
		return do_null_env();
	if (!strcmp(what, "bad-exec"))
		return do_bad_exec();
	if (!strcmp(what, "unwind"))
		return do_unwind();
	if (!strcmp(what, "red-zone"))
		return do_red_zone();
	if (!strcmp(what, "cancel"))
		return do_cancel();
	if (!strcmp(what, "thread-exec"))
		return do_thread_exec();
	if (!strcmp(what, "dlopen") && argc > 2)
		return do_dlopen(argv[2]);
	fprintf(stderr, "calls: unknown word: %s\n", what);
	return 2;
}
