/* SPDX-License-Identifier: MIT */
/* The raw trace file of one thread (kmod/uapi/cosy_trace.h). */
#ifndef COSY_TRACE_FILE_H
#define COSY_TRACE_FILE_H

#include "cosy_trace.h"
#include "sys.h"

#define LIVE_SIZE (256 * 1024)
#define EVENTS 1536
#define LIVE_HEAP (sizeof(struct cosy_trace_block) + EVENTS * sizeof(struct cosy_trace_event))
#define HEAP_SIZE (LIVE_SIZE - LIVE_HEAP)

extern HIDDEN struct cosy_trace_header *first_file; /* takes the losses of threads without one */
extern HIDDEN bool sandboxed; /* the program put itself under seccomp: no more opens */

static inline struct cosy_trace_block *file_live(const struct cosy_trace_header *file)
{
	return (void *)((u8 *)file + COSY_TRACE_PAGE);
}

/* NULL: there can be none. */
HIDDEN struct cosy_trace_header *file_create(void);
/* The live block is appended and starts anew; where that fails its events are lost. */
HIDDEN void file_flush(struct cosy_trace_header *h);
/* In good order; the mapping goes, too. */
HIDDEN void file_close(struct cosy_trace_header *h);
/* Events that could not be kept; `file` may be NULL. */
HIDDEN void file_lose(struct cosy_trace_header *file, u64 events);

#endif
