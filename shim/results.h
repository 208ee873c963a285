/* SPDX-License-Identifier: MIT */
/*
 * What executors returned, and the way to one child's record. Chunks are a
 * fixed pool; a reference to a chunk that was reused since is simply dead.
 * All of it wants the lock of fence.h.
 */
#ifndef COSY_RESULTS_H
#define COSY_RESULTS_H

#include "cosy_stats.h"
#include "executor.h"
#include "sys.h"

/* A chunk, while it lasts. */
struct chunk_ref {
	u32 chunk; /* index + 1; 0: none */
	u32 generation;
};

/* What counts as the moment of a run: taken before it. */
struct run_start {
	u64 epoch, tsc;
	u64 touches[2]; /* by enum touch */
};

/* What one run told: records of children of one directory. */
struct chunk {
	u32 generation;
	u16 compound; /* that this came from */
	u16 mask; /* places of the index, minus 1 */
	struct run_start start;
	u32 dev, blksize, mnt_id, sb_flags; /* of the directory, see struct cosy_bpf_run */
	u8 *data;
	u32 *index; /* by hash: record offset / 8 + 1, 8 bits of hash, 8 of `served` */
	u32 bytes; /* of both */
	struct chunk_ref next; /* the rest of a large directory */
};

/* A child's record. */
struct record {
	struct chunk *chunk;
	const struct cosy_bpf_child *child;
	u32 *served; /* bits 24..31: kinds of call answered */
};

HIDDEN bool results_start(void);
HIDDEN void results_begin(struct run_start *start);
/* Lock-free: may anything be answered from results at this moment? */
HIDDEN bool results_alive(void);
/* Where the executor writes; used again by the next run. */
HIDDEN struct run_buffers *results_staging(void);
/*
 * The run is done: check every offset, keep a copy, build the index. False:
 * nonsense.
 */
HIDDEN bool results_keep(const struct run_start *start, u16 compound, struct chunk_ref *ref);
HIDDEN struct chunk *results_chunk(struct chunk_ref ref);
/* COSY_DECLINES: found. */
HIDDEN enum cosy_decline results_find(struct chunk_ref ref, const char *name, u32 len,
				      struct record *to);
/* Is it still of this epoch and young enough? COSY_DECLINES: yes. */
HIDDEN enum cosy_decline results_fresh(const struct chunk *c);
/* Ticks of the time stamp counter in max_age; an underestimate at first. */
HIDDEN u64 max_age_ticks(void);

#endif
