/* SPDX-License-Identifier: MIT */
/* Which call sites gain and which waste, for --stats: nothing here runs without it. */
#ifndef COSY_SITES_H
#define COSY_SITES_H

#include "stats.h"

/* Libraries that are there at the start; while there is one thread. */
HIDDEN void sites_start(void);
/* This call made a compound run, which told so many results; its number, for sites_served(). */
HIDDEN u16 sites_fired(const struct regs *r, u32 results);
/* This call was answered; `first`: nothing was from this result, of a run from site number `by`. */
HIDDEN void sites_served(const struct regs *r, u16 by, bool first);

#endif
