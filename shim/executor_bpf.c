// SPDX-License-Identifier: MIT
/*
 * The eBPF executor (kmod/bpf/): one BPF_PROG_RUN per directory. The program
 * is opened from its pin for each run, since the shim holds no descriptor:
 * programs close all they find, and count those they get.
 */
#include "executor.h"

#include <asm/unistd_64.h>
#include <linux/bpf.h>

#include "syscall_table.h"

// An argument that says which entry of D a call is about.
static bool names_entry(const struct cosy_op *op)
{
	bool dir = false, name = false, path = false;

	for (u32 i = 0; i < op->n_args; i++) {
		dir = dir || op->args[i].kind == COSY_ARG_DIR;
		name = name || op->args[i].kind == COSY_ARG_NAME;
		path = path || op->args[i].kind == COSY_ARG_PATH;
	}
	return path || (dir && name);
}

static bool answers_attributes(u32 nr)
{
	const struct cosy_syscall *call = &cosy_syscalls[nr];

	for (u32 i = 0; i < call->n_args; i++)
		if (call->args[i] == COSY_ARGT_STAT_OUT || call->args[i] == COSY_ARGT_STATX_OUT)
			return true;
	return nr == __NR_getxattr || nr == __NR_lgetxattr;
}

bool bpf_can_run(const struct image *im, const struct cosy_compound *c)
{
	const u32 guards = COSY_GUARD_SCANNED | COSY_GUARD_CHILD;

	if (c->flags != COSY_SPECULATIVE || c->loop != COSY_LOOP_ENTRIES ||
	    !(c->executors & COSY_EXECUTOR_BPF) || (c->guards & guards) != guards)
		return false;
	for (u32 i = 0; i < c->n_ops; i++) {
		const struct cosy_op *op = &im->ops[c->first_op + i];

		if (!answers_attributes(op->nr) || !names_entry(op))
			return false;
	}
	return true;
}

static int program_open(const char *pin)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.pathname = (u64)pin;
	return (int)sys(__NR_bpf, BPF_OBJ_GET, &attr, sizeof(attr));
}

long bpf_run(struct cosy_bpf_run *run, u32 size)
{
	union bpf_attr attr;
	long ret;
	int fd = program_open(size == COSY_BPF_SMALL ? COSY_BPF_PIN_SMALL : COSY_BPF_PIN_LARGE);

	if (fd < 0)
		return fd;
	memset(&attr, 0, sizeof(attr));
	attr.test.prog_fd = (u32)fd;
	attr.test.ctx_in = (u64)run;
	attr.test.ctx_size_in = size;
	ret = sys(__NR_bpf, BPF_PROG_TEST_RUN, &attr, sizeof(attr));
	sys(__NR_close, fd);
	return ret;
}
