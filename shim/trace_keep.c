// SPDX-License-Identifier: MIT
#include "trace_keep.h"

#include <asm/unistd_64.h>
#include <sys/stat.h>

#include "syscall_table.h"

struct kept kept[COSY_ACTIONS];
_Static_assert(COSY_ACTIONS <= COSY_NR_MAX, "every call that comes here is in the table");

bool keep_path_was_read(long ret)
{
	switch (ret) {
	case -1: // EPERM
	case -2: // ENOENT
	case -13: // EACCES
	case -17: // EEXIST
	case -20: // ENOTDIR
	case -21: // EISDIR
	case -30: // EROFS
	case -39: // ENOTEMPTY
	case -40: // ELOOP
	case -61: // ENODATA
		return true;
	}
	return ret >= 0;
}

static bool is_dot(const char *name)
{
	return name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2]));
}

static size_t count_names(const u8 *buf, size_t len)
{
	size_t n = 0;

	for (size_t at = 0; at < len; at += ((const struct dirent64 *)(buf + at))->reclen)
		n += !is_dot(((const struct dirent64 *)(buf + at))->name);
	return n;
}

static size_t out_size(const struct payload *p, long ret)
{
	switch (p->how) {
	case OUT_DIRENTS:
		return count_names(p->out, (size_t)ret) * sizeof(u32);
	case OUT_BYTES:
		return 2 * sizeof(s32);
	}
	return sizeof(struct cosy_out_stat);
}

void keep(const struct kept *k, const struct regs *r, long ret, struct payload *p)
{
	*p = (struct payload){ .how = k->how };
	if (ret >= 0 || keep_path_was_read(ret)) {
		if (k->path)
			p->path = (const char *)r->a[k->path - 1];
		if (k->path2)
			p->path2 = (const char *)r->a[k->path2 - 1];
		if (p->path)
			p->path_len = path_length(p->path);
		if (p->path2)
			p->path2_len = path_length(p->path2);
		p->cut = p->path_len >= MAX_PATH_LEN || p->path2_len >= MAX_PATH_LEN;
	}
	if (!k->out || ret < 0)
		return;
	p->out = (const void *)r->a[k->out - 1];
	p->out_len = out_size(p, ret);
	if (p->out_len > MAX_OUT) {
		p->out_len = MAX_OUT;
		p->cut = true;
	}
}

void keep_put_bytes(const void *from, u8 *to, size_t n)
{
	const u8 *p = from;

	while (n--)
		*to++ = *p++;
}

static void put_names(const u8 *buf, u8 *to, size_t len)
{
	for (size_t n = 0; n < len;) {
		const struct dirent64 *d = (const void *)buf;
		u32 hash = COSY_FNV_BASIS;

		buf += d->reclen;
		if (is_dot(d->name))
			continue;
		for (const char *s = d->name; *s; s++)
			hash = (hash ^ (u8)*s) * COSY_FNV_PRIME;
		hash = (hash & ~15u) | (d->type & 15u);
		__builtin_memcpy(to + n, &hash, sizeof(hash));
		n += sizeof(hash);
	}
}

static inline void put_statx(const struct statx *st, out_stat *to)
{
	to->dev = (st->stx_dev_minor & 0xffu) | (st->stx_dev_major & 0xfffu) << 8 |
		  (u64)(st->stx_dev_minor & ~0xffu) << 12;
	to->ino = st->stx_ino;
	to->size = st->stx_size;
	to->mode = st->stx_mode;
	to->nlink = st->stx_nlink;
}

void keep_put_more(struct payload p, u8 *to)
{
	struct payload stat = { .out = p.out, .out_len = p.out_len };

	keep_put_bytes(p.path2, to, p.path2_len);
	to += p.path2_len;
	if (!p.out_len)
		return;
	switch (p.how) {
	case OUT_BYTES:
		keep_put_bytes(p.out, to, p.out_len);
		break;
	case OUT_DIRENTS:
		put_names(p.out, to, p.out_len);
		break;
	case OUT_STAT:
		keep_put(&stat, to);
		break;
	case OUT_STATX:
		put_statx(p.out, (out_stat *)to);
		break;
	}
}

static void keep_out(u32 nr, u32 arg, u8 how)
{
	kept[nr].out = (u8)(arg + 1);
	kept[nr].how = how;
}

void keep_init(void)
{
	for (u32 nr = 0; nr < COSY_NR_MAX && nr < COSY_ACTIONS; nr++) {
		for (u32 i = 0; i < cosy_syscalls[nr].n_args; i++) {
			u8 type = cosy_syscalls[nr].args[i];

			if (type == COSY_ARGT_PATH && !kept[nr].path)
				kept[nr].path = (u8)(i + 1);
			else if ((type == COSY_ARGT_PATH2 || type == COSY_ARGT_NAME) &&
				 !kept[nr].path2)
				kept[nr].path2 = (u8)(i + 1);
			else if (type == COSY_ARGT_STAT_OUT)
				keep_out(nr, i, OUT_STAT);
			else if (type == COSY_ARGT_STATX_OUT)
				keep_out(nr, i, OUT_STATX);
			else if (type == COSY_ARGT_DIRENTS_OUT)
				keep_out(nr, i, OUT_DIRENTS);
		}
	}
	// Two descriptors.
	keep_out(__NR_pipe, 0, OUT_BYTES);
	keep_out(__NR_pipe2, 0, OUT_BYTES);
	keep_out(__NR_socketpair, 3, OUT_BYTES);
}
