/* SPDX-License-Identifier: MIT */
/* What the cases of kmod_limits share. */
#ifndef LIMITS_COMMON_H
#define LIMITS_COMMON_H

#include <sys/syscall.h>
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

static int status_of(pid_t child)
{
	int status;

	if (waitpid(child, &status, 0) != child)
		fail("waitpid: %s", strerror(errno));
	return status;
}

#endif
