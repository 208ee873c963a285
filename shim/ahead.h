/* SPDX-License-Identifier: MIT */
/*
 * Directories read ahead. Once compounds run in one directory of a tree after the other, a
 * thread of our own opens those that come next, reads their entries and lets the executor run over
 * them, on another processor. When the program opens such a directory the kernel opens it for it, but
 * its entries and the executor's records are there: they are answers like any other, of the moment
 * at which the thread began to read (docs/consistency.md, "Directories read ahead").
 *
 * The thread has descriptors and a working directory of its own, blocks all signals and calls nothing
 * but the kernel. It is gone before any call that would make a difference between a process of
 * one thread and of two.
 */
#ifndef COSY_AHEAD_H
#define COSY_AHEAD_H

#include "dirs.h"
#include "executor.h"
#include "sys.h"

/* There is such a thread: every call that is looked at comes through ahead_before(). */
extern HIDDEN bool ahead_on;
/* Bytes of entries that the program asked for last. */
extern HIDDEN u32 ahead_size;

/* A compound ran over a directory: so many of them make a walk. */
HIDDEN void ahead_walked(void);
/*
 * The program opened `d`, the child of `parent` of this name. Its own entries may be there, or
 * the thread begins with those that follow it. With the lock.
 */
HIDDEN void ahead_opened(struct dir_slot *d, const struct child *as);
/*
 * getdents64() of a directory that was read ahead. True: *ret is the answer; else the kernel is to
 * be asked, whose position is right.
 */
HIDDEN bool ahead_entries(const struct regs *r, long *ret);
/* What the executor said of it; NULL: nothing that holds. *start: when. */
HIDDEN const struct run_buffers *ahead_runs(const struct dir_slot *d, struct run_start *start);
/* The slot is about to be used for another directory, or its descriptors will not be known any more. */
HIDDEN void ahead_leave(struct dir_slot *d);
/* The same for the directory of a descriptor that is about to be shared where nobody looks. */
HIDDEN void ahead_leave_fd(u64 fd);
/* Lock-free: descriptors that are about to be closed or replaced. */
HIDDEN void ahead_closed(u64 first, u64 last);
static inline void ahead_closing(u64 first, u64 last)
{
	if (unlikely(ahead_on))
		ahead_closed(first, last);
}
/* While ahead_on: before any call that is looked at. */
HIDDEN void ahead_before(const struct regs *r);
/* While ahead_on: may this call make a difference? */
HIDDEN bool ahead_wants(u64 nr);
/* The kernel knows all again that the program may know, and there is no thread any more. */
HIDDEN void ahead_stop(void);

/* exec.c */
/* Is this thread the only one, and was it always? */
HIDDEN bool exec_single(void);
/* The calls that ahead_wants() are looked at from now on, or no more. */
HIDDEN void exec_watch_ahead(void);

#endif
