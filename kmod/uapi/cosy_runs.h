/* SPDX-License-Identifier: (GPL-2.0 WITH Linux-syscall-note) OR MIT */
/*
 * What runs of programs under cosy-auto measured of themselves, for those who predicted it
 * (tracer/runs.py): records of one size, appended to a file beside the table of programs. Who finds
 * it full makes it the old one, which the next one replaces. A record that is not whole, or not
 * what its checksum says, counts as none.
 */
#ifndef COSY_RUNS_H
#define COSY_RUNS_H

#include <linux/types.h>

#define COSY_RUNS_FILE "runs"
#define COSY_RUNS_OLD "runs.old"
#define COSY_RUNS_MAGIC "COSYRUN\x01" /* another byte: another layout, or another meaning */
#define COSY_RUNS_MOST 1024 /* records in a file */
#define COSY_RUNS_COMMAND 4096 /* bytes of the arguments that count */

/* Sums over a process. Ticks are those of the time stamp counter. */
struct cosy_sums {
	__u64 calls; /* that a compound might have answered, as far as they were looked at */
	__u64 answers[2]; /* about attributes, about xattrs */
	__u64 again; /* answers for nothing: what they saved the kernel had to do later */
	__u64 fired; /* compounds */
	__u64 runs,
		run_ticks; /* of an executor; one that was disturbed counts as twice the usual */
	__u64 records; /* results of these */
	/*
	 * Calls that the kernel answered: about children that no executor had looked at, ENODATA; of
	 * directories that were left to it alone, if these were enough.
	 */
	__u64 native, native_ticks;
	__u64 native_xattrs, native_xattr_ticks;
	__u64 timed, timed_ticks; /* answers: every 64th is timed */
	__u32 declined[8]; /* by enum cosy_decline: results that could not be used */
};

struct cosy_run {
	__u8 magic[8];
	__u32 crc; /* of all that follows */
	__u32 executor; /* COSY_EXECUTOR_* */
	__u64 ended_ns; /* CLOCK_REALTIME */
	__u64 cpu_ns; /* CPU time of the process */
	__u64 wall_ns, wall_ticks; /* of the process since it began: how long a tick is */
	__u64 command; /* FNV-1a of the arguments and of the working directory at the end */
	__u8 build_id[20]; /* of the program */
	__u32 pid;
	struct cosy_sums sums;
};

#endif
