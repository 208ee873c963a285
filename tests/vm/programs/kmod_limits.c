// SPDX-License-Identifier: MIT
/*
 * kmod_limits CASE...: what the module must refuse, stop or leave alone. Each case
 * prints its name when it went well. `hold` keeps a context open until SIGTERM.
 */
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "context.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define FOREVER 2000000000 // turns; nothing here waits for the end of them

static char *self;

static void equal(const char *what, long long got, long long wanted)
{
	if (got != wanted)
		fail("%s: %lld, not %lld", what, got, wanted);
}

static __u32 load_flags(const struct context *c, const struct cosy_insn *insns, unsigned int n,
			unsigned int flags)
{
	struct cosy_load load = { .insns = (unsigned long)insns, .n_insns = n, .flags = flags };

	if (ioctl(c->fd, COSY_IOC_LOAD, &load))
		fail("load: %s, reason %u at %u", strerror(errno), load.reason, load.error_at);
	return load.program;
}

#define load(c, insns) load_flags(c, insns, COUNT(insns), 0)

static void run(const struct context *c, struct cosy_run *r)
{
	if (ioctl(c->fd, COSY_IOC_RUN, r))
		fail("run: %s", strerror(errno));
}

/* r2 counts the turns of a loop that takes r1 of them. */
static const struct cosy_insn count_turns[] = {
	{ .op = COSY_I_ADDI, .dst = 2, .a = 2, .imm = 1 },
	{ .op = COSY_I_LOOP, .dst = 1, .imm = -2 },
	{ .op = COSY_I_EXIT },
};

// --- programs ------------------------------------------------------------------------

static void expect_refusal(const struct context *c, const struct cosy_insn *insns, unsigned int n,
			   unsigned int flags, unsigned int reason, unsigned int at)
{
	struct cosy_load load = { .insns = (unsigned long)insns, .n_insns = n, .flags = flags };

	if (!ioctl(c->fd, COSY_IOC_LOAD, &load) || errno != EINVAL)
		fail("a program was not refused: reason %u at %u", reason, at);
	equal("reason", load.reason, reason);
	equal("error_at", load.error_at, at);
}

