/* SPDX-License-Identifier: MIT */
/* What is kept of a call besides its registers; tracer/kept.py is the same in Python. */
#ifndef COSY_TRACE_KEEP_H
#define COSY_TRACE_KEEP_H

#include "cosy_trace.h"
#include "sys.h"

#define MAX_PATH_LEN 4096
#define MAX_OUT 8192
#define MAX_PAYLOAD (2 * MAX_PATH_LEN + MAX_OUT)

// What an event carries besides its registers.
struct payload {
	const char *path, *path2;
	const void *out;
	size_t path_len, path2_len, out_len;
	u8 how; // OUT_*: out_len is what is kept of it
	bool cut;
};

// What out is: bytes to be kept as they are, or where the call put what is made shorter.
enum { OUT_BYTES, OUT_DIRENTS, OUT_STAT, OUT_STATX };

static inline void payload_init(struct payload *p)
{
	p->path_len = p->path2_len = p->out_len = 0;
	p->how = OUT_BYTES;
	p->cut = false;
}

/* By call number: is anything kept? */
extern HIDDEN bool keep_any[COSY_ACTIONS];

/* Once, before all else. */
HIDDEN void keep_init(void);
/* Which argument is the path, counted from 1; 0: none. */
HIDDEN u8 keep_path_at(u64 nr);
/* What a call that returned `ret` leaves. */
HIDDEN void keep(const struct regs *r, long ret, struct payload *p);
/*
 * All of a payload goes straight to its place in the heap: stacks may be small, and what lies there would be
 * copied once more.
 */
HIDDEN void keep_put(const struct payload *p, u8 *to);

#endif
