/* SPDX-License-Identifier: MIT */
/* What is kept of a call besides its registers; tracer/kept.py is the same in Python. */
#ifndef COSY_TRACE_KEEP_H
#define COSY_TRACE_KEEP_H

#include <sys/stat.h>

#include "cosy_trace.h"
#include "sys.h"

#define MAX_PATH_LEN 4096
#define MAX_OUT 8192
#define MAX_PAYLOAD (2 * (MAX_PATH_LEN + 7) + MAX_OUT)

// What the result is: where the call put what is made shorter, or bytes to be kept as they are.
enum { OUT_STAT, OUT_STATX, OUT_DIRENTS, OUT_BYTES };

/* By call number: which arguments hold what is worth keeping. */
struct kept {
	u8 path, path2, out; // argument index + 1; 0: none
	u8 how; // OUT_*
};
extern HIDDEN struct kept kept[COSY_ACTIONS];

/* What an event carries besides its registers. */
struct payload {
	const char *path, *path2;
	const void *out;
	size_t path_len, path2_len, out_len; // as much as is kept
	u8 how; // OUT_*
	bool cut;
};

/* Once, before all else. */
HIDDEN void keep_init(void);

/* What a call that returned `ret` leaves. */
HIDDEN void keep(const struct kept *k, const struct regs *r, long ret, struct payload *p);
/*
 * The kernel had read the path before it gave this answer, so it can be read.
 * Other errors may have come first, with any pointer.
 */
HIDDEN bool keep_path_was_read(long ret);
/* Parts of keep_put() that few events need. */
HIDDEN void keep_put_more(struct payload p, u8 *to);
HIDDEN void keep_put_bytes(const void *from, u8 *to, size_t n);

// As strlen, at most MAX_PATH_LEN and a word: a word at a time, none of which crosses a page where the string may end.
static inline size_t path_length(const char *s)
{
	size_t n = 0;

	while (n < MAX_PATH_LEN) {
		u64 end;

		if (unlikely(((u64)(s + n) & (PAGE_SIZE - 1)) > PAGE_SIZE - 8)) {
			if (!s[n])
				return n;
			n++;
			continue;
		}
		end = zero_bytes(load_word(s + n));
		if (likely(end))
			return n + (u32)__builtin_ctzl(end) / 8;
		n += 8;
	}
	return n;
}

/* Is what the call leaves a path and a stat at most? */
static inline bool keeps_little(const struct kept *k)
{
	return !(k->path2 | k->how);
}

/* The same as keep(), of such calls. */
static inline void keep_little(const struct kept *k, const struct regs *r, long ret,
			       struct payload *p)
{
	*p = (struct payload){ .how = OUT_STAT };
	if (likely(k->path && (likely(ret >= 0) || keep_path_was_read(ret)))) {
		p->path = (const char *)r->a[k->path - 1];
		if (likely(p->path))
			p->path_len = path_length(p->path);
		p->cut = p->path_len >= MAX_PATH_LEN;
	}
	if (likely(k->out && ret >= 0)) {
		p->out = (const void *)r->a[k->out - 1];
		p->out_len = sizeof(struct cosy_out_stat);
	}
}

// Behind a path there is no alignment.
typedef struct cosy_out_stat out_stat __attribute__((aligned(1)));

/*
 * All of a payload goes straight to its place in the heap: stacks may be small, and what lies there would be
 * copied once more. Most of it is a name: "rep movsb" takes longer to start than words to copy.
 */
static inline void keep_put(const struct payload *p, u8 *to)
{
	const char *from = p->path;
	size_t n = p->path_len;

	if (unlikely(n < 8)) {
		keep_put_bytes(from, to, n);
		to += n;
	} else {
		for (; n > 8; n -= 8, from += 8, to += 8)
			__builtin_memcpy(to, from, 8);
		// The last word may overlap.
		to += n;
		__builtin_memcpy(to - 8, from + n - 8, 8);
	}
	if (p->how != OUT_STAT || p->path2_len) {
		keep_put_more(*p, to);
	} else if (likely(p->out_len)) {
		const struct stat *st = p->out;
		out_stat *out = (out_stat *)to;

		out->dev = st->st_dev;
		out->ino = st->st_ino;
		out->size = (u64)st->st_size;
		out->mode = st->st_mode;
		out->nlink = (u32)st->st_nlink;
	}
}

#endif
