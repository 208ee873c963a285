/* SPDX-License-Identifier: MIT */
/* Counters for --stats: a shared page when asked for, nowhere otherwise. */
#ifndef COSY_SHIM_STATS_H
#define COSY_SHIM_STATS_H

#include "cosy_stats.h"
#include "sys.h"

extern HIDDEN struct cosy_stats *cosy_stats;

HIDDEN void stats_open(void);

#define stats_add(field, n)                                                                        \
	do {                                                                                       \
		if (unlikely(cosy_stats))                                                          \
			__atomic_fetch_add(&cosy_stats->field, (n), __ATOMIC_RELAXED);             \
	} while (0)

static inline void stats_native(enum cosy_native_reason reason)
{
	stats_add(native[reason], 1);
}

static inline void stats_decline(enum cosy_decline reason)
{
	stats_add(declines[reason], 1);
}

#endif
