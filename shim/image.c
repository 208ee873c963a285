// SPDX-License-Identifier: MIT
/*
 * Nobody trusts the file: it must be the user's own or root's, writable by
 * nobody else, whole, and every field must be in bounds. It is copied before
 * it is looked at, so that it cannot change afterwards.
 */
#include "image.h"

#include <asm/unistd_64.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "syscall_table.h"

#define MAX_DEPTH 8
#define MAX_NTH 1024
#define EXECUTORS                                                                                  \
	(COSY_EXECUTOR_INLINE | COSY_EXECUTOR_AHEAD | COSY_EXECUTOR_BPF | COSY_EXECUTOR_MODULE)

// zlib's CRC-32 (RFC 1952, section 8), by nibbles: a table of 16.
static u32 crc32(const u8 *at, size_t n)
{
	static const u32 table[16] = {
		0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4,
		0x4db26158, 0x5005713c, 0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c,
		0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
	};
	u32 crc = ~0u;

	for (; n; n--, at++) {
		crc = table[(crc ^ *at) & 15] ^ crc >> 4;
		crc = table[(crc ^ *at >> 4) & 15] ^ crc >> 4;
	}
	return ~crc;
}

// A table of n items of `size` bytes at `offset`, aligned to 8.
static bool table_fits(const struct cosy_image *h, u32 offset, u32 n, size_t size)
{
	return offset % 8 == 0 && offset >= sizeof(*h) && offset <= h->size &&
	       n <= (h->size - offset) / size;
}

static bool range_fits(u32 first, u32 n, u32 all, u32 most)
{
	return n <= most && first <= all && n <= all - first;
}

static bool is_speculable(u32 nr)
{
	return nr < COSY_NR_MAX && cosy_syscalls[nr].cls == COSY_CLASS_PURE;
}

static bool arg_valid(const struct image *im, const struct cosy_arg *arg, u32 op, bool loop)
{
	if (arg->reserved)
		return false;
	switch (arg->kind) {
	case COSY_ARG_NONE:
	case COSY_ARG_CONST:
	case COSY_ARG_DIR:
	case COSY_ARG_NAME:
	case COSY_ARG_PATH:
		return true;
	case COSY_ARG_STRING:
		return arg->string < im->head->strings_size;
	case COSY_ARG_OUT:
		return arg->value <= COSY_IMAGE_MAX_SIZE;
	case COSY_ARG_RESULT:
		return arg->index < op;
	case COSY_ARG_TRIGGER:
		return arg->index < COSY_MAX_ARGS && !loop;
	}
	return false;
}

static bool op_valid(const struct image *im, const struct cosy_compound *c, u32 i)
{
	const struct cosy_op *op = &im->ops[c->first_op + i];

	if (op->n_args > COSY_MAX_ARGS || op->reserved || op->flags & ~COSY_OP_OPTIONAL)
		return false;
	if (c->flags & COSY_SPECULATIVE && !is_speculable(op->nr))
		return false;
	for (u32 k = 0; k < op->n_args; k++)
		if (!arg_valid(im, &op->args[k], i, c->loop != COSY_LOOP_NONE))
			return false;
	return true;
}

static bool patterns_valid(const struct image *im, u32 first, u32 n)
{
	for (u32 i = first; i < first + n; i++) {
		const struct cosy_pattern *p = &im->patterns[i];

		if (p->reserved || !is_speculable(p->nr) || p->string >= im->head->strings_size)
			return false;
	}
	return true;
}

