/* SPDX-License-Identifier: (GPL-2.0 WITH Linux-syscall-note) OR MIT */
/*
 * The binary image of a set of compounds: what the synthesizer writes, and
 * what the shim maps and interprets. docs/compound-language.md describes the
 * textual form; synth/image.py is the writer and is checked against this file.
 *
 * All integers are little-endian. Every "first/n" pair indexes one of the
 * flat tables; every string is an offset into the string section, whose first
 * and last bytes are NUL (so offset 0 is the empty string).
 *
 * Nobody trusts the file: shim/verify.c checks every field before use, as
 * synth/verify.py did when it was written; tests/native/test_image_fuzz.py
 * holds the two to the same verdict.
 */
#ifndef COSY_IMAGE_H
#define COSY_IMAGE_H

#include <linux/types.h>

#define COSY_IMAGE_MAGIC "COSYIMG\x05"
#define COSY_IMAGE_MAX_SIZE (1u << 20)
#define COSY_MAX_ARGS 6
#define COSY_MAX_COMPOUNDS 256
#define COSY_MAX_OPS 16 /* per compound */
#define COSY_MAX_PATTERNS 32 /* per compound, triggers and serves together */
#define COSY_MAX_PATHS 256 /* per compound */
#define COSY_MAX_CONDS 4 /* per operation */

struct cosy_image {
	__u8 magic[8];
	__u32 size; /* of the whole file, bytes */
	__u32 crc32; /* zlib's CRC-32 of bytes [16, size) */
	__u32 n_compounds;
	__u32 compounds; /* offset of struct cosy_compound[], 8-byte aligned */
	__u32 n_ops;
	__u32 ops; /* offset of struct cosy_op[], 8-byte aligned */
	__u32 n_patterns;
	__u32 patterns; /* offset of struct cosy_pattern[], 8-byte aligned */
	__u32 n_conds;
	__u32 conds; /* offset of struct cosy_cond[], 8-byte aligned */
	__u32 n_paths;
	__u32 paths; /* offset of __u32[], each a string offset, 8-byte aligned */
	__u32 strings; /* offset of the string section */
	__u32 strings_size;
	__u32 flags; /* none defined: must be 0 */
	__u8 build_id[20]; /* program it was mined from; zero: any program */
}; /* 88 bytes */

/* struct cosy_compound.flags */
#define COSY_SPECULATIVE 0x1 /* mined: pure calls only */
#define COSY_EXPLICIT 0x2 /* handed over by a program */

/* struct cosy_compound.guards, each a predicate over the triggering call */
#define COSY_GUARD_SCANNED 0x1 /* the program has read directory D's entries */
#define COSY_GUARD_CHILD 0x2 /* name is a single component below D */
#define COSY_GUARD_LEAF 0x4 /* calls of this kind met something else than directories before */
#define COSY_GUARD_REGULAR 0x8 /* the call's descriptor is open on a regular file */
#define COSY_GUARD_LISTED 0x10 /* the call's path is one of the compound's paths */

enum cosy_loop {
	COSY_LOOP_NONE = 0, /* the body runs once */
	COSY_LOOP_ENTRIES = 1, /* the body runs for each entry e of D */
	COSY_LOOP_PATHS = 2, /* the body runs for each of the compound's paths p */
};

/* struct cosy_compound.executors */
#define COSY_EXECUTOR_INLINE 0x1
#define COSY_EXECUTOR_AHEAD 0x2
#define COSY_EXECUTOR_BPF 0x4
#define COSY_EXECUTOR_MODULE 0x8
#define COSY_EXECUTOR_REFERENCE 0x10 /* plain calls: proves a compound right, gains nothing */

