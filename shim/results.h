/* SPDX-License-Identifier: MIT */
/*
 * What executors returned, and the way to one child's record. Memory for
 * results is fixed; a reference to results that made room is simply dead.
 * All of it wants the lock of fence.h.
 */
#ifndef COSY_RESULTS_H
#define COSY_RESULTS_H

#include "cosy_stats.h"
#include "executor.h"
#include "fence.h"
#include "name.h"
#include "sys.h"

/* Results, while they last. */
struct results_ref {
	struct results *at; /* NULL: none */
	u32 generation;
};

/* What counts as the moment of a run: taken before it. */
struct run_start {
	u64 epoch, tsc;
	u64 touches[2]; /* by enum touch */
};

/* What the runs of one firing told: records of children of one directory. */
struct results {
	u32 generation;
	u16 compound; /* that this came from */
	struct work *work; /* and all about it, see serve.h */
	u16 site; /* --stats: number of the call site that made it run */
	struct run_start start;
	u32 dev, blksize, mnt_id, sb_flags; /* of the directory, see struct cosy_bpf_run */
	u64 st_dev; /* as stat tells it */
	u32 *index; /* by hash: record offset / 8 + 1, bits of hash, 8 bits `served` */
	u32 mask; /* places of the index, minus 1 */
	u8 *data; /* behind the index */
	u32 used, room; /* bytes of data */
	u32 records, most; /* that there are, that the index takes */
	u32 fresh; /* records that answered nothing yet */
};

/* A child's record. */
struct record {
	struct results *results;
	const struct cosy_bpf_child *child;
	u32 *served; /* bits 24..31: kinds of call answered */
};

/* Its name, padded with NULs to whole words. */
static inline const u64 *child_name(const struct cosy_bpf_child *child)
{
	return (const u64 *)(child + 1);
}

static inline bool is_named(const struct cosy_bpf_child *child, const struct name_at *name)
{
	return child->namelen == name->len && name_equal(name, child_name(child));
}

/* st_dev and st_rdev as the kernel writes them (new_encode_dev). */
static inline u64 st_dev(u32 dev)
{
	u32 major = dev >> 20, minor = dev & 0xfffff;

	return (minor & 0xff) | major << 8 | (u64)(minor & ~0xffu) << 12;
}

HIDDEN bool results_start(void);
HIDDEN void results_begin(struct run_start *start);
/* Lock-free: may anything be answered from results at this moment? */
HIDDEN bool results_alive(void);
/* When the last run began. */
HIDDEN u64 results_tsc(void);
/* Where the executor writes; used again by the next run. */
HIDDEN struct run_buffers *results_staging(void);
/* Empty ones, for at most so many records of so many bytes, in place of the oldest. */
HIDDEN struct results_ref results_open(const struct run_start *start, u16 compound,
				       struct work *work, u32 records, u32 bytes);
/* A run is done: check every offset, keep a copy. False: nonsense, or full. */
HIDDEN bool results_add(struct results *r, const struct run_buffers *from);
/* No more will come; of the directory the kernel was `asked` for so many before: these are told in vain. */
HIDDEN void results_close(struct results *r, u32 asked);
/* Others come in their place. */
HIDDEN void results_give_up(struct results_ref ref);
/* Records of the last run's epoch, whatever their directory, that answered nothing yet. */
extern HIDDEN struct waiting {
	u64 epoch;
	u32 records;
} waiting;
static inline bool waits(const struct results *r)
{
	return r->start.epoch == waiting.epoch;
}

/* A record of these answers for the first time. */
static inline void results_asked(struct results *r)
{
	if (!r->fresh)
		return;
	r->fresh--;
	if (waits(r))
		waiting.records--;
}
/* NULL: they made room for others. */
static inline struct results *results_of(struct results_ref ref)
{
	return ref.at && ref.at->generation == ref.generation ? ref.at : NULL;
}

/* Whatever their age. */
HIDDEN bool results_lookup(struct results *r, const struct name_at *name, struct record *to);
/* COSY_DECLINES: found, and it holds. */
HIDDEN enum cosy_decline results_find(struct results_ref ref, const struct name *name,
				      struct record *to);
/* In ticks of the time stamp counter; an underestimate at first. */
extern HIDDEN u64 max_age_ticks;
/* Is it still of this epoch and young enough? COSY_DECLINES: yes. */
static inline enum cosy_decline results_fresh(const struct results *r)
{
	if (unlikely(r->start.epoch != epoch_now()))
		return COSY_DECLINE_EPOCH;
	if (unlikely(rdtsc() - r->start.tsc > max_age_ticks && fence_on(FENCE_MAX_AGE)))
		return COSY_DECLINE_AGE;
	return COSY_DECLINES;
}
/* Since the process began, or the one that it is a child of. */
HIDDEN void results_clock(u64 *ticks, u64 *ns);

#endif
