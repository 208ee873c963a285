/* SPDX-License-Identifier: MIT */
/* Cases of kmod_limits: what stops a run, and how it goes on. */
#ifndef LIMITS_STOP_H
#define LIMITS_STOP_H

#include <signal.h>
#include <sys/time.h>

#include "limits_common.h"

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

#endif
