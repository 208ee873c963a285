/* SPDX-License-Identifier: MIT */
/* Cases of kmod_limits: who may not. */
#ifndef LIMITS_ACCESS_H
#define LIMITS_ACCESS_H

#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>

#include "limits_common.h"

static void expect_eperm(const struct context *c, const char *who)
{
	struct cosy_run r = { 0 };

	if (!ioctl(c->fd, COSY_IOC_RUN, &r) || errno != EPERM)
		fail("%s was not refused", who);
}

static void case_seccomp(void)
{
	struct sock_filter allow = { .code = BPF_RET | BPF_K, .k = SECCOMP_RET_ALLOW };
	struct sock_fprog filter = { 1, &allow };
	pid_t child = fork();

	if (!child) {
		struct context c = context_open(4096);

		load(&c, count_turns);
		if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter))
			fail("seccomp: %s", strerror(errno));
		expect_eperm(&c, "a task with a filter");
		exit(0);
	}
	equal("child", status_of(child), 0);
}

// Not even one that lets every call pass.
static void case_dispatch(void)
{
	pid_t child = fork();

	if (!child) {
		static char selector = SYSCALL_DISPATCH_FILTER_ALLOW;
		struct context c = context_open(4096);

		load(&c, count_turns);
		if (prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON, 0, 0, &selector))
			fail("user dispatch: %s", strerror(errno));
		expect_eperm(&c, "a task with user dispatch");
		exit(0);
	}
	equal("child", status_of(child), 0);
}

// The kernel was booted with audit=1.
static void audited(void)
{
	static char name[] = "/";
	static _Alignas(8) unsigned char out[4096];
	struct cosy_fused call = {
		.op = COSY_OP_FILES,
		.flags = COSY_FUSED_USER,
		.args = { (unsigned int)AT_FDCWD, 0, (unsigned long)out, sizeof(out),
			  (unsigned long)name, sizeof(name) },
	};
	int fd = open(COSY_DEVICE, O_RDWR);

	if (fd < 0)
		fail("%s: %s", COSY_DEVICE, strerror(errno));
	if (!ioctl(fd, COSY_IOC_FUSED, &call) || errno != EPERM)
		fail("an audited task was not refused");
	puts("refused");
	exit(0);
}

static void case_ptrace(void)
{
	pid_t child = fork();
	int status;

	if (!child) {
		struct context c = context_open(4096);

		load(&c, count_turns);
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		expect_eperm(&c, "a traced task");
		exit(0);
	}
	status = status_of(child);
	equal("child", status, 0);
}

// Watched from the middle of a run on: the run ends.
static void case_attach(void)
{
	pid_t child = fork();

	if (!child) {
		struct context c = context_open(4096);
		struct cosy_run r = { .program = load(&c, count_turns), .regs[1] = FOREVER };

		for (;;) {
			if (ioctl(c.fd, COSY_IOC_RUN, &r))
				exit(errno == EPERM ? 7 : 8);
			r.flags = COSY_RUN_RESUME;
			if (r.outcome.status == -EPERM)
				exit(7);
		}
	}
	usleep(300000);
	if (ptrace(PTRACE_SEIZE, child, 0, PTRACE_O_TRACESYSGOOD))
		fail("seize: %s", strerror(errno));
	for (;;) {
		int status = status_of(child);

		if (WIFEXITED(status)) {
			equal("child", WEXITSTATUS(status), 7);
			return;
		}
		ptrace(PTRACE_CONT, child, 0, 0);
	}
}

static void case_fork(void)
{
	struct context c = context_open(4096);
	pid_t child;

	load(&c, count_turns);
	child = fork();
	if (!child) {
		expect_eperm(&c, "a child");
		if (mmap(NULL, c.bytes, PROT_READ, MAP_SHARED, c.fd, 0) != MAP_FAILED ||
		    errno != EPERM)
			fail("a child could map the buffer");
		signal(SIGSEGV, SIG_DFL);
		exit(c.buffer[0]); // not mapped here
	}
	equal("the buffer in a child", WTERMSIG(status_of(child)), SIGSEGV);
	child = vfork();
	if (!child) {
		struct cosy_run r = { .regs[1] = 3 };

		_exit(ioctl(c.fd, COSY_IOC_RUN, &r) || r.regs[2] != 3);
	}
	equal("a child in the same address space", status_of(child), 0);
	child = fork();
	if (!child) {
		char number[12];

		c = context_open(4096);
		load(&c, count_turns);
		if (fcntl(c.fd, F_SETFD, 0))
			fail("fcntl");
		snprintf(number, sizeof(number), "%d", c.fd);
		execl(self, self, "inherited", number, NULL);
		fail("exec: %s", strerror(errno));
	}
	equal("after exec", status_of(child), 0);
}

static long long data_of(const struct context *c, const char *name)
{
	struct cosy_fused call = {
		.op = COSY_OP_FILES,
		.args = { (unsigned int)AT_FDCWD, COSY_WANT_DATA, 4096, 8192, 0, strlen(name) + 1,
			  0, 4096 },
	};
	const struct cosy_entry *e = (const void *)(c->buffer + 4096 + sizeof(struct cosy_block));

	strcpy((char *)c->buffer, name);
	equal(name, fused(c, call).result, 1);
	return e->error ? e->error : e->data;
}

static void restrict_to(const char *dir)
{
	struct landlock_ruleset_attr attr = {
		.handled_access_fs = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR,
	};
	int ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);
	struct landlock_path_beneath_attr beneath = {
		.allowed_access = attr.handled_access_fs,
		.parent_fd = open(dir, O_PATH),
	};

	if (ruleset < 0 ||
	    syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &beneath, 0) ||
	    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    syscall(SYS_landlock_restrict_self, ruleset, 0))
		fail("landlock: %s", strerror(errno));
}

// A security module denies what it denies to open, also through a context from before.
static void case_landlock(void)
{
	pid_t child = fork();

	if (!child) {
		struct context c = context_open(65536);
		struct cosy_fused call = { .op = COSY_OP_ENTRIES, .args = { [3] = 8192 } };
		int fd;

		mkdir("/tmp/allowed", 0755);
		mkdir("/tmp/denied", 0755);
		close(open("/tmp/allowed/file", O_CREAT | O_WRONLY, 0644));
		fd = open("/tmp/denied/file", O_CREAT | O_WRONLY, 0644);
		equal("write", write(fd, "secret", 6), 6);
		equal("before", data_of(&c, "/tmp/denied/file"), 6);
		fd = open("/tmp/denied", O_RDONLY | O_DIRECTORY);
		restrict_to("/tmp/allowed");
		if (open("/tmp/denied/file", O_RDONLY) >= 0 || errno != EACCES)
			fail("landlock denies nothing");
		equal("allowed", data_of(&c, "/tmp/allowed/file"), 0);
		equal("denied", data_of(&c, "/tmp/denied/file"), -EACCES);
		equal("allowed again", data_of(&c, "/tmp/allowed/file"), 0);
		call.args[0] = (unsigned int)fd;
		equal("entries", fused(&c, call).result, -EACCES);
		call.args[1] = COSY_WANT_DATA;
		call.args[7] = 100;
		equal("entries with data", fused(&c, call).result, -EACCES);
		exit(0);
	}
	equal("child", status_of(child), 0);
}

static void inherited(int fd)
{
	struct context c = { .fd = fd };

	expect_eperm(&c, "another program");
	exit(0);
}

#endif