static void case_refusals(void)
{
	struct context c = context_open(65536);
	static struct cosy_insn many[COSY_MAX_INSNS + 1];
	const struct {
		struct cosy_insn insns[6];
		unsigned int n, flags, reason, at;
	} bad[] = {
		{ { { .op = COSY_I_MAX }, { 0 } }, 2, 0, COSY_REFUSED_OP, 0 },
		{ { { .op = 255 }, { 0 } }, 2, 0, COSY_REFUSED_OP, 0 },
		{ { { .op = COSY_I_MOV, .dst = 32 }, { 0 } }, 2, 0, COSY_REFUSED_REGISTER, 0 },
		{ { { .op = COSY_I_ADD, .a = 255 }, { 0 } }, 2, 0, COSY_REFUSED_REGISTER, 0 },
		{ { { .op = COSY_I_EXIT, .imm = 1 } }, 1, 0, COSY_REFUSED_UNUSED, 0 },
		{ { { .op = COSY_I_MOV, .b = 1 }, { 0 } }, 2, 0, COSY_REFUSED_UNUSED, 0 },
		{ { { .op = COSY_I_MOV } }, 1, 0, COSY_REFUSED_END, 0 },
		{ { { .op = COSY_I_SHLI, .imm = 64 }, { 0 } }, 2, 0, COSY_REFUSED_IMM, 0 },
		{ { { .op = COSY_I_SHRI, .imm = -1 }, { 0 } }, 2, 0, COSY_REFUSED_IMM, 0 },
		{ { { .op = COSY_I_COMPARE }, { 0 } }, 2, 0, COSY_REFUSED_IMM, 0 },
		{ { { .op = COSY_I_MOVE, .imm = (1 << 20) + 1 }, { 0 } },
		  2,
		  0,
		  COSY_REFUSED_IMM,
		  0 },
		{ { { .op = COSY_I_JMP }, { 0 } }, 2, 0, COSY_REFUSED_JUMP, 0 },
		{ { { .op = COSY_I_JMP, .imm = -1 }, { 0 } }, 2, 0, COSY_REFUSED_JUMP, 0 },
		{ { { .op = COSY_I_JMP, .imm = 1 }, { 0 } }, 2, 0, COSY_REFUSED_JUMP, 0 },
		{ { { 0 }, { .op = COSY_I_JEQ, .imm = 0x7fffffff }, { 0 } },
		  3,
		  0,
		  COSY_REFUSED_JUMP,
		  1 },
		{ { { .op = COSY_I_LOOP, .imm = 1 }, { 0 }, { 0 } }, 3, 0, COSY_REFUSED_JUMP, 0 },
		{ { { .op = COSY_I_LOOP, .imm = -2 }, { 0 } }, 2, 0, COSY_REFUSED_JUMP, 0 },
		{ { { .op = COSY_I_LOOP, .imm = -2147483647 - 1 }, { 0 } },
		  2,
		  0,
		  COSY_REFUSED_JUMP,
		  0 },
		// its own counter is set again in the loop: it would never end
		{ { { .op = COSY_I_MOVI, .dst = 1, .imm = 5 },
		    { .op = COSY_I_LOOP, .dst = 1, .imm = -2 },
		    { 0 } },
		  3,
		  0,
		  COSY_REFUSED_LOOP,
		  1 },
		// two loops that cross
		{ { { .op = COSY_I_MOV },
		    { .op = COSY_I_MOV },
		    { .op = COSY_I_LOOP, .dst = 1, .imm = -3 },
		    { .op = COSY_I_LOOP, .dst = 2, .imm = -3 },
		    { 0 } },
		  5,
		  0,
		  COSY_REFUSED_LOOP,
		  3 },
		// two that nest, with the same counter
		{ { { .op = COSY_I_MOV },
		    { .op = COSY_I_LOOP, .dst = 1, .imm = -2 },
		    { .op = COSY_I_LOOP, .dst = 1, .imm = -3 },
		    { 0 } },
		  4,
		  0,
		  COSY_REFUSED_LOOP,
		  2 },
		// a jump past a loop's start
		{ { { .op = COSY_I_JMP, .imm = 1 },
		    { .op = COSY_I_MOV },
		    { .op = COSY_I_MOV },
		    { .op = COSY_I_LOOP, .dst = 1, .imm = -3 },
		    { 0 } },
		  5,
		  0,
		  COSY_REFUSED_JUMP,
		  0 },
		{ { { .op = COSY_I_CALL, .imm = SYS_execve }, { 0 } }, 2, 0, COSY_REFUSED_CALL, 0 },
		{ { { .op = COSY_I_CALL, .imm = SYS_ptrace }, { 0 } }, 2, 0, COSY_REFUSED_CALL, 0 },
		{ { { .op = COSY_I_CALL, .imm = SYS_mmap }, { 0 } }, 2, 0, COSY_REFUSED_CALL, 0 },
		{ { { .op = COSY_I_CALL, .imm = SYS_ioctl }, { 0 } }, 2, 0, COSY_REFUSED_CALL, 0 },
		{ { { .op = COSY_I_CALL, .imm = -1 }, { 0 } }, 2, 0, COSY_REFUSED_CALL, 0 },
		{ { { .op = COSY_I_CALL, .imm = 100000 }, { 0 } }, 2, 0, COSY_REFUSED_CALL, 0 },
		{ { { .op = COSY_I_FUSED, .imm = 0 }, { 0 } }, 2, 0, COSY_REFUSED_CALL, 0 },
		{ { { .op = COSY_I_FUSED, .imm = COSY_OP_MAX }, { 0 } },
		  2,
		  0,
		  COSY_REFUSED_CALL,
		  0 },
		{ { { .op = COSY_I_CALL, .a = 30, .imm = SYS_pread64 }, { 0 } },
		  2,
		  0,
		  COSY_REFUSED_REGISTER,
		  0 },
		{ { { .op = COSY_I_FUSED, .a = 25, .imm = COSY_OP_FILES }, { 0 } },
		  2,
		  0,
		  COSY_REFUSED_REGISTER,
		  0 },
		{ { { .op = COSY_I_CALL, .imm = SYS_write }, { 0 } },
		  2,
		  COSY_LOAD_PURE,
		  COSY_REFUSED_IMPURE,
		  0 },
		{ { { .op = COSY_I_FUSED, .imm = COSY_OP_COPY }, { 0 } },
		  2,
		  COSY_LOAD_PURE,
		  COSY_REFUSED_IMPURE,
		  0 },
	};

	for (size_t i = 0; i < COUNT(bad); i++)
		expect_refusal(&c, bad[i].insns, bad[i].n, bad[i].flags, bad[i].reason, bad[i].at);
	expect_refusal(&c, many, 0, 0, COSY_REFUSED_LENGTH, 0);
	expect_refusal(&c, many, COSY_MAX_INSNS + 1, 0, COSY_REFUSED_LENGTH, 0);
	expect_refusal(&c, many, ~0u, 0, COSY_REFUSED_LENGTH, 0);
	load_flags(&c, many, COSY_MAX_INSNS, 0); // all COSY_I_EXIT
	for (size_t i = 1; i < COSY_MAX_INSNS - 1; i++)
		many[i] = (struct cosy_insn){ .op = COSY_I_LOOP, .dst = 1 + i % 31, .imm = -2 };
	many[0].op = COSY_I_MOV;
	expect_refusal(&c, many, COSY_MAX_INSNS, 0, COSY_REFUSED_LOOP, 2);
}

