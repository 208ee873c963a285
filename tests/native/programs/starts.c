// SPDX-License-Identifier: MIT
/*
 * Ways to start programs, one per word on the command line, that show a shim which does
 * more than it may: under filters and tracers, at the limits, from bad memory.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static int fail(const char *what)
{
	perror(what);
	return 1;
}

static int run(char **command)
{
	execvp(command[0], command);
	return fail(command[0]);
}

// From here on call number `nr` kills.
static int install_filter(unsigned nr)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog filter = { sizeof(code) / sizeof(code[0]), code };

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, 2, &filter);
}

static void *nothing(void *unused)
{
	return unused;
}

// What a sandbox may do without a thought: another process, a thread, an end.
static int do_ordinary(void)
{
	pthread_t thread;
	int status;
	pid_t pid = fork();

	if (!pid)
		return access("/", F_OK);
	if (waitpid(pid, &status, 0) != pid || status)
		return fail("fork");
	return pthread_create(&thread, NULL, nothing, NULL) || pthread_join(thread, NULL);
}

static void handler(int number)
{
	(void)number;
}

static const char *handler_name(void)
{
	struct sigaction now;

	sigaction(SIGUSR1, NULL, &now);
	return now.sa_handler == handler ? "handler" : "something else";
}

// The program's own handler is what it reads, also after calls that the shim cannot follow.
static int do_old_handler(void)
{
	struct sigaction act = { .sa_handler = handler }, old;

	sigaction(SIGUSR1, &act, NULL);
	printf("%s", handler_name());
	unshare(CLONE_FILES);
	printf(", then %s", handler_name());
	install_filter(SYS_getcpu);
	sigaction(SIGUSR1, &act, &old);
	printf(", then %s, %s\n", old.sa_handler == handler ? "handler" : "something else",
	       handler_name());
	return raise(SIGUSR1);
}

// How often a tracer is stopped for the command.
static int do_stops(char **command)
{
	int status, stops = 0;
	pid_t pid = fork();

	if (!pid) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		_exit(run(command));
	}
	for (waitpid(pid, &status, 0); WIFSTOPPED(status); waitpid(pid, &status, 0)) {
		stops++;
		ptrace(PTRACE_SYSCALL, pid, 0, 0);
	}
	printf("%d stops\n", stops);
	return 0;
}

static int do_bad_environment(void)
{
	char *argv[] = { "true", NULL }, *bad[] = { "A=b", (char *)8, NULL };
	char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char **cut = (char **)(page + 4096) - 2;

	if (page == MAP_FAILED || munmap(page + 4096, 4096))
		return fail("mmap");
	cut[0] = cut[1] = memset(page, 'x', 64);
	syscall(SYS_execve, "/bin/true", argv, 8);
	printf("the vector: %s\n", strerror(errno));
	execve("/bin/true", argv, bad);
	printf("a variable: %s\n", strerror(errno));
	execve("/bin/true", argv, cut);
	printf("an end: %s\n", strerror(errno));
	return 0;
}

static int do_auxv(char **env)
{
	unsigned long size = 0;

	while (*env)
		env++;
	for (Elf64_auxv_t *v = (void *)(env + 1); v->a_type != AT_NULL; v++)
		if (v->a_type == AT_PAGESZ)
			size = v->a_un.a_val;
	printf("page size behind the environment: %lu\n", size);
	return 0;
}

static int do_two_preloads(char **command)
{
	char *env[] = { "LD_PRELOAD=", "A=1", "LD_PRELOAD=libm.so.6", "B=2", NULL };

	execve(command[0], command, env);
	return fail(command[0]);
}

static int do_effective_ids(char **command)
{
	if (setegid(65534) || seteuid(65534))
		return fail("seteuid");
	return run(command);
}

static int exec_with_bytes(size_t bytes)
{
	static char piece[100001];
	size_t n = bytes / 100000, i = 1;
	char *argv[64] = { "true" }, *env[] = { "A=b", NULL };
	int status;
	pid_t pid;

	memset(piece, 'x', 100000);
	while (i <= n)
		argv[i++] = piece;
	argv[i] = piece + 100000 - bytes % 100000;
	pid = fork();
	if (!pid) {
		execve("/bin/true", argv, env);
		_exit(errno);
	}
	return waitpid(pid, &status, 0) == pid ? WEXITSTATUS(status) : -1;
}

// The largest argument list that exec takes, by bisection.
static int do_longest(void)
{
	size_t fits = 100000, not = 5000000;

	while (not-fits > 1) {
		size_t bytes = (fits + not) / 2;

		*(exec_with_bytes(bytes) ? &not : &fits) = bytes;
	}
	printf("%zu bytes of arguments, then: %s\n", fits, strerror(exec_with_bytes(not)));
	return 0;
}

static long mapped_kb(void)
{
	char line[256];
	long kb = -1;
	FILE *f = fopen("/proc/self/status", "r");

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "VmSize: %ld", &kb) == 1)
			break;
	if (f)
		fclose(f);
	return kb;
}

static int do_many_variables(void)
{
	static char *argv[] = { "true", NULL }, *env[2001];
	// static: what the child of vfork leaves in registers is not ours.
	static long before;
	static int i;

	for (i = 0; i < 2000; i++)
		env[i] = "VARIABLE=of a large environment";
	for (i = 0; i < 100; i++) {
		pid_t pid = vfork();
		int status;

		if (!pid) {
			execve("/nonexistent", argv, env);
			execve("/bin/true", argv, env);
			_exit(1);
		}
		if (waitpid(pid, &status, 0) != pid || status)
			return fail("child of vfork");
		if (!i)
			before = mapped_kb();
	}
	printf("grown by %ld kB\n", mapped_kb() - before);
	return 0;
}

static void exec_echo(int number)
{
	char *argv[] = { "echo", "from a handler", NULL }, *env[] = { "A=1", NULL };

	(void)number;
	execve("/bin/echo", argv, env);
}

// exec in a handler that has `size` bytes above what the kernel needs.
static int do_small_handler(size_t size)
{
	size_t guard = 1 << 20;
	char *at =
		mmap(NULL, 2 * guard, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct sigaction act = { .sa_handler = exec_echo, .sa_flags = SA_ONSTACK };
	stack_t stack = { .ss_sp = at + guard, .ss_size = (size_t)sysconf(_SC_MINSIGSTKSZ) + size };

	if (at == MAP_FAILED || mprotect(at, guard, PROT_NONE) || sigaltstack(&stack, NULL) ||
	    sigaction(SIGUSR1, &act, NULL))
		return fail("handler");
	raise(SIGUSR1);
	return 1;
}

static int do_limit(int resource, rlim_t bytes, char **command)
{
	struct rlimit limit = { bytes, bytes };

	if (setrlimit(resource, &limit))
		return fail("setrlimit");
	return run(command);
}

// Only what lies in these folders can be opened or executed.
static int landlock(void)
{
	static const char *const open_ones[] = { "/usr", "/lib", "/lib64", "/bin", "/etc", "/proc" };
	struct landlock_ruleset_attr attr = {
		LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE,
	};
	int fd =
		(int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr.handled_access_fs), 0);

	for (size_t i = 0; fd >= 0 && i < sizeof(open_ones) / sizeof(open_ones[0]); i++) {
		struct landlock_path_beneath_attr rule = { attr.handled_access_fs,
							   open(open_ones[i], O_PATH | O_CLOEXEC) };

		if (rule.parent_fd >= 0 &&
		    syscall(SYS_landlock_add_rule, fd, LANDLOCK_RULE_PATH_BENEATH, &rule, 0))
			return -1;
	}
	return fd < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	       syscall(SYS_landlock_restrict_self, fd, 0);
}

int main(int argc, char **argv, char **env)
{
	const char *what = argc > 1 ? argv[1] : "";

	alarm(60);
	if (!strcmp(what, "bad-environment"))
		return do_bad_environment();
	if (!strcmp(what, "auxv"))
		return do_auxv(env);
	if (!strcmp(what, "old-handler"))
		return do_old_handler();
	if (!strcmp(what, "longest"))
		return do_longest();
	if (!strcmp(what, "many-variables"))
		return do_many_variables();
	if (!strcmp(what, "small-handler") && argc > 2)
		return do_small_handler(strtoul(argv[2], NULL, 10));
	if (!strcmp(what, "filter") && argc > 2 && install_filter((unsigned)atoi(argv[2])))
		return fail("seccomp");
	if (!strcmp(what, "filter") && argc > 2)
		return argc > 3 ? run(argv + 3) : do_ordinary();
	if (!strcmp(what, "landlock") && landlock())
		return fail("landlock");
	if (!strcmp(what, "landlock") && argc > 2)
		return run(argv + 2);
	if (!strcmp(what, "stops") && argc > 2)
		return do_stops(argv + 2);
	if (!strcmp(what, "two-preloads") && argc > 2)
		return do_two_preloads(argv + 2);
	if (!strcmp(what, "effective-ids") && argc > 2)
		return do_effective_ids(argv + 2);
	if (!strcmp(what, "address-space") && argc > 2)
		return do_limit(RLIMIT_AS, 1 << 29, argv + 2);
	if (!strcmp(what, "data") && argc > 2)
		return do_limit(RLIMIT_DATA, 1 << 29, argv + 2);
	fprintf(stderr, "starts: unknown word: %s\n", what);
	return 2;
}
