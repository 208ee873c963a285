// SPDX-License-Identifier: MIT
/*
 * exec: the new program gets the orders again, whatever environment the old
 * one hands it, unless it could not use them, or somebody would see them. A program that would only
 * have two strange variables, or whose loader would complain about our library,
 * gets its environment untouched.
 */
#include <asm/unistd_64.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "adopt.h"
#include "environment.h"
#include "judge.h"
#include "leaf.h"
#include "mem.h"
#include "shim.h"
#include "stats.h"
#include "watch.h"

#define LONGEST (32 * PAGE_SIZE) /* MAX_ARG_STRLEN: the kernel takes no longer variable */
#define ON_STACK 4096 /* bytes for an environment; larger ones go into a mapping */

// From a bad pointer the kernel makes EFAULT, and E2BIG from what is too long. False: leave it to it.
static bool look(struct environment *env, const char *const *envp, size_t *preload_len)
{
	for (; envp; envp++) {
		long len;

		if (!mem_readable(envp, sizeof(*envp)))
			return false;
		if (!*envp)
			break;
		len = mem_strlen(*envp, LONGEST);
		if (len < 0)
			return false;
		environment_take(env, *envp);
		if (env->preload == env->n)
			*preload_len = (size_t)len;
	}
	return true;
}

static bool unlimited(int resource)
{
	u64 limit[2];

	return !sys(__NR_prlimit64, 0, resource, 0, limit) && limit[0] == ~0ul;
}

// The effective ids are not the real ones: ld.so will preload nothing of ours (AT_SECURE).
static bool is_secure(void)
{
	u32 u[3], g[3];

	return sys(__NR_getresuid, &u[0], &u[1], &u[2]) || u[0] != u[1] ||
	       sys(__NR_getresgid, &g[0], &g[1], &g[2]) || g[0] != g[1];
}

// Would ld.so of the new program find our library and have room for it?
static bool library_in_reach(void)
{
	int fd;

	if (!unlimited(RLIMIT_AS) || !unlimited(RLIMIT_DATA))
		return false;
	// Permission alone does not say it: Landlock lets faccessat pass.
	fd = (int)sys(__NR_openat, AT_FDCWD, config_library(), O_RDONLY | O_CLOEXEC);
	if (fd >= 0)
		sys(__NR_close, fd);
	return fd >= 0;
}

// Why the program behind `key` runs native for reasons not its own, the cheapest to find out first.
static u32 judge_task(const struct environment *env, u64 key)
{
	if (env->loader_tells)
		return COSY_NATIVE_LOADER;
	if (is_secure())
		return COSY_NATIVE_SETID;
	if (!library_in_reach())
		return COSY_NATIVE_LIMITED;
	if (key && leaf_pointless(key))
		return COSY_NATIVE_LEAF;
	return task_traced() ? COSY_NATIVE_WATCHED : COSY_NATIVE_REASONS;
}

static long exec_native(struct regs *r, u32 reason)
{
	stats_native(reason);
	if (cosy_config.mode == COSY_MODE_TRACE)
		adopt_ask(reason == COSY_NATIVE_SETID);
	return sys_regs(r);
}

struct orders {
	struct regs *r;
	u32 envp; /* argument number */
	const struct environment *env;
	size_t preload_len; /* of the program's LD_PRELOAD, with its name */
	size_t size; /* of the room that it all takes, in bytes */
};

static void orders_init(struct orders *o)
{
	o->size = (o->env->n + ENVIRONMENT_MORE) * sizeof(char *) + sizeof(ENVIRONMENT_PRELOAD) +
		  strlen(config_library()) + sizeof(":") + o->preload_len;
}

/* The environment for the new program: the old one, our library in front of its LD_PRELOAD, and our orders. */
static void write_environment(const struct orders *o, const char **room)
{
	const char *const *from = (const void *)o->r->a[o->envp];
	struct text preload = { .at = (char *)(room + o->env->n + ENVIRONMENT_MORE) };

	preload.size = (size_t)((char *)room + o->size - preload.at);
	text_add(&preload, ENVIRONMENT_PRELOAD);
	text_add(&preload, config_library());
	if (o->env->preload) {
		text_add(&preload, ":");
		text_add(&preload, from[o->env->preload - 1] + sizeof(ENVIRONMENT_PRELOAD) - 1);
	}
	environment_with_orders(o->env, from, preload.at, config_orders(), room);
}

static long exec_with_orders(const struct orders *o, const char **environment)
{
	struct regs call = *o->r;
	long ret;

	call.a[o->envp] = (u64)environment;
	ret = sys_regs(&call);
	if (ret != -7 /* E2BIG */)
		return ret;
	// It was the last straw.
	return exec_native(o->r, COSY_NATIVE_LIMITED);
}

static __attribute__((noinline)) long exec_on_stack(const struct orders *o)
{
	const char **room = __builtin_alloca_with_align(o->size, 8 * sizeof(char *));

	write_environment(o, room);
	return exec_with_orders(o, room);
}

/*
 * The mapping for a large environment goes with the program that exec replaces; a
 * child of vfork would leave it to its parent. The two share this variable: so the
 * thread has it for the next time.
 */
static __thread struct mapping {
	void *at;
	size_t size;
} spare;

static long exec_in_mapping(const struct orders *o)
{
	struct mapping room = spare;

	// A signal handler that executes something itself shall not write into it.
	spare = (struct mapping){ 0 };
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	if (room.size < o->size) {
		if (room.size)
			sys(__NR_munmap, room.at, room.size);
		room.size = PAGE_UP(o->size);
		room.at = (void *)sys(__NR_mmap, 0, room.size, PROT_READ | PROT_WRITE,
				      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (sys_failed((long)room.at))
			return exec_native(o->r, COSY_NATIVE_LIMITED);
	}
	write_environment(o, room.at);
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	spare = room;
	return exec_with_orders(o, room.at);
}

static __attribute__((noinline)) long exec_judged(struct regs *r, u64 key)
{
	struct environment env = { 0 };
	struct orders o = { .r = r, .envp = r->nr == __NR_execveat ? 3 : 2, .env = &env };
	u32 reason;

	// What is known of memory may be old: nobody watches it in all modes.
	mem_forget_all();
	if (!look(&env, (const void *)r->a[o.envp], &o.preload_len))
		return sys_regs(r);
	// Whoever set orders itself knows what it does: cosy-auto within cosy-auto.
	if (env.orders)
		return sys_regs(r);
	reason = judge_task(&env, key);
	if (reason != COSY_NATIVE_REASONS)
		return exec_native(r, reason);
	orders_init(&o);
	return o.size <= ON_STACK ? exec_on_stack(&o) : exec_in_mapping(&o);
}

long follow_exec(struct regs *r)
{
	bool at = r->nr == __NR_execveat;
	const char *path = (const void *)r->a[at ? 1 : 0];
	u32 reason;
	u64 key;

	// All that it may still do is what the program does itself.
	if (sandboxed()) {
		stats_native(COSY_NATIVE_SANDBOX);
		return sys_regs(r);
	}
	reason = path ? judge_program(at ? (int)r->a[0] : AT_FDCWD, path, at ? (int)r->a[4] : 0,
				      &key) :
			JUDGE_ABSENT;
	if (reason == JUDGE_ABSENT)
		return sys_regs(r);
	leaf_execs();
	return reason == COSY_NATIVE_REASONS ? exec_judged(r, key) : exec_native(r, reason);
}
