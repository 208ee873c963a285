/* SPDX-License-Identifier: MIT */
/* What Python calls; tracer/compiled.py declares the same to ctypes. */
#ifndef COSY_API_H
#define COSY_API_H

#include "core.h"

/* --- raw.c ------------------------------------------------------------------ */

/* Where a block's events and their heap are, as far as the file goes. */
struct cosy_block {
	const u8 *events;
	u64 n;
	const u8 *heap;
	u64 heap_size;
};

struct cosy_scan {
	u64 n_calls, lost;
};

/*
 * Count the calls up to `end_tsc`, and what is not whole. By block: the earliest event (`none`: there
 * is none), and how many are rare.
 */
EXPORT void cosy_scan(const struct cosy_block *blocks, u64 n_blocks, u64 end_tsc, const u8 *rare,
		      s64 none, s64 *first, u64 *n_rare, struct cosy_scan *total);
/*
 * Copy the whole events up to `end_tsc` that are of `wanted` kinds, by number: `words` has rows of `stride`,
 * `heap` room for all heaps. Returns how many there were.
 */
EXPORT u64 cosy_load(const struct cosy_block *blocks, u64 n_blocks, u64 end_tsc, const u8 *wanted,
		     u64 stride, u64 *words, s64 *at, u8 *heap);

/* --- merge.c ---------------------------------------------------------------- */

/*
 * Write the events of all parts, each of which is in the order of time, into `to`, which has room for them and
 * for all heaps; at equal times by thread, then in the order of the parts. Returns 0, or -1 for want of memory.
 */
EXPORT int cosy_merge(const struct cosy_chunk *parts, u64 n_parts, const struct cosy_chunk *to);

/* --- columns.c -------------------------------------------------------------- */

#define RETURNS_DIRENTS 1
#define RETURNS_STAT 2

/* By call number. */
struct cosy_call {
	u8 copies_in, copies_out; /* what is returned counts bytes into, or out of the kernel */
	u8 n_args;
	u8 returns; /* RETURNS_* */
	s8 size_at; /* which argument is the size of a buffer; NOTHING: none is */
	u8 pad;
	u16 fixed_out; /* bytes of attributes */
};

/* Texts of a chunk: by event a number, and the different ones. */
struct cosy_texts {
	u8 *valid; /* a bit for each event that has one */
	s32 *codes;
	s32 *ends; /* of the different ones, n + 1 */
	u8 *joined;
	u64 room; /* bytes of joined */
	u64 n, n_valid;
	u64 odd; /* some hold '%', or bytes beyond ASCII */
};

struct cosy_columns {
	s64 zero_tsc, zero_ns;
	double ns_per_tick;
	const s32 *pids, *tids; /* of threads */
	const struct cosy_call *calls;

	s64 *t_ns, *dur_ns;
	s32 *pid, *tid;
	s16 *nr;
	u64 *args; /* six columns, one behind the other */
	s64 *bytes_in, *bytes_out;
	u8 *returned; /* a bit for each event whose result is known */
	struct cosy_texts path, path2;

	u8 *has_site;
	s32 *site; /* number of the pair */
	s32 *site_thread; /* of the pair */
	u64 *site_address;

	u8 *has_names;
	s32 *names_ends; /* n + 1 */
	u32 *names;
	u64 names_room;

	u8 *has_stat;
	u32 *st_mode;
	s64 *st_size, *st_ino;

	u64 n_returned, n_sites, n_pairs, n_lists, n_stats;
};

/* Fill all columns; bits must be clear. Returns 0, or -1 for want of memory. */
EXPORT int cosy_columns(const struct cosy_chunk *c, struct cosy_columns *out);

/* --- objects.c -------------------------------------------------------------- */

enum { DOES_NOTHING, DOES_CLOSE, DOES_OPEN, DOES_DUP, DOES_EXEC, DOES_RANGE };
/* tracer/descriptors.py, KINDS */
enum { OTHER, PLAIN_FILE, DIRECTORY, SOCKET, PIPE, TTY, DEVICE };

/* By call number (tracer/objects.py). */
struct cosy_effect {
	u8 does;
	u8 kind; /* of the object that it makes */
	u8 fd_at; /* which argument is a descriptor; NO_ARGUMENT: none is */
	u8 flags_at; /* which one has O_CLOEXEC among its flags */
	bool late; /* takes effect at its end, not at its entry */
	bool opens; /* its path is kept */
	bool tells; /* what a descriptor's object is, if it has no path */
	bool lists; /* its descriptor is a directory, if it succeeds */
};
#define NO_ARGUMENT 6

/* A process begins, with a copy of its parent's table. */
struct cosy_start {
	s64 tsc;
	s32 table;
	s32 parent; /* table, or NOTHING: it begins with what was inherited */
	u64 cwd_end; /* of its folder in the text of all of them, one behind the other */
};

/* What the first program's descriptors were. */
struct cosy_inherited {
	s32 fd;
	u16 kind;
	u16 known; /* dev and ino are */
	u64 path_end; /* in the text of all of them */
	u64 dev, ino;
};

/* What a trace is replayed with; stays where it is until the end. */
struct cosy_world {
	const struct cosy_effect *effects;
	const s32 *table_of; /* of threads */
	const struct cosy_start *starts; /* by time */
	const u8 *cwds;
	const struct cosy_inherited *inherited;
	const u8 *inherited_paths;
	u64 n_tables, n_starts, n_inherited;
};

struct cosy_objects;

/* NULL: no memory. */
EXPORT struct cosy_objects *cosy_objects_create(const struct cosy_world *world);
EXPORT void cosy_objects_destroy(struct cosy_objects *o);
/* The object of each call's descriptor; the chunks of a trace one after the other. 0, or -1 for want of memory. */
EXPORT int cosy_objects_of(struct cosy_objects *o, const struct cosy_chunk *c, s32 *ids);
/* Behind the last chunk: programs without a call, calls that ended after all others began. 0, or -1 as above. */
EXPORT int cosy_objects_finish(struct cosy_objects *o);
EXPORT u64 cosy_objects_count(const struct cosy_objects *o);
/* Where an object's path begins; *len is 0 if it is not known. */
EXPORT const u8 *cosy_objects_path(const struct cosy_objects *o, u64 i, u64 *len);
/* By object, as struct object has them; `ends` are of the paths, one behind the other from that of object 0 on. */
EXPORT void cosy_objects_columns(const struct cosy_objects *o, u8 *kind, s64 *event, u8 *known,
				 u64 *dev, u64 *ino, s64 *ends);

#endif
