// SPDX-License-Identifier: MIT
/* The start of every process, and the mode that only interposes. */
#include <asm/unistd_64.h>
#include <sys/mman.h>

#include "shim.h"
#include "stats.h"

u8 cosy_actions[COSY_ACTIONS] AT_START;

static long pass_hook(struct regs *r);
static void pass_before(struct regs *r);

long (*cosy_hook)(struct regs *r) = pass_hook;
void (*cosy_hook_before)(struct regs *r) = pass_before;

static long pass_hook(struct regs *r)
{
	if (r->nr == __NR_execve || r->nr == __NR_execveat)
		return follow_exec(r);
	return follow_mmap(r);
}

static void pass_before(struct regs *r)
{
	(void)r;
}

long follow_mmap(struct regs *r)
{
	long ret = sys_regs(r);

	if (r->nr == __NR_mmap && r->a[2] & PROT_EXEC && !(r->a[3] & MAP_ANONYMOUS) &&
	    !sys_failed(ret))
		gates_add((u8 *)ret, r->a[1], (int)r->a[4]);
	return ret;
}

void pass_start(void)
{
	// Nobody else runs yet: hooks first, then the numbers that lead to them.
	cosy_hook = pass_hook;
	cosy_hook_before = pass_before;
	memset(cosy_actions, 0, sizeof(cosy_actions));
	cosy_actions[__NR_execve] = 1;
	cosy_actions[__NR_execveat] = 1;
	cosy_actions[__NR_mmap] = 1;
	cosy_actions[__NR_clone] = 1;
	cosy_actions[__NR_clone3] = 1;
	cosy_actions[__NR_vfork] = 1;
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
