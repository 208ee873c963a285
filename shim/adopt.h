/* SPDX-License-Identifier: MIT */
/* Programs that the shim cannot follow, handed to somebody who watches from outside. */
#ifndef COSY_ADOPT_H
#define COSY_ADOPT_H

#include "sys.h"

/*
 * This thread is about to exec a program that will run native. Whoever made the folder of raw
 * files may want to watch it from there on (tracer/backends/adopt.py): ask, and wait for the
 * answer. Without anybody there, nothing happens. `set_id`: the program has rights of its own,
 * which a watcher without privileges would take away.
 */
HIDDEN void adopt_ask(bool set_id);

/* Is whoever records still there? */
HIDDEN bool adopt_watched(void);

/* Has recording been ended from outside? */
HIDDEN bool adopt_stopped(void);

#endif
