/* SPDX-License-Identifier: MIT */
/*
 * The consistency contract's bookkeeping (docs/consistency.md): what ends the
 * life of results, for the whole process. Everything here is lock-free, since
 * a fence must never be skipped.
 *
 *  - cosy_epoch: results of another epoch are dead. It is bumped after every
 *    call that may have brought news, before every mutation, and on entry to
 *    every signal handler (entry.S).
 *  - mutations in flight: no compound may run beside one.
 *  - written inodes: never answered from results.
 *  - touches: reads may have moved an access time.
 */
#ifndef COSY_FENCE_H
#define COSY_FENCE_H

#include "shim.h"
#include "stats.h"

/* Fences by name, so that a test build can leave one out (`nofence`). */
enum cosy_fence {
	FENCE_READ_SYNC,
	FENCE_RECV,
	FENCE_WAIT,
	FENCE_FUTEX,
	FENCE_LOCK,
	FENCE_SIGNAL,
	FENCE_POLL,
	FENCE_SLEEP,
	FENCE_OPEN_FIFO,
	FENCE_PROCESS,
	FENCE_MUTATE,
	FENCE_THREAD_MUTATE,
	FENCE_WRITE_INODE,
	FENCE_MMAP_WRITE,
	FENCE_ATIME,
	FENCE_CLOSE_FD,
	FENCE_DUP_FD,
	FENCE_MAX_AGE,
	FENCE_SERVED_ONCE,
	FENCE_OPEN_FILE,
	FENCE_ACCOUNT, /* no fence: what fires only where it pays */
	FENCES
};

#ifdef COSY_FENCE_TESTS
static inline bool fence_on(enum cosy_fence fence)
{
	return !(cosy_config.nofence >> fence & 1);
}
/* -1: no fence of this name */
HIDDEN int fence_by_name(const char *name);
#else
static inline bool fence_on(enum cosy_fence fence)
{
	(void)fence;
	return true;
}
#endif

/* Which attribute times a call may have moved. */
enum touch { TOUCH_FILE, TOUCH_DIR, TOUCHES };

/* Process state that a child of fork must not inherit: wiped there. */
struct ground {
	u32 alive; /* 0: we are a new child */
	u32 lock; /* of the slots and results */
	u64 mutating; /* calls in flight */
	void *door, *files_door, *files; /* executor_module.c */
};
extern HIDDEN struct ground *ground;
extern HIDDEN u64 touches[TOUCHES];
/* Nothing has run yet in this process: there is nothing to protect. */
extern HIDDEN bool armed;

/* Before anything is known that a child of fork must not believe. False: no memory. */
HIDDEN bool fence_start(void);

static inline u64 epoch_now(void)
{
	return __atomic_load_n(&cosy_epoch, __ATOMIC_ACQUIRE);
}

static inline void epoch_end(enum cosy_fence fence)
{
	if (fence_on(fence)) {
		__atomic_fetch_add(&cosy_epoch, 1, __ATOMIC_ACQ_REL);
		stats_add(epochs, 1);
	}
}

static inline void touch(enum touch kind)
{
	__atomic_fetch_add(&touches[kind], 1, __ATOMIC_RELEASE);
}

static inline u64 touched(enum touch kind)
{
	return __atomic_load_n(&touches[kind], __ATOMIC_ACQUIRE);
}

/* One file was read: a narrower touch. was_read() may be wrong in saying yes. */
HIDDEN void read_add(u64 dev, u64 ino);
HIDDEN bool was_read(u64 dev, u64 ino);

/* Around a call that changes names or attributes. */
HIDDEN long mutate(struct regs *r);
static inline bool mutation_in_flight(void)
{
	return __atomic_load_n(&ground->mutating, __ATOMIC_ACQUIRE) != 0;
}

/* A regular file was written, or is mapped for writing. dev as in st_dev. */
HIDDEN void written_add(u64 dev, u64 ino);
/* How many are known; may be above what the sets hold. */
extern HIDDEN u32 n_written, n_mapped;
HIDDEN bool written_search(u64 dev, u64 ino);
static inline bool written(u64 dev, u64 ino)
{
	return unlikely(__atomic_load_n(&n_written, __ATOMIC_ACQUIRE) ||
			__atomic_load_n(&n_mapped, __ATOMIC_ACQUIRE)) &&
	       written_search(dev, ino);
}
/* Mapped for writing, perhaps: like written, for good. False: too many of them. */
HIDDEN bool mapped_add(u64 dev, u64 ino);

/*
 * The one lock: tried, never waited for, since its holder may be the code
 * that the current signal handler interrupted. False: do without.
 */
HIDDEN bool ground_trylock(void);
HIDDEN void ground_unlock(void);
/* May this process bind descriptors and handlers? Not a vfork child: it shares our memory. */
HIDDEN bool ground_ours(void);
/* A vfork is about to happen: from now on ground_ours() asks the kernel. False: no memory for that. */
HIDDEN bool ground_lend(void);

#endif
