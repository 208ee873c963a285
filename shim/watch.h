/* SPDX-License-Identifier: MIT */
/*
 * Whether somebody looks at this task's calls, or sorts them out. What watches a
 * task must see the program's calls only, and a filter may kill for any other.
 */
#ifndef COSY_WATCH_H
#define COSY_WATCH_H

#include "sys.h"
#include "task_status.h"

/* TASK_*, as /proc says: 25 us in a new process. Where it says nothing, all is possible. */
HIDDEN u32 task_watched(void);
/* Is it under ptrace? Asks /proc only if somebody here may be tracing others: else 1 us. */
HIDDEN bool task_traced(void);

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
/* Before a call of ptrace: those who may be traced from now on shall know. */
HIDDEN void note_ptrace(const struct regs *r);

#endif