struct cosy_compound {
	__u32 name; /* string offset */
	__u32 flags;
	__u32 guards;
	__u32 loop; /* enum cosy_loop */
	__u32 nth; /* fires at the nth matching call (CHILD: within one directory): 1..1024 */
	__u32 min_entries; /* ... and only if D has at least so many entries */
	__u32 executors; /* those that can run it, by their capability */
	__u32 first_op, n_ops;
	__u32 first_trigger, n_triggers; /* patterns */
	__u32 first_serve, n_serve; /* patterns */
	__u32 first_path, n_paths; /* COSY_LOOP_PATHS */
	/*
	 * ENTRIES: of a directory no more than `chunk` entries are run over until nearly all of others
	 * was asked for. A further run reaches `grow` times as far, once calls about one in `miss` of
	 * the entries that it reaches went unanswered. All 0: another loop.
	 */
	__u32 chunk, grow, miss;
	__u64 limit_ops; /* calls answered by one run */
	__u64 limit_bytes; /* of results held */
	__u64 limit_time_ns; /* inside the executor */
}; /* 96 bytes */

enum cosy_arg_kind {
	COSY_ARG_NONE = 0,
	COSY_ARG_CONST = 1, /* value */
	COSY_ARG_STRING = 2, /* string offset */
	COSY_ARG_DIR = 3, /* D as a dirfd */
	COSY_ARG_NAME = 4, /* e.name (or the trigger's name outside a loop) */
	COSY_ARG_PATH = 5, /* D joined with e.name */
	COSY_ARG_OUT = 6, /* a buffer the executor provides; value: bytes */
	COSY_ARG_RESULT = 7, /* return value of operation `index` of this compound */
	COSY_ARG_TRIGGER = 8, /* argument `index` of the triggering call */
	COSY_ARG_ITEM = 9, /* p, the path of this iteration */
	COSY_ARG_FIELD = 10, /* `field` of operation `index`, plus `value` */
};

/* What is known of an operation that ran. */
enum cosy_field {
	COSY_FIELD_RET = 1, /* its return value */
	COSY_FIELD_ERRNO = 2, /* 0: it succeeded */
	COSY_FIELD_TYPE = 3, /* st_mode & S_IFMT, of a stat that succeeded */
	COSY_FIELD_MODE = 4, /* st_mode & 07777 */
	COSY_FIELD_SIZE = 5, /* st_size */
};

struct cosy_arg {
	__u8 kind; /* enum cosy_arg_kind */
	__u8 index;
	__u16 field; /* enum cosy_field; 0 elsewhere */
	__u32 string; /* STRING; NAME, PATH, ITEM, TRIGGER: joined behind with a slash, if not 0 */
	__u64 value;
}; /* 16 bytes */

enum cosy_relation {
	COSY_IS = 1, /* == */
	COSY_IS_NOT = 2, /* != */
	COSY_AT_MOST = 3, /* <= */
	COSY_AT_LEAST = 4, /* >= */
};

/*
 * An operation runs only if all of its conditions hold. One on an operation
 * that did not run, or a field that it does not have, does not hold.
 */
struct cosy_cond {
	__u8 index; /* of an earlier operation of this compound */
	__u8 field; /* enum cosy_field */
	__u8 relation; /* enum cosy_relation */
	__u8 reserved; /* 0 */
	__u32 reserved2; /* 0 */
	__u64 value; /* COSY_FIELD_RET: signed */
}; /* 16 bytes */

/* struct cosy_op.flags */
#define COSY_OP_OPTIONAL 0x1 /* not every iteration of the motif had it */
#define COSY_OP_UNTIL 0x2 /* again and again, until it returns 0 or fails */

struct cosy_op {
	__u16 nr; /* x86-64 system call number */
	__u8 n_args;
	__u8 flags;
	__u16 first_cond, n_conds;
	struct cosy_arg args[COSY_MAX_ARGS];
}; /* 104 bytes */

/*
 * A call that triggers a compound or that its results may answer. Which
 * argument is the dirfd, the path, the flags or the mask follows from the
 * system call table.
 */
struct cosy_pattern {
	__u16 nr;
	__u16 reserved; /* 0 */
	__u32 flags_allowed; /* AT_* or O_*: a call with any other flag does not match */
	__u32 mask_within; /* statx: a mask with any other bit does not match */
	__u32 string; /* xattr calls: the attribute's name; 0 elsewhere */
}; /* 16 bytes */

#endif
