// SPDX-License-Identifier: GPL-2.0
/* How long and how much a run may go on, and who must not be run for at all. */
#include <linux/ktime.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>

#include "cosy.h"

static unsigned int max_deadline_ms = 2000;
module_param(max_deadline_ms, uint, 0644);
MODULE_PARM_DESC(max_deadline_ms, "longest time that one run may take");
static unsigned int max_ops = 16u << 20;
module_param(max_ops, uint, 0644);
MODULE_PARM_DESC(max_ops, "most loop turns, calls and items of one run");

/*
 * Reading the clock costs some 50 instructions, an item at least 500: look every
 * 16 ticks. One tick is bounded: an item of a fused operation, 64 KiB of data, or
 * a stretch of a program without a loop. In front of what is longer the clock is read
 * each time (cosy_tick_long).
 */
#define TICKS_PER_CLOCK 16

bool cosy_is_watched(void)
{
	return (READ_ONCE(current_thread_info()->syscall_work) & COSY_SEEN) ||
	       READ_ONCE(current->ptrace);
}

void cosy_budget_max(struct cosy_info *info)
{
	info->max_deadline_ns = (u64)READ_ONCE(max_deadline_ms) * NSEC_PER_MSEC;
	info->max_ops = READ_ONCE(max_ops);
}

void cosy_budget_init(struct cosy_budget *budget, const struct cosy_limits *limits)
{
	struct cosy_info max;

	cosy_budget_max(&max);
	budget->ops = 0;
	budget->max_ops = limits->ops ? min(limits->ops, max.max_ops) : max.max_ops;
	budget->start_ns = ktime_get_ns();
	budget->deadline_ns = budget->start_ns +
			      (limits->deadline_ns ? min(limits->deadline_ns, max.max_deadline_ns) :
						     max.max_deadline_ns);
	budget->look_at = min_t(u64, budget->max_ops, TICKS_PER_CLOCK);
	budget->closed = 0;
}

int cosy_tick_slow(struct cosy_budget *budget)
{
	if (budget->ops >= budget->max_ops)
		return -E2BIG;
	if (cosy_is_watched())
		return -EPERM;
	if (signal_pending(current))
		return -EINTR;
	cond_resched();
	budget->look_at = min(budget->max_ops, budget->ops + TICKS_PER_CLOCK);
	return ktime_get_ns() >= budget->deadline_ns ? -ETIME : 0;
}
