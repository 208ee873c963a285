/* SPDX-License-Identifier: (GPL-2.0 WITH Linux-syscall-note) OR MIT */
/*
 * What the shim's tracing mode leaves behind: one file per thread and program
 * image in the trace folder, named PID.TID.TSC.raw (TSC: 16 hex digits, the
 * time of the thread's first event). tracer/raw.py reads them.
 *
 *   0                          struct cosy_trace_header, one page
 *   4096                       live blocks, mapped by the thread: live_size bytes each
 *   4096 + slots * live_size   flushed blocks, one behind the other
 *
 * A block is a struct cosy_trace_block, n_events events, heap_bytes of heap.
 * A live block's heap lies at its fixed place, live_heap bytes into the
 * block, a flushed block's directly behind its events. A thread that is killed
 * leaves its last events in the live block.
 *
 * At first there is one live block (ring is 1): when it is full it is flushed
 * and begins anew. A thread that has filled some asks whoever records, through
 * the FIFO COSY_TRACE_DRAIN in the folder, to take its blocks away; from then
 * on a full block stays where it is, and the first live block goes on that holds
 * nothing to be kept: as few memory as the recorder is fast. The recorder copies
 * blocks before `filled` into PID.TID.TSC.taken, in the form of flushed blocks, and
 * then raises `taken`. Where it comes too late and all `slots` are full the thread
 * flushes the oldest block itself, and raises `taken`, too: what the recorder copied
 * meanwhile it must throw away. So a block may be in two or three places, with the
 * same seq, and the reader takes one.
 */
#ifndef COSY_TRACE_H
#define COSY_TRACE_H

#include <linux/types.h>

#define COSY_TRACE_MAGIC "COSYRAW\x02"
#define COSY_TRACE_PAGE 4096

/* What a thread writes into the FIFO, in one piece: which file is its own. */
#define COSY_TRACE_DRAIN "drain"
struct cosy_trace_request {
	__u32 pid;
	__u32 tid;
	__u64 start_tsc;
};

/* struct cosy_trace_header.flags */
#define COSY_TRACE_CLOSED 0x1 /* the thread ended its file in good order */

struct cosy_trace_header {
	__u8 magic[8];
	__u32 flags;
	__u32 live_size; /* bytes of a live block */
	__u32 live_heap; /* offset of its heap from its start */
	__u32 pid;
	__u32 tid;
	__u32 ppid;
	/* Two readings of both clocks: events carry the TSC, t_ns is linear in it. */
	__u64 start_tsc;
	__u64 start_ns; /* CLOCK_MONOTONIC */
	__u64 now_tsc; /* of the last flush */
	__u64 now_ns;
	__s64 realtime_ns; /* CLOCK_REALTIME - CLOCK_MONOTONIC at start */
	__u64 lost_events; /* could not be kept: disk full, no memory, sandboxed */
	__u64 flushed_bytes; /* of whole blocks behind the live ones */
	__u32 slots; /* how many live blocks there is room for in front of the flushed ones */
	__u32 ring; /* how many of them are in use */
	__u32 live; /* which of them is being written */
	__u32 asked; /* not 0: a recorder knows of this file */
	__u64 filled; /* seq of the block that is being written */
	__u64 unused[2];
	/* In a cache line of its own: written by the recorder as a rule. */
	__u64 taken; /* blocks before this seq need not be kept any more */
};

struct cosy_trace_block {
	__u64 seq; /* 0, 1, 2, ... within the file */
	__u32 n_events;
	__u32 heap_bytes;
}; /* 16 bytes */

/* struct cosy_trace_event.flags */
#define COSY_EVENT_DONE 0x1 /* written whole; anything else is to be ignored */
#define COSY_EVENT_NO_RETURN 0x2 /* recorded before the call: ret is unknown */
#define COSY_EVENT_CUT 0x4 /* a string or an output was cut to fit */
#define COSY_EVENT_RAW_DIRENTS 0x8 /* out is getdents64's buffer itself (other backends) */

/* struct cosy_trace_event.nr of events that are no system call */
#define COSY_EVENT_PROCESS 0xfff1 /* path: exe, path2: cwd, out: argv, each NUL-ended */
#define COSY_EVENT_MODULE 0xfff2 /* args[0]: load address; path: file name */
/* Of other backends' streams (tracer/stream.py). */
#define COSY_EVENT_LOST 0xfff3 /* args[0]: that many events were lost here */
/*
 * A task has ended; of a process's first one args[0] may be its wait status (args[3] & 1), and args[1]
 * and args[2] its user and system time in ns (args[3] & 2).
 */
#define COSY_EVENT_EXIT 0xfff4

struct cosy_trace_event {
	__u64 tsc; /* at entry */
	__u64 dur; /* TSC ticks inside the call */
	__s64 ret; /* as the kernel returned it: -errno on failure */
	__u64 args[6];
	__u64 site; /* address behind the system call instruction */
	__u16 nr;
	__u16 flags;
	__u32 heap; /* offset of path, path2 and out (in this order) in the heap */
	__u16 path_len; /* first string argument, without NUL */
	__u16 path2_len; /* second string argument: new path, xattr name, ... */
	__u32 out_len; /* what the call returned, by kind of call: see below */
}; /* 96 bytes */

/*
 * Outputs kept with an event:
 *   stat family     struct cosy_out_stat
 *   getdents64      one __u32 per entry but "." and "..": FNV-1a of the name
 *                   with the directory entry type (DT_*) in the lowest 4 bits
 *   pipe, pipe2,    the two new descriptors, a __s32 each
 *   socketpair
 */
struct cosy_out_stat {
	__u64 dev; /* as st_dev */
	__u64 ino;
	__u64 size;
	__u32 mode;
	__u32 nlink;
}; /* 32 bytes */

#define COSY_FNV_BASIS 2166136261u
#define COSY_FNV_PRIME 16777619u

#endif
