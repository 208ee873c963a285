/* SPDX-License-Identifier: MIT */
/*
 * What was opened last may be a FIFO, whose open is news of another process and so ends
 * the epoch. Most programs ask themselves what they opened (fstat): to have asked before
 * them would double what that costs. So the question waits, until they ask or something
 * is about to be answered.
 */
#ifndef COSY_OPENED_H
#define COSY_OPENED_H

#include <sys/stat.h>

#include "sys.h"

extern HIDDEN u32 opened_unknown; /* the descriptor, plus 1; 0: none */

/* It was just opened, and nobody knows as what. */
HIDDEN void opened_later(u32 fd);
HIDDEN COLD void opened_ask(void);

/* Before anything is answered, and before a run begins. */
static inline void opened_settle(void)
{
	if (unlikely(__atomic_load_n(&opened_unknown, __ATOMIC_ACQUIRE)))
		opened_ask();
}

/* These are about to be closed or replaced. */
static inline void opened_closing(u32 first, u32 last)
{
	u32 fd = __atomic_load_n(&opened_unknown, __ATOMIC_ACQUIRE);

	if (unlikely(fd > first && fd - 1 <= last))
		opened_ask();
}

/* The kernel told the program what `fd` is. */
HIDDEN void opened_told(u32 fd, const struct stat *st);

#endif