static void case_arithmetic(void)
{
	struct context c = context_open(4096);
	const struct cosy_insn insns[] = {
		{ .op = COSY_I_MOVI, .dst = 1, .imm = -7 },
		{ .op = COSY_I_MOVHI, .dst = 1, .imm = 3 }, // 0x3_fffffff9
		{ .op = COSY_I_MOVI, .dst = 2, .imm = 100 },
		{ .op = COSY_I_ST64, .a = 2, .b = 1, .imm = 3 },
		{ .op = COSY_I_LD8, .dst = 3, .a = 2, .imm = 3 },
		{ .op = COSY_I_LD16, .dst = 4, .a = 2, .imm = 3 },
		{ .op = COSY_I_LD32, .dst = 5, .a = 2, .imm = 3 },
		{ .op = COSY_I_LD64, .dst = 6, .a = 2, .imm = 3 },
		{ .op = COSY_I_MUL, .dst = 7, .a = 2, .b = 3 }, // 24900
		{ .op = COSY_I_DIV, .dst = 8, .a = 7, .b = 2 }, // 249
		{ .op = COSY_I_MOD, .dst = 9, .a = 7, .b = 4 }, // 24900 % 65529
		{ .op = COSY_I_SHLI, .dst = 10, .a = 2, .imm = 40 },
		{ .op = COSY_I_SHRI, .dst = 11, .a = 10, .imm = 38 }, // 400
		{ .op = COSY_I_ANDI, .dst = 12, .a = 3, .imm = 0xf },
		{ .op = COSY_I_XOR, .dst = 13, .a = 3, .b = 12 },
		{ .op = COSY_I_OR, .dst = 14, .a = 13, .b = 2 },
		{ .op = COSY_I_SUB, .dst = 15, .a = 2, .b = 3 }, // -149
		{ .op = COSY_I_JSLT, .a = 15, .b = 2, .imm = 1 },
		{ .op = COSY_I_MOVI, .dst = 20, .imm = 1 }, // jumped over
		{ .op = COSY_I_JLT, .a = 15, .b = 2, .imm = 1 }, // unsigned: it is large
		{ .op = COSY_I_MOVI, .dst = 21, .imm = 1 },
		{ .op = COSY_I_ST16, .a = 2, .b = 2, .imm = 20 }, // 100 = 'd', NUL
		{ .op = COSY_I_MOVI, .dst = 22, .imm = 120 },
		{ .op = COSY_I_STRLEN, .dst = 23, .a = 22, .imm = 100 },
		{ .op = COSY_I_ADDI, .dst = 24, .a = 22, .imm = 40 },
		{ .op = COSY_I_MOVE, .a = 24, .b = 22, .imm = 2 },
		{ .op = COSY_I_COMPARE, .dst = 25, .a = 24, .b = 22, .imm = 2 },
		{ .op = COSY_I_COMPARE, .dst = 26, .a = 24, .b = 2, .imm = 8 },
		{ .op = COSY_I_LD8, .dst = 27, .a = 24 },
		{ .op = COSY_I_EXIT },
	};
	const long long wanted[32] = {
		[1] = 0x3fffffff9, [2] = 100,	[3] = 0xf9,  [4] = 0xfff9, [5] = 0xfffffff9,
		[6] = 0x3fffffff9, [7] = 24900, [8] = 249,   [9] = 24900,  [10] = 100ll << 40,
		[11] = 400,	   [12] = 9,	[13] = 0xf0, [14] = 0xf4,  [15] = -149,
		[21] = 1,	   [22] = 120,	[23] = 1,    [24] = 160,   [26] = 1,
		[27] = 100,
	};
	struct cosy_run r = { .program = load(&c, insns) };

	run(&c, &r);
	equal("status", r.outcome.status, 0);
	for (int i = 0; i < 32; i++)
		if ((long long)r.regs[i] != wanted[i])
			fail("r%d is %llx, not %llx", i, r.regs[i], wanted[i]);
}

static void expect_fault(const struct context *c, struct cosy_insn insn, unsigned long long address,
			 int status)
{
	struct cosy_insn insns[] = { { .op = COSY_I_MOV }, insn, { .op = COSY_I_EXIT } };
	struct cosy_run r = { .regs = { [1] = address } };
	__u32 program = load(c, insns);

	r.program = program;
	run(c, &r);
	equal("status", r.outcome.status, status);
	equal("pc", r.outcome.pc, status ? 1 : 2);
	if (ioctl(c->fd, COSY_IOC_UNLOAD, &program))
		fail("unload: %s", strerror(errno));
	if (!ioctl(c->fd, COSY_IOC_RUN, &r) || errno != ENOENT)
		fail("an unloaded program ran");
}

