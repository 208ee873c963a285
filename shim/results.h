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
	u32 block; /* offset in data[] */
};

struct chunk {
	u32 generation;
	u16 compound; /* that this came from */
	u16 size; /* of the buffer handed to the executor */
	u16 mask; /* places of the index in use, minus 1 */
	u64 epoch, tsc; /* before the run */
	u64 touches[3]; /* before the run; by enum touch */
	u32 n; /* children */
	u32 unserved; /* of them never answered yet */
	u32 answers; /* calls answered */
	struct block_ref next; /* the rest of a large directory */
};

/* A child's record, with what is said once for all children. */
struct record {
	struct chunk *chunk;
	const struct cosy_bpf_run *run;
	const struct cosy_bpf_child *child;
	u32 *served; /* bits 16..31: kinds of call answered */
};

HIDDEN bool results_start(void);
/* The chunk that will be missed least. */
HIDDEN struct chunk *results_oldest(u64 epoch);
/* Make it new, to be filled by a run that starts now. */
HIDDEN void results_take(struct chunk *c, u64 epoch, u64 tsc);
HIDDEN struct cosy_bpf_run *results_buffer(const struct chunk *c);
/* The run is done: check every offset, build the index. False: nonsense. */
HIDDEN bool results_keep(struct chunk *c, struct block_ref *ref);
HIDDEN struct chunk *results_chunk(struct block_ref ref);
/* COSY_DECLINES: found. */
HIDDEN enum cosy_decline results_find(struct block_ref ref, const char *name, u32 len,
				      struct record *to);
/* The block of a subdirectory that came along; false: it did not. */
HIDDEN bool results_below(const struct record *r, struct block_ref *to);
/* Is it still of this epoch and young enough? COSY_DECLINES: yes. */
HIDDEN enum cosy_decline results_fresh(const struct chunk *c);
/* Ticks of the time stamp counter in max_age; an underestimate at first. */
HIDDEN u64 max_age_ticks(void);

#endif
