/* SPDX-License-Identifier: (GPL-2.0 WITH Linux-syscall-note) OR MIT */
/*
 * Counters that the shim keeps in a shared file when it was given one
 * (`cosy-auto --stats`). All processes of one run add to the same pages with
 * atomic operations. shim/launcher/report.c prints them.
 */
#ifndef COSY_STATS_H
#define COSY_STATS_H

#include <linux/types.h>

#define COSY_STATS_MAGIC "COSYSTA\x04"

/* Why something ran without us; bits of no meaning outside --stats. */
enum cosy_native_reason {
	COSY_NATIVE_STATIC = 0, /* exec of a program without a dynamic loader */
	COSY_NATIVE_FOREIGN, /* another ABI or another C library */
	COSY_NATIVE_SETID, /* set-id bit, file capabilities, or effective ids that are not the real ones */
	COSY_NATIVE_LIMITED, /* limit of the address space or of arguments, or our library out of reach */
	COSY_NATIVE_SANDBOX, /* the process put itself under seccomp, or starts a program there */
	COSY_NATIVE_WATCHED, /* ptrace, seccomp, audit or AppArmor on this task */
	COSY_NATIVE_IMAGE_ABSENT,
	COSY_NATIVE_IMAGE_OWNER, /* not ours or root's, or writable by others */
	COSY_NATIVE_IMAGE_CORRUPT,
	COSY_NATIVE_NO_EXECUTOR, /* none of the image's executors is here */
	COSY_NATIVE_UNPATCHED, /* the C library's text could not be patched */
	COSY_NATIVE_IO_URING, /* the program drives rings of its own */
	COSY_NATIVE_OWN_CALLS, /* it makes system calls without the C library (Go) */
	COSY_NATIVE_SHARING, /* descriptors or memory shared in a way we cannot follow */
	COSY_NATIVE_SHARED_MAPS, /* too many files mapped for writing */
	COSY_NATIVE_LEAF, /* exec of a program that has never gained and starts no other */
	COSY_NATIVE_LOADER, /* exec where the loader says what it loads: ldd, LD_DEBUG, LD_AUDIT */
	COSY_NATIVE_REASONS
};

enum cosy_decline {
	COSY_DECLINE_STATUS = 0, /* the executor refused the directory */
	COSY_DECLINE_ABSENT, /* the child was not in the result */
	COSY_DECLINE_USED, /* answered once already */
	COSY_DECLINE_EPOCH, /* the epoch had ended */
	COSY_DECLINE_AGE, /* older than max_age */
	COSY_DECLINE_RECORD, /* the record says: ask the kernel */
	COSY_DECLINE_BUSY, /* another thread held the table */
	COSY_DECLINE_WRITTEN, /* the file was written, or may have a new atime */
	COSY_DECLINES
};

#define COSY_STATS_NATIVE 24 /* room for reasons */
#define COSY_STATS_COMPOUNDS 32
#define COSY_STATS_SITES 64

/* A system call instruction, whichever process came by it. */
struct cosy_site {
	__u64 key; /* 0: free */
	__u64 offset; /* of the address behind it, within the module */
	__u64 fired; /* compounds, at a call from here */
	__u64 results; /* of these */
	__u64 used; /* results of these that answered something, anywhere */
	__u64 served; /* calls from here that were answered */
	__u8 module[80]; /* path; empty: too long, or the process died */
};

struct cosy_stats {
	__u8 magic[8];
	__u64 processes; /* program images started under the shim */
	__u64 calls; /* seen by the execution mode's slow hook */
	__u64 epochs; /* ended */
	__u64 runs; /* submissions to an executor */
	__u64 records; /* results it returned */
	__u64 ends; /* of directories, answered since nothing can be behind */
	__u64 ahead_threads; /* that read directories ahead */
	__u64 ahead_begun; /* walks of trees that they were told to go along */
	__u64 ahead_taken; /* directories that they read and the program opened */
	__u64 ahead_runs; /* of these, runs whose results the program asked for */
	__u64 native[COSY_STATS_NATIVE]; /* by enum cosy_native_reason */
	__u64 declines[16]; /* by enum cosy_decline */
	__u64 executor_status[16]; /* by enum cosy_bpf_status */
	struct {
		__u64 fired;
		__u64 served;
		__u64 records;
	} compound[COSY_STATS_COMPOUNDS]; /* by position in the image */
	struct cosy_site site[COSY_STATS_SITES]; /* 0: all that found no place */
};

#endif