static bool compound_valid(const struct image *im, const struct cosy_compound *c)
{
	const struct cosy_image *h = im->head;

	if (c->name >= h->strings_size || c->reserved[0] || c->reserved[1])
		return false;
	if (c->flags != COSY_SPECULATIVE && c->flags != COSY_EXPLICIT)
		return false;
	if (c->guards & ~(COSY_GUARD_SCANNED | COSY_GUARD_CHILD | COSY_GUARD_LEAF) ||
	    c->loop > COSY_LOOP_ENTRIES || c->depth > MAX_DEPTH || !c->nth || c->nth > MAX_NTH ||
	    c->executors & ~(u32)EXECUTORS || !c->limit_ops || !c->limit_bytes || !c->limit_time_ns)
		return false;
	if (!range_fits(c->first_op, c->n_ops, h->n_ops, COSY_MAX_OPS) ||
	    !range_fits(c->first_trigger, c->n_triggers, h->n_patterns, COSY_MAX_PATTERNS) ||
	    !range_fits(c->first_serve, c->n_serve, h->n_patterns, COSY_MAX_PATTERNS) ||
	    !c->n_ops || c->n_triggers + c->n_serve > COSY_MAX_PATTERNS)
		return false;
	for (u32 i = 0; i < c->n_ops; i++)
		if (!op_valid(im, c, i))
			return false;
	return patterns_valid(im, c->first_trigger, c->n_triggers) &&
	       patterns_valid(im, c->first_serve, c->n_serve);
}

static bool image_valid(struct image *im, size_t size)
{
	const struct cosy_image *h = im->head;

	if (size < sizeof(*h) || memcmp(h->magic, COSY_IMAGE_MAGIC, 8) || h->size != size ||
	    h->flags || h->crc32 != crc32((const u8 *)h + 16, size - 16))
		return false;
	if (h->n_compounds > COSY_MAX_COMPOUNDS ||
	    !table_fits(h, h->compounds, h->n_compounds, sizeof(*im->compounds)) ||
	    !table_fits(h, h->ops, h->n_ops, sizeof(*im->ops)) ||
	    !table_fits(h, h->patterns, h->n_patterns, sizeof(*im->patterns)))
		return false;
	if (h->strings < sizeof(*h) || h->strings > size || h->strings_size > size - h->strings ||
	    !h->strings_size)
		return false;
	im->compounds = (const void *)((const u8 *)h + h->compounds);
	im->ops = (const void *)((const u8 *)h + h->ops);
	im->patterns = (const void *)((const u8 *)h + h->patterns);
	im->strings = (const char *)h + h->strings;
	if (im->strings[0] || im->strings[h->strings_size - 1])
		return false;
	for (u32 i = 0; i < h->n_compounds; i++)
		if (!compound_valid(im, &im->compounds[i]))
			return false;
	return true;
}

static bool owner_trusted(const struct stat *st)
{
	return S_ISREG(st->st_mode) && !(st->st_mode & (S_IWGRP | S_IWOTH)) &&
	       (st->st_uid == 0 || st->st_uid == (u32)sys(__NR_geteuid));
}

enum cosy_native_reason image_open(const char *path, struct image *to)
{
	enum cosy_native_reason why = COSY_NATIVE_REASONS;
	struct stat st;
	u8 *map;
	int fd =
		(int)sys(__NR_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

	if (fd < 0)
		return COSY_NATIVE_IMAGE_ABSENT;
	if (sys_failed(sys(__NR_fstat, fd, &st)) || !owner_trusted(&st)) {
		sys(__NR_close, fd);
		return COSY_NATIVE_IMAGE_OWNER;
	}
	if (st.st_size <= 0 || st.st_size > (long)COSY_IMAGE_MAX_SIZE) {
		sys(__NR_close, fd);
		return COSY_NATIVE_IMAGE_CORRUPT;
	}
	map = (u8 *)sys(__NR_mmap, 0, st.st_size, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (sys_failed((long)map)) {
		sys(__NR_close, fd);
		return COSY_NATIVE_IMAGE_ABSENT;
	}
	to->head = (const void *)map;
	if (sys(__NR_pread64, fd, map, st.st_size, 0) != st.st_size ||
	    !image_valid(to, (size_t)st.st_size))
		why = COSY_NATIVE_IMAGE_CORRUPT;
	sys(__NR_close, fd);
	if (why != COSY_NATIVE_REASONS)
		sys(__NR_munmap, map, st.st_size);
	else
		sys(__NR_mprotect, map, st.st_size, PROT_READ);
	return why;
}