static void case_faults(void)
{
	struct context c = context_open(4096);

	expect_fault(&c, (struct cosy_insn){ .op = COSY_I_LD64, .a = 1 }, 4088, 0);
	expect_fault(&c, (struct cosy_insn){ .op = COSY_I_LD64, .a = 1 }, 4089, -EFAULT);
	expect_fault(&c, (struct cosy_insn){ .op = COSY_I_LD8, .a = 1 }, 4096, -EFAULT);
	expect_fault(&c, (struct cosy_insn){ .op = COSY_I_LD8, .a = 1, .imm = -1 }, 0, -EFAULT);
	expect_fault(&c, (struct cosy_insn){ .op = COSY_I_LD64, .a = 1 }, ~0ull - 3, -EFAULT);
	expect_fault(&c, (struct cosy_insn){ .op = COSY_I_ST8, .a = 1 }, 4096, -EFAULT);
	expect_fault(&c, (struct cosy_insn){ .op = COSY_I_ST32, .a = 1, .imm = 4093 }, 0, -EFAULT);
	expect_fault(&c, (struct cosy_insn){ .op = COSY_I_STRLEN, .a = 1, .imm = 1 }, 4096,
		     -EFAULT);
	expect_fault(&c, (struct cosy_insn){ .op = COSY_I_MOVE, .a = 1, .imm = 2 }, 4095, -EFAULT);
	expect_fault(&c, (struct cosy_insn){ .op = COSY_I_MOVE, .dst = 1 }, 4097, -EFAULT);
	expect_fault(&c, (struct cosy_insn){ .op = COSY_I_COMPARE, .b = 1, .imm = 9 }, 4088,
		     -EFAULT);
	expect_fault(&c, (struct cosy_insn){ .op = COSY_I_DIV, .dst = 3, .a = 1, .b = 2 }, 1,
		     -EDOM);
	expect_fault(&c, (struct cosy_insn){ .op = COSY_I_MOD, .dst = 3, .a = 1, .b = 2 }, 1,
		     -EDOM);
}

// --- limits --------------------------------------------------------------------------

static void case_ops(void)
{
	struct context c = context_open(4096);
	struct cosy_run r = { .program = load(&c, count_turns), .limits.ops = 10, .regs[1] = 25 };

	run(&c, &r);
	equal("status", r.outcome.status, -E2BIG);
	equal("ops", (long long)r.outcome.ops, 10);
	for (int i = 0; i < 2; i++) {
		r.flags = COSY_RUN_RESUME;
		run(&c, &r);
	}
	equal("status", r.outcome.status, 0);
	equal("turns", (long long)r.regs[2], 25);
	r.outcome.pc = 3;
	if (!ioctl(c.fd, COSY_IOC_RUN, &r) || errno != EINVAL)
		fail("resumed behind the program");
}

static void case_deadline(void)
{
	struct context c = context_open(4096);
	struct cosy_run r = { .program = load(&c, count_turns),
			      .limits.deadline_ns = 20000000,
			      .regs[1] = FOREVER };

	for (int i = 0; i < 5; i++) {
		unsigned long long before = r.regs[2];

		run(&c, &r);
		equal("status", r.outcome.status, -ETIME);
		if (r.outcome.time_ns < 20000000 || r.regs[2] <= before)
			fail("stopped too early");
		fprintf(stderr, "{\"what\": \"past the deadline\", \"ns\": %llu}\n",
			r.outcome.time_ns - 20000000);
		r.flags = COSY_RUN_RESUME;
	}
	// stopped at COSY_I_LOOP: the turn is counted, its end is not
	equal("turns", (long long)(r.regs[1] + r.regs[2]), FOREVER + (r.outcome.pc == 1));
}

static volatile int alarms;

static void on_alarm(int signal)
{
	(void)signal;
	alarms++;
}

// Signals reach the program while a compound runs, and nothing is counted twice.
static void case_signal(void)
{
	struct context c = context_open(4096);
	struct cosy_run r = { .program = load(&c, count_turns), .regs[1] = 4000000 };
	struct itimerval each = { { 0, 20000 }, { 0, 20000 } };
	int interrupted = 0;

	signal(SIGALRM, on_alarm);
	setitimer(ITIMER_REAL, &each, NULL);
	for (;;) {
		int before = alarms;

		run(&c, &r);
		if (!r.outcome.status)
			break;
		if (r.outcome.status == -EINTR && alarms > before)
			interrupted++;
		else if (r.outcome.status != -E2BIG && r.outcome.status != -ETIME &&
			 r.outcome.status != -EINTR)
			fail("status %d", r.outcome.status);
		r.flags = COSY_RUN_RESUME;
	}
	setitimer(ITIMER_REAL, &(struct itimerval){ 0 }, NULL);
	equal("turns", (long long)r.regs[2], 4000000);
	if (!interrupted)
		fail("no signal stopped the run");
}

