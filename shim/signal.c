// SPDX-License-Identifier: MIT
/*
 * A delivered signal is news, and may begin calls again. Handlers are entered through
 * cosy_signal_entry; the program sees and gets only its own pointers.
 */
#include <asm/unistd_64.h>
#include <signal.h>

#include "mem.h"
#include "shim.h"

#define SIGSET_SIZE 8
#define FIRST_LIBC_SIGNAL 32 // glibc's own two: cancellation and set*id in all threads
#define LAST_LIBC_SIGNAL 33

void *cosy_handlers[65];

struct kernel_sigaction {
	void *handler;
	u64 flags;
	void *restorer;
	u64 mask;
};

static bool is_function(const void *handler)
{
	return handler != (void *)SIG_DFL && handler != (void *)SIG_IGN;
}

// With all signals blocked: the table and the kernel must change as one.
static long action_set(u64 sig, const struct kernel_sigaction *act, struct kernel_sigaction *old)
{
	struct kernel_sigaction ours = *act, before;
	void *was = cosy_handlers[sig];
	u64 all = ~0ul, mask;
	long ret;

	sys(__NR_rt_sigprocmask, SIG_SETMASK, &all, &mask, SIGSET_SIZE);
	if (is_function(act->handler)) {
		__atomic_store_n(&cosy_handlers[sig], act->handler, __ATOMIC_RELEASE);
		ours.handler = cosy_signal_entry;
	}
	ret = sys(__NR_rt_sigaction, sig, &ours, &before, SIGSET_SIZE);
	if (ret)
		__atomic_store_n(&cosy_handlers[sig], was, __ATOMIC_RELEASE);
	sys(__NR_rt_sigprocmask, SIG_SETMASK, &mask, 0, SIGSET_SIZE);
	if (ret)
		return ret;
	if (before.handler == cosy_signal_entry)
		before.handler = was;
	*old = before;
	return 0;
}

long signal_action(struct regs *r, bool ours)
{
	const struct kernel_sigaction *act = (const void *)r->a[1];
	struct kernel_sigaction *old = (void *)r->a[2], new, before;
	u64 sig = r->a[0];
	long ret;

	if (sig < 1 || sig > 64 || sig == SIGKILL || sig == SIGSTOP || r->a[3] != SIGSET_SIZE ||
	    (sig >= FIRST_LIBC_SIGNAL && sig <= LAST_LIBC_SIGNAL))
		return sys_regs(r);
	if (act && !mem_readable(act, sizeof(*act)))
		return sys_regs(r);
	// The two may be the same memory, which the next probe writes to.
	if (act)
		new = *act;
	if (old && !mem_writable(old, sizeof(*old)))
		return sys_regs(r);
	if (act && ours) {
		ret = action_set(sig, &new, &before);
		if (!ret && old)
			*old = before;
		return ret;
	}
	// A vfork child sets its own disposition, but must not touch our table.
	ret = sys(__NR_rt_sigaction, sig, act ? &new : NULL, old, SIGSET_SIZE);
	if (!ret && old && old->handler == cosy_signal_entry)
		old->handler = cosy_handlers[sig];
	return ret;
}

long signal_action_passed(struct regs *r)
{
	struct kernel_sigaction *old = (void *)r->a[2];
	long ret = sys_regs(r);

	// The kernel has just written there: no probe, which a filter might not like.
	if (!ret && old && old->handler == cosy_signal_entry)
		old->handler = cosy_handlers[r->a[0]];
	return ret;
}
