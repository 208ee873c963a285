/* SPDX-License-Identifier: MIT */
/*
 * Whether somebody looks at this task's calls, or sorts them out. What watches a
 * task must see the program's calls only, and a filter may kill for any other.
 */
#ifndef COSY_WATCH_H
#define COSY_WATCH_H

#include "sys.h"
#include "task_status.h"

/* What /proc says of this task: 6 us. Where it says nothing, all is possible. */
HIDDEN u32 task_watched(void);

/* Filters that this process installed by calls which we saw, or is installing. */
extern HIDDEN u32 filters;

/* Then any call of ours may be the end of the program, /proc's included. */
static inline bool sandboxed(void)
{
	return unlikely(__atomic_load_n(&filters, __ATOMIC_RELAXED));
}

/* Does this call bring a filter, or forbid instructions that we use? */
HIDDEN bool is_sandboxing(const struct regs *r);
/* prctl, seccomp: to the kernel, and remembered if it is one of these. */
HIDDEN long follow_sandbox(struct regs *r);

#endif
