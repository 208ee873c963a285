/* SPDX-License-Identifier: MIT */
/*
 * The two lines of /proc/PID/status (proc_pid_status(5)) that say whether a
 * task is watched, for the shim and for cosy-auto. The text is taken piece by piece: the
 * lines lie far apart, and stacks may be small.
 */
#ifndef COSY_TASK_STATUS_H
#define COSY_TASK_STATUS_H

#include <stddef.h>
#include <stdint.h>

#define TASK_STATUS_PIECE 512

enum {
	TASK_TRACED = 1, /* ptrace */
	TASK_FILTERED = 2, /* seccomp */
};

struct task_status {
	uint32_t watched; /* TASK_*: all that is not ruled out so far */
	uint32_t at[2]; /* how much of each line was there */
};

static inline void task_status_init(struct task_status *s)
{
	*s = (struct task_status){ .watched = TASK_TRACED | TASK_FILTERED };
}

static inline void task_status_take(struct task_status *s, const char *text, size_t n)
{
	static const char *const clean[] = { "\nTracerPid:\t0\n", "\nSeccomp:\t0\n" };

	for (size_t i = 0; i < n && s->watched; i++) {
		for (uint32_t k = 0; k < 2; k++) {
			// A line's end is the only place where a line begins.
			if (text[i] == clean[k][s->at[k]])
				s->at[k]++;
			else
				s->at[k] = text[i] == '\n';
			if (clean[k][s->at[k]])
				continue;
			s->watched &= ~(1u << k);
			s->at[k] = 1;
		}
	}
}

#endif
