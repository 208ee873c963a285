// SPDX-License-Identifier: MIT
/* The start of every process, and the mode that only interposes. */
#include <asm/unistd_64.h>
#include <sys/mman.h>

#include "compound.h"
#include "shim.h"
#include "stats.h"
#include "watch.h"

u8 cosy_actions[COSY_ACTIONS] AT_START;

static void pass_before(struct regs *r);

long (*cosy_hook)(struct regs *r) = pass_call;
void (*cosy_hook_before)(struct regs *r) = pass_before;
void (*cosy_hook_signal)(void *context);

long pass_call(struct regs *r)
{
	switch (r->nr) {
	case __NR_execve:
	case __NR_execveat:
		return follow_exec(r);
	case __NR_mmap:
		return follow_mmap(r);
	case __NR_ptrace:
		note_ptrace(r);
		break;
	case __NR_rt_sigaction:
		return signal_action_passed(r);
	case __NR_prctl:
	case __NR_seccomp:
		return follow_sandbox(r);
	}
	return sys_regs(r);
}

static void pass_before(struct regs *r)
{
	(void)r;
}

long follow_mmap(struct regs *r)
{
	long ret = sys_regs(r);

	if (r->a[2] & PROT_EXEC && !(r->a[3] & MAP_ANONYMOUS) && !sys_failed(ret) && !sandboxed())
		gates_add((u8 *)ret, r->a[1], (int)r->a[4]);
	return ret;
}

void pass_start(void)
{
	// Nobody else runs yet: hooks first, then the numbers that lead to them.
	cosy_hook = pass_call;
	cosy_hook_before = pass_before;
	memset(cosy_actions, 0, sizeof(cosy_actions));
	cosy_actions[__NR_execve] = 1;
	cosy_actions[__NR_execveat] = 1;
	cosy_actions[__NR_mmap] = 1;
	cosy_actions[__NR_ptrace] = 1;
	cosy_actions[__NR_prctl] = 1;
	cosy_actions[__NR_seccomp] = 1;
	cosy_actions[__NR_clone] = COSY_ACTION_CLONE;
	cosy_actions[__NR_clone3] = COSY_ACTION_CLONE;
	cosy_actions[__NR_vfork] = COSY_ACTION_CLONE;
	actions_changed();
}

__attribute__((constructor)) static void start(int argc, char **argv, char **envp)
{
	(void)argc;
	(void)argv;
	if (!config_take(envp))
		return;
	stats_open();
	pass_start();
	if (!gates_open()) {
		stats_native(COSY_NATIVE_UNPATCHED);
		return;
	}
	if (cosy_config.mode == COSY_MODE_TRACE)
		trace_start();
	else if (cosy_config.mode == COSY_MODE_EXEC)
		exec_start();
}
