/* SPDX-License-Identifier: MIT */
/*
 * What executors returned, and the way to one child's record. Chunks are a
 * fixed pool; a reference to a chunk that was reused since is simply dead.
 * All of it wants the lock of fence.h.
 */
#ifndef COSY_RESULTS_H
#define COSY_RESULTS_H

#include "cosy_bpf.h"
#include "cosy_stats.h"
#include "sys.h"

/* A directory's block within a chunk. */
struct block_ref {
	u16 chunk; /* index + 1; 0: none */
	u32 generation;
	u32 block, end; /* offsets in data[] */
};

/* What counts as the moment of a run: taken before it. */
struct run_start {
	u64 epoch, tsc;
	u64 touches[2]; /* by enum touch */
};

struct chunk {
	u32 generation;
	u16 compound; /* that this came from */
	u16 mask; /* places of the index, minus 1 */
	struct run_start start;
	struct cosy_bpf_run *run;
	u32 *index; /* by hash: record offset / 8 + 1, 8 bits of hash, 8 of `served` */
	u32 bytes; /* of both */
	struct block_ref next; /* the rest of a large directory */
};

/* A child's record, with what is said once for all children. */
struct record {
	struct chunk *chunk;
	const struct cosy_bpf_run *run;
	const struct cosy_bpf_child *child;
	u32 *served; /* bits 24..31: kinds of call answered */
};

/* Which directory a record is about; holds when the record itself has made room for others. */
struct dir_key {
	u64 ino;
	u32 dev, mnt_id;
};

static inline struct dir_key dir_key(const struct record *r)
{
	return (struct dir_key){ r->child->ino, r->run->dev, r->run->mnt_id };
}

HIDDEN bool results_start(void);
HIDDEN void results_begin(struct run_start *start);
/* Lock-free: may anything be answered from results at this moment? */
HIDDEN bool results_alive(void);
/* Where the executor writes: COSY_BPF_LARGE bytes, used again by the next run. */
HIDDEN struct cosy_bpf_run *results_staging(void);
/*
 * The run is done, in a buffer of `size` bytes: check every offset, keep a
 * copy, build the index. False: nonsense.
 */
HIDDEN bool results_keep(const struct run_start *start, u32 size, u16 compound,
			 struct block_ref *ref);
HIDDEN struct chunk *results_chunk(struct block_ref ref);
/* COSY_DECLINES: found. */
HIDDEN enum cosy_decline results_find(struct block_ref ref, const char *name, u32 len,
				      struct record *to);
/* The block of that directory, if it came along in some chunk. */
HIDDEN bool results_below(struct dir_key key, struct block_ref *to);
/* Is it still of this epoch and young enough? COSY_DECLINES: yes. */
HIDDEN enum cosy_decline results_fresh(const struct chunk *c);
/* Ticks of the time stamp counter in max_age; an underestimate at first. */
HIDDEN u64 max_age_ticks(void);

#endif