#define COPY_BYTES (1u << 20)

// A copy that a signal stops says so as system calls do, not as the kernel does inside.
static void case_signal_copy(void)
{
	struct context c = context_open(4096);
	int from = open("/limits-from", O_CREAT | O_RDWR | O_TRUNC, 0600);
	int to = open("/limits-to", O_CREAT | O_RDWR | O_TRUNC, 0600);
	struct itimerval each = { { 0, 200 }, { 0, 200 } };
	int stopped = 0;

	if (from < 0 || to < 0 || ftruncate(from, COPY_BYTES))
		fail("files: %s", strerror(errno));
	signal(SIGALRM, on_alarm);
	setitimer(ITIMER_REAL, &each, NULL);
	for (int i = 0; i < 3000 && stopped < 300; i++) {
		struct cosy_fused call = { .op = COSY_OP_COPY,
					   .args = { (unsigned int)from, (unsigned int)to,
						     COPY_BYTES, COSY_WANT_AT } };

		if (ioctl(c.fd, COSY_IOC_FUSED, &call))
			fail("ioctl: %s", strerror(errno));
		if (call.outcome.status && call.outcome.status != -EINTR)
			fail("status %d", call.outcome.status);
		if (call.result < 0 && call.result != -EINTR)
			fail("result %lld", (long long)call.result);
		stopped += call.result != COPY_BYTES;
	}
	setitimer(ITIMER_REAL, &(struct itimerval){ 0 }, NULL);
	if (!stopped)
		fail("no signal stopped a copy");
	close(from);
	close(to);
	unlink("/limits-from");
	unlink("/limits-to");
}

// A blocked call ends by a signal, and is made again when the run goes on.
static void case_restart(void)
{
	struct context c = context_open(4096);
	const struct cosy_insn insns[] = {
		{ .op = COSY_I_ADDI, .dst = 5, .a = 5, .imm = 1 },
		{ .op = COSY_I_CALL, .dst = 4, .a = 1, .imm = SYS_read },
		{ .op = COSY_I_EXIT },
	};
	struct cosy_run r = { .program = load(&c, insns) };
	struct itimerval once = { { 0, 0 }, { 0, 50000 } };
	int ends[2];

	if (pipe(ends))
		fail("pipe");
	r.regs[1] = (unsigned int)ends[0];
	r.regs[2] = 100;
	r.regs[3] = 10;
	signal(SIGALRM, on_alarm);
	alarms = 0;
	setitimer(ITIMER_REAL, &once, NULL);
	run(&c, &r);
	equal("status", r.outcome.status, -EINTR);
	equal("alarms", alarms, 1);
	equal("pc", r.outcome.pc, 1);
	if (write(ends[1], "hello", 5) != 5)
		fail("write");
	r.flags = COSY_RUN_RESUME;
	run(&c, &r);
	equal("status", r.outcome.status, 0);
	equal("read", (long long)r.regs[4], 5);
	equal("counted", (long long)r.regs[5], 1);
	equal("bytes", memcmp(c.buffer + 100, "hello", 5), 0);
}

static int status_of(pid_t child)
{
	int status;

	if (waitpid(child, &status, 0) != child)
		fail("waitpid: %s", strerror(errno));
	return status;
}

static void case_kill(void)
{
	pid_t child = fork();

	if (!child) {
		struct context c = context_open(4096);
		struct cosy_run r = { .program = load(&c, count_turns), .regs[1] = FOREVER };

		for (;;) {
			run(&c, &r);
			r.flags = COSY_RUN_RESUME;
		}
	}
	usleep(300000);
	kill(child, SIGKILL);
	equal("killed by", WTERMSIG(status_of(child)), SIGKILL);
}

// --- who may not -----------------------------------------------------------------------

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

// --- use that is odd --------------------------------------------------------------------

