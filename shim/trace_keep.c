// SPDX-License-Identifier: MIT
#include "trace_keep.h"

#include <asm/unistd_64.h>
#include <sys/stat.h>

#include "syscall_table.h"

// By call number: which arguments hold what is worth keeping.
struct kept {
	u8 path, path2, out; // argument index + 1; 0: none
	// COSY_ARGT_STAT_OUT, COSY_ARGT_STATX_OUT, COSY_ARGT_DIRENTS_OUT; PTR: two descriptors
	u8 out_type;
};
static struct kept kept[COSY_NR_MAX];
bool keep_any[COSY_ACTIONS];
_Static_assert(COSY_ACTIONS <= COSY_NR_MAX, "every call that comes here is in the table");

/*
 * The kernel had read the path before it gave this answer, so it can be read.
 * Other errors may have come first, with any pointer.
 */
static bool path_was_read(long ret)
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

// As strlen, at most MAX_PATH_LEN: a word at a time, none of which crosses a page where the string may end.
static size_t path_length(const char *s)
{
	size_t n = 0;

	for (; n < MAX_PATH_LEN && ((u64)(s + n) & 7); n++)
		if (!s[n])
			return n;
	for (; n < MAX_PATH_LEN; n += 8) {
		u64 end = zero_bytes(load_word(s + n));

		if (end) {
			n += (u32)__builtin_ctzl(end) / 8;
			break;
		}
	}
	return n < MAX_PATH_LEN ? n : MAX_PATH_LEN;
}

static void keep_string(const char *s, const char **to, size_t *len, bool *cut)
{
	size_t n;

	if (!s)
		return;
	n = path_length(s);
	*cut = *cut || n == MAX_PATH_LEN;
	*to = s;
	*len = n;
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

static size_t keep_stat(const struct kept *k, const struct regs *r, struct cosy_out_stat *out)
{
	const void *from = (const void *)r->a[k->out - 1];

	if (k->out_type == COSY_ARGT_STAT_OUT) {
		const struct stat *st = from;

		*out = (struct cosy_out_stat){ st->st_dev, st->st_ino, (u64)st->st_size,
					       st->st_mode, (u32)st->st_nlink };
	} else {
		const struct statx *st = from;
		u64 dev = (st->stx_dev_minor & 0xffu) | (st->stx_dev_major & 0xfffu) << 8 |
			  (u64)(st->stx_dev_minor & ~0xffu) << 12;

		*out = (struct cosy_out_stat){ dev, st->stx_ino, st->stx_size, st->stx_mode,
					       st->stx_nlink };
	}
	return sizeof(*out);
}

void keep(const struct regs *r, long ret, struct payload *p, struct cosy_out_stat *st)
{
	const struct kept *k = &kept[r->nr];

	if (path_was_read(ret)) {
		if (k->path)
			keep_string((const char *)r->a[k->path - 1], &p->path, &p->path_len,
				    &p->cut);
		if (k->path2)
			keep_string((const char *)r->a[k->path2 - 1], &p->path2, &p->path2_len,
				    &p->cut);
	}
	if (!k->out || ret < 0)
		return;
	if (k->out_type == COSY_ARGT_DIRENTS_OUT) {
		p->names = true;
		p->out = (const void *)r->a[k->out - 1];
		p->out_len = count_names(p->out, (size_t)ret) * sizeof(u32);
		p->cut = p->cut || p->out_len > MAX_OUT;
		p->out_len = p->out_len > MAX_OUT ? MAX_OUT : p->out_len;
	} else if (k->out_type == COSY_ARGT_PTR) {
		p->out = (const void *)r->a[k->out - 1];
		p->out_len = 2 * sizeof(s32);
	} else {
		p->out = st;
		p->out_len = keep_stat(k, r, st);
	}
}

void keep_names(const u8 *buf, u8 *to, size_t len)
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

void keep_init(void)
{
	for (u32 nr = 0; nr < COSY_NR_MAX; nr++) {
		for (u32 i = 0; i < cosy_syscalls[nr].n_args; i++) {
			u8 type = cosy_syscalls[nr].args[i];

			if (type == COSY_ARGT_PATH && !kept[nr].path)
				kept[nr].path = (u8)(i + 1);
			else if ((type == COSY_ARGT_PATH2 || type == COSY_ARGT_NAME) &&
				 !kept[nr].path2)
				kept[nr].path2 = (u8)(i + 1);
			else if (type == COSY_ARGT_STAT_OUT || type == COSY_ARGT_STATX_OUT ||
				 type == COSY_ARGT_DIRENTS_OUT) {
				kept[nr].out = (u8)(i + 1);
				kept[nr].out_type = type;
			}
		}
	}
	kept[__NR_pipe] = kept[__NR_pipe2] = (struct kept){ .out = 1, .out_type = COSY_ARGT_PTR };
	kept[__NR_socketpair] = (struct kept){ .out = 4, .out_type = COSY_ARGT_PTR };
	for (u32 nr = 0; nr < COSY_NR_MAX; nr++)
		keep_any[nr] = kept[nr].path || kept[nr].path2 || kept[nr].out;
}

u8 keep_path_at(u64 nr)
{
	return nr < COSY_NR_MAX ? kept[nr].path : 0;
}
