// SPDX-License-Identifier: MIT
/*
 * The eBPF executor (kmod/bpf/): one prctl() per directory. The shim holds no
 * descriptor for it: programs close all they find, and count those they get.
 */
#include "executor.h"

#include <asm/unistd_64.h>
#include <errno.h>
#include <linux/bpf.h>
#include <sys/random.h>

#include "answer.h"
#include "syscall_table.h"

#define PIDFD_THREAD 0200 /* O_EXCL: any thread, not only the first (Linux 6.9) */

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
	return names_xattr(nr);
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

// Proves to the program that the memory is ours; of this process, its children take another.
static u64 cookie(void)
{
	static u64 secret, owner;
	u64 pid = (u64)sys(__NR_getpid);

	if (owner != pid || !secret) {
		if (sys(__NR_getrandom, &secret, sizeof(secret), GRND_NONBLOCK) != sizeof(secret))
			return 0;
		secret |= 1;
		owner = pid;
	}
	return secret;
}

// The program's memory, for this thread. Descriptors are held for the moment only.
static long register_memory(struct run_buffers *to)
{
	struct cosy_bpf_buffers value = { .run = &to->run };
	union bpf_attr attr;
	int map, self;
	long ret;

	to->run.cookie = cookie();
	if (!to->run.cookie)
		return -EAGAIN;
	for (u32 i = 0; i < COSY_BPF_PAGES; i++)
		value.pages[i] = &to->pages[i];
	memset(&attr, 0, sizeof(attr));
	attr.pathname = (u64)COSY_BPF_PIN_BUFFERS;
	map = (int)sys(__NR_bpf, BPF_OBJ_GET, &attr, sizeof(attr));
	if (map < 0)
		return map;
	self = (int)sys(__NR_pidfd_open, sys(__NR_gettid), PIDFD_THREAD);
	memset(&attr, 0, sizeof(attr));
	attr.map_fd = (u32)map;
	attr.key = (u64)&self;
	attr.value = (u64)&value;
	ret = self < 0 ? self : sys(__NR_bpf, BPF_MAP_UPDATE_ELEM, &attr, sizeof(attr));
	sys(__NR_close, map);
	if (self >= 0)
		sys(__NR_close, self);
	return ret;
}

static bool ask(struct run_buffers *to, int dirfd, u32 skip)
{
	u64 cookie = to->run.cookie;

	memset(&to->run, 0, sizeof(to->run));
	to->run.cookie = cookie;
	to->run.status = COSY_BPF_NOT_RUN;
	sys(__NR_prctl, COSY_BPF_OPTION, cookie, dirfd, skip, 0);
	return to->run.status != COSY_BPF_NOT_RUN;
}

long bpf_run(struct run_buffers *to, int dirfd, u32 skip)
{
	long ret;

	_Static_assert(offsetof(struct run_buffers, pages) == PAGE_SIZE &&
			       sizeof(struct cosy_bpf_page) == PAGE_SIZE,
		       "nothing may cross a page's end");
	// The memory is registered by thread, and not inherited.
	if (ask(to, dirfd, skip))
		return 0;
	ret = register_memory(to);
	if (ret < 0)
		return ret;
	return ask(to, dirfd, skip) ? 0 : -ENOENT;
}