static void case_setup(void)
{
	struct context c = context_open(4096);
	struct cosy_setup setup = { .abi = COSY_MODULE_ABI, .buffer_bytes = 4096 };
	const struct cosy_setup bad[] = {
		{ .abi = COSY_MODULE_ABI + 1, .buffer_bytes = 4096 },
		{ .abi = COSY_MODULE_ABI, .flags = 1, .buffer_bytes = 4096 },
		{ .abi = COSY_MODULE_ABI },
		{ .abi = COSY_MODULE_ABI, .buffer_bytes = 1ull << 40 },
		{ .abi = COSY_MODULE_ABI, .buffer_bytes = ~0ull },
	};
	struct cosy_info info;
	int fd = open(COSY_DEVICE, O_RDWR);

	if (!ioctl(c.fd, COSY_IOC_SETUP, &setup) || errno != EBUSY)
		fail("set up twice");
	if (mmap(NULL, 4096, PROT_READ, MAP_SHARED, c.fd, 0) != MAP_FAILED || errno != EBUSY)
		fail("mapped twice");
	for (size_t i = 0; i < COUNT(bad); i++) {
		setup = bad[i];
		if (!ioctl(fd, COSY_IOC_SETUP, &setup) || errno != EINVAL)
			fail("setup %zu was not refused", i);
	}
	if (mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0) != MAP_FAILED || errno != EINVAL)
		fail("mapped without a buffer");
	if (!ioctl(fd, _IO(0xc5, 99), 0) || errno != ENOTTY)
		fail("unknown request");
	if (ioctl(fd, COSY_IOC_INFO, &info) || info.abi != COSY_MODULE_ABI ||
	    !(info.features & COSY_FEATURE_CALLS))
		fail("info: features %llx", info.features);
	// part of the mapping cannot go away
	setup = (struct cosy_setup){ .abi = COSY_MODULE_ABI, .buffer_bytes = 5000 };
	if (ioctl(fd, COSY_IOC_SETUP, &setup) || setup.buffer_bytes != 8192)
		fail("setup: %s", strerror(errno));
	c.buffer = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (!munmap(c.buffer, 4096) || munmap(c.buffer, 8192))
		fail("munmap");
	c.buffer = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (c.buffer == MAP_FAILED)
		fail("mapped again: %s", strerror(errno));
}

struct other {
	struct context *c;
	volatile int running;
};

static void *run_long(void *arg)
{
	struct other *other = arg;
	struct cosy_run r = { .regs[1] = FOREVER, .limits.deadline_ns = 500000000 };

	other->running = 1;
	while (ioctl(other->c->fd, COSY_IOC_RUN, &r))
		if (errno != EBUSY) // the main thread was a moment earlier
			fail("run: %s", strerror(errno));
	equal("status of the long one", r.outcome.status, -ETIME);
	return NULL;
}

// One context is busy, another is not.
static void case_busy(void)
{
	struct context c = context_open(4096), second = context_open(4096);
	struct other other = { .c = &c };
	struct cosy_run r = { .regs[1] = 3 };
	pthread_t thread;
	int busy = 0;

	load(&c, count_turns);
	load(&second, count_turns);
	pthread_create(&thread, NULL, run_long, &other);
	while (!other.running)
		sched_yield();
	for (int i = 0; i < 1000 && !busy; i++) {
		r.regs[1] = 3;
		busy = ioctl(c.fd, COSY_IOC_RUN, &r) && errno == EBUSY;
		usleep(100);
	}
	equal("busy", busy, 1);
	r = (struct cosy_run){ .regs[1] = 3 };
	run(&second, &r);
	equal("turns", (long long)r.regs[2], 3);
	pthread_join(thread, NULL);
}

static void case_closes_itself(void)
{
	struct context c = context_open(4096);
	const struct cosy_insn insns[] = {
		{ .op = COSY_I_CALL, .dst = 2, .a = 1, .imm = SYS_close },
		{ .op = COSY_I_CALL, .dst = 3, .imm = SYS_getpid },
		{ .op = COSY_I_EXIT },
	};
	struct cosy_run r = { .program = load(&c, insns), .regs[1] = (unsigned int)c.fd };

	munmap(c.buffer, c.bytes);
	run(&c, &r);
	// without the mapping no call is made: its pointers would have no meaning
	equal("close", (long long)r.regs[2], -EFAULT);
	c = context_open(4096);
	r = (struct cosy_run){ .program = load(&c, insns), .regs[1] = (unsigned int)c.fd };
	run(&c, &r);
	equal("status", r.outcome.status, 0);
	equal("close", (long long)r.regs[2], 0);
	equal("getpid", (long long)r.regs[3], getpid());
	if (fcntl(c.fd, F_GETFD) != -1)
		fail("still open");
}

