/* SPDX-License-Identifier: MIT */
/* The raw trace file of one thread (kmod/uapi/cosy_trace.h). */
#ifndef COSY_TRACE_FILE_H
#define COSY_TRACE_FILE_H

#include "cosy_trace.h"
#include "sys.h"

// Small, so that the two or three which a busy thread goes round in stay in a processor's own cache.
#define LIVE_SIZE (64 * 1024)
#define EVENTS 384
#define LIVE_HEAP (sizeof(struct cosy_trace_block) + EVENTS * sizeof(struct cosy_trace_event))
#define HEAP_SIZE (LIVE_SIZE - LIVE_HEAP)

// A thread that has filled this many blocks wants them taken away by whoever records, so that it
// writes into the same pages again: new ones are half of what an event costs.
#define BLOCKS_ALONE 8
// As many as leave the recorder time (tracer/drain.py).
#define SLOTS 24

extern HIDDEN struct cosy_trace_header *first_file; /* takes the losses of threads without one */

static inline struct cosy_trace_block *file_block(const struct cosy_trace_header *file, u32 slot)
{
	return (void *)((u8 *)file + COSY_TRACE_PAGE + (u64)slot * LIVE_SIZE);
}

static inline struct cosy_trace_block *file_live(const struct cosy_trace_header *file)
{
	return file_block(file, file->live);
}

typedef u64 __attribute__((may_alias)) u64_alias;

/* n_events and, in the upper half, heap_bytes: both change in one, so that signal handlers may write. */
static inline u64_alias *block_used(struct cosy_trace_block *b)
{
	_Static_assert(offsetof(struct cosy_trace_block, heap_bytes) ==
			       offsetof(struct cosy_trace_block, n_events) + sizeof(u32),
		       "one word");
	return (u64_alias *)&b->n_events;
}

/* NULL: there can be none. */
HIDDEN struct cosy_trace_header *file_create(void);
/* A new live block, if need be in the place of the oldest; if that can be kept nowhere its events are lost. */
HIDDEN void file_flush(struct cosy_trace_header *h);
/* In good order; the mapping goes, too. */
HIDDEN void file_close(struct cosy_trace_header *h);
/* Events that could not be kept; `file` may be NULL. */
HIDDEN void file_lose(struct cosy_trace_header *file, u64 events);

#endif