// Calls mean what they mean elsewhere.
static void case_calls(void)
{
	struct context c = context_open(65536);
	const struct cosy_insn insns[] = {
		// r10 = openat(AT_FDCWD, 0, O_CREAT|O_RDWR, 0600)
		{ .op = COSY_I_MOVI, .dst = 1, .imm = AT_FDCWD },
		{ .op = COSY_I_MOVI, .dst = 3, .imm = O_CREAT | O_RDWR },
		{ .op = COSY_I_MOVI, .dst = 4, .imm = 0600 },
		{ .op = COSY_I_CALL, .dst = 10, .a = 1, .imm = SYS_openat },
		// r11 = write(r10, 100, 5)
		{ .op = COSY_I_MOV, .dst = 5, .a = 10 },
		{ .op = COSY_I_MOVI, .dst = 6, .imm = 100 },
		{ .op = COSY_I_MOVI, .dst = 7, .imm = 5 },
		{ .op = COSY_I_CALL, .dst = 11, .a = 5, .imm = SYS_write },
		// r12 = fstat(r10, 1000); r13 = its size
		{ .op = COSY_I_MOVI, .dst = 6, .imm = 1000 },
		{ .op = COSY_I_CALL, .dst = 12, .a = 5, .imm = SYS_fstat },
		{ .op = COSY_I_LD64, .dst = 13, .a = 6, .imm = offsetof(struct stat, st_size) },
		{ .op = COSY_I_CALL, .dst = 14, .a = 5, .imm = SYS_close },
		// r15 = close again
		{ .op = COSY_I_CALL, .dst = 15, .a = 5, .imm = SYS_close },
		// r16 = fstat into what is no memory; r17 = with NULL
		{ .op = COSY_I_MOVI, .dst = 5 },
		{ .op = COSY_I_MOVI, .dst = 6, .imm = 65536 - 143 },
		{ .op = COSY_I_CALL, .dst = 16, .a = 5, .imm = SYS_fstat },
		{ .op = COSY_I_MOVI, .dst = 6, .imm = -1 },
		{ .op = COSY_I_CALL, .dst = 17, .a = 5, .imm = SYS_fstat },
		// r18 = unlinkat(AT_FDCWD, 0, 0)
		{ .op = COSY_I_MOVI, .dst = 3 },
		{ .op = COSY_I_CALL, .dst = 18, .a = 1, .imm = SYS_unlinkat },
		{ .op = COSY_I_CALL, .dst = 19, .a = 1, .imm = SYS_unlinkat },
		{ .op = COSY_I_EXIT },
	};
	struct cosy_run r = { .program = load(&c, insns) };

	strcpy((char *)c.buffer, "/tmp/by-a-compound");
	memcpy(c.buffer + 100, "12345", 5);
	run(&c, &r);
	equal("status", r.outcome.status, 0);
	if ((long long)r.regs[10] < 3)
		fail("openat: %lld", (long long)r.regs[10]);
	equal("write", (long long)r.regs[11], 5);
	equal("fstat", (long long)r.regs[12], 0);
	equal("size", (long long)r.regs[13], 5);
	equal("close", (long long)r.regs[14], 0);
	equal("second close", (long long)r.regs[15], -EBADF);
	equal("fstat out of the buffer", (long long)r.regs[16], -EFAULT);
	equal("fstat to NULL", (long long)r.regs[17], -EFAULT);
	equal("unlinkat", (long long)r.regs[18], 0);
	equal("second unlinkat", (long long)r.regs[19], -ENOENT);
}

// inotify sees the same as with plain calls; a pure read leaves the access time.
static unsigned int events(int inotify)
{
	char buffer[4096];
	ssize_t got = read(inotify, buffer, sizeof(buffer));
	unsigned int all = 0;

	for (ssize_t at = 0; at < got;) {
		struct inotify_event *e = (void *)(buffer + at);

		// merged or not: which kinds, and how many openings
		all |= e->mask & ~IN_OPEN;
		if (e->mask & IN_OPEN)
			all += 0x10000000;
		at += (ssize_t)(sizeof(*e) + e->len);
	}
	return all;
}

static long atime_after(const struct context *c, const char *name, unsigned int flags)
{
	struct timespec old[2] = { { 1000, 0 }, { 2000, 0 } };
	struct cosy_fused call = {
		.op = COSY_OP_FILES,
		.flags = flags,
		.args = { (unsigned int)AT_FDCWD, COSY_WANT_DATA, 4096, 32768, 0, strlen(name) + 1,
			  0, 4096 },
	};
	struct stat st;

	if (utimensat(AT_FDCWD, name, old, 0))
		fail("utimensat: %s", strerror(errno));
	strcpy((char *)c->buffer, name);
	equal("files", fused(c, call).result, 1);
	stat(name, &st);
	return st.st_atime;
}

static void case_traces(void)
{
	struct context c = context_open(65536);
	int inotify = inotify_init1(IN_NONBLOCK), fd;
	unsigned int plain;
	char data[100];

	mkdir("/tmp/traces", 0755);
	for (int i = 0; i < 3; i++) {
		snprintf(data, sizeof(data), "/tmp/traces/%d", i);
		fd = open(data, O_CREAT | O_WRONLY, 0644);
		if (write(fd, "some text", 9) != 9)
			fail("write");
		close(fd);
	}
	inotify_add_watch(inotify, "/tmp/traces", IN_ALL_EVENTS);
	for (int i = 0; i < 3; i++) {
		snprintf(data, sizeof(data), "/tmp/traces/%d", i);
		fd = open(data, O_RDONLY);
		if (read(fd, data, sizeof(data)) != 9)
			fail("read");
		close(fd);
	}
	plain = events(inotify);
	if (plain != 0x30000000 + (IN_ACCESS | IN_CLOSE_NOWRITE))
		fail("plain calls: events %x", plain);
	memcpy(c.buffer, "/tmp/traces/0\0/tmp/traces/1\0/tmp/traces/2", 42);
	fused(&c, (struct cosy_fused){
			  .op = COSY_OP_FILES,
			  .args = { (unsigned int)AT_FDCWD, COSY_WANT_DATA, 4096, 32768, 0, 42, 0,
				    4096 },
		  });
	equal("events", events(inotify), plain);
	if (atime_after(&c, "/tmp/traces/0", 0) == 1000)
		fail("a read left the access time");
	equal("access time after a pure read", atime_after(&c, "/tmp/traces/0", COSY_FUSED_PURE),
	      1000);
	// nothing stays open
	if (unlink("/tmp/traces/0") || unlink("/tmp/traces/1") || unlink("/tmp/traces/2") ||
	    rmdir("/tmp/traces"))
		fail("unlink: %s", strerror(errno));
}

// Partial results of a fused operation are good, and say where to go on.
static void case_partial(void)
{
	struct context c = context_open(1 << 20);
	int fd = open("/proc/self/fd/.", O_RDONLY | O_DIRECTORY), n = 0, rounds = 0;
	struct cosy_fused call = { .op = COSY_OP_ENTRIES };
	const struct cosy_block *block = (const void *)c.buffer;
	char name[32];

	mkdir("/tmp/partial", 0755);
	for (int i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "/tmp/partial/%d", i);
		close(open(name, O_CREAT | O_WRONLY, 0644));
	}
	close(fd);
	fd = open("/tmp/partial", O_RDONLY | O_DIRECTORY);
	call.args[0] = (unsigned int)fd;
	call.args[3] = c.bytes;
	do {
		call.limits.ops = 7;
		call = fused(&c, call);
		if (call.outcome.status && call.outcome.status != -E2BIG)
			fail("status %d", call.outcome.status);
		n += (int)block->n;
		call.args[4] = block->next;
	} while (!(block->flags & COSY_BLOCK_END) && ++rounds < 100);
	equal("entries", n, 100);
	equal("rounds", rounds, 14);
	call.args[1] = 0x8000;
	call = fused(&c, call);
	equal("unknown flag", call.result, -EINVAL);
	call.args[1] = 0;
	call.args[2] = 4;
	equal("unaligned results", fused(&c, call).result, -EFAULT);
	call.args[2] = c.bytes;
	equal("results behind the buffer", fused(&c, call).result, -EFAULT);
	call.args[2] = c.bytes - 8;
	call.args[3] = 8;
	equal("no room for a block", fused(&c, call).result, -ENOSPC);
	call.args[3] = ~0ull;
	equal("too much room", fused(&c, call).result, -EFAULT);
	call.args[0] = 12345;
	call.args[3] = 8;
	equal("no such descriptor", fused(&c, call).result, -EBADF);
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

static void hold(void)
{
	struct context c = context_open(65536);

	load(&c, count_turns);
	printf("held\n");
	fflush(stdout);
	pause();
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} cases[] = {
		{ "refusals", case_refusals },
		{ "arithmetic", case_arithmetic },
		{ "faults", case_faults },
		{ "ops", case_ops },
		{ "deadline", case_deadline },
		{ "signal", case_signal },
		{ "signal-copy", case_signal_copy },
		{ "restart", case_restart },
		{ "kill", case_kill },
		{ "seccomp", case_seccomp },
		{ "ptrace", case_ptrace },
		{ "attach", case_attach },
		{ "fork", case_fork },
		{ "setup", case_setup },
		{ "busy", case_busy },
		{ "calls", case_calls },
		{ "closes-itself", case_closes_itself },
		{ "landlock", case_landlock },
		{ "traces", case_traces },
		{ "partial", case_partial },
	};

	self = argv[0];
	if (argc == 3 && !strcmp(argv[1], "inherited"))
		inherited(atoi(argv[2]));
	if (argc == 2 && !strcmp(argv[1], "hold"))
		hold();
	for (size_t i = 0; i < COUNT(cases); i++) {
		bool wanted = argc == 1;

		for (int k = 1; k < argc; k++)
			wanted = wanted || !strcmp(argv[k], cases[i].name);
		if (!wanted)
			continue;
		cases[i].run();
		printf("%s\n", cases[i].name);
		fflush(stdout);
	}
	return 0;
}
