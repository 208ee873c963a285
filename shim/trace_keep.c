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
		if (end) {
			n += (u32)__builtin_ctzl(end) / 8;
			break;
		}
		n += 8;
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

void keep(const struct regs *r, long ret, struct payload *p)
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
	p->out = (const void *)r->a[k->out - 1];
	switch (k->out_type) {
	case COSY_ARGT_DIRENTS_OUT:
		p->how = OUT_DIRENTS;
		p->out_len = count_names(p->out, (size_t)ret) * sizeof(u32);
		p->cut = p->cut || p->out_len > MAX_OUT;
		p->out_len = p->out_len > MAX_OUT ? MAX_OUT : p->out_len;
		break;
	case COSY_ARGT_PTR:
		p->out_len = 2 * sizeof(s32);
		break;
	default:
		p->how = k->out_type == COSY_ARGT_STAT_OUT ? OUT_STAT : OUT_STATX;
		p->out_len = sizeof(struct cosy_out_stat);
	}
}

// Most are a name: "rep movsb" takes longer to start than these to copy. The last word may overlap.
static inline void put(u8 *to, const void *from, size_t n)
{
	const u8 *p = from;

	if (n >= 8) {
		for (; n > 8; n -= 8, p += 8, to += 8)
			__builtin_memcpy(to, p, 8);
		__builtin_memcpy(to + n - 8, p + n - 8, 8);
		return;
	}
	for (; n; n--)
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

// Behind a path there is no alignment.
typedef struct cosy_out_stat out_stat __attribute__((aligned(1)));

static inline void put_stat(const struct stat *st, out_stat *to)
{
	to->dev = st->st_dev;
	to->ino = st->st_ino;
	to->size = (u64)st->st_size;
	to->mode = st->st_mode;
	to->nlink = (u32)st->st_nlink;
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

void keep_put(const struct payload *p, u8 *to)
{
	put(to, p->path, p->path_len);
	to += p->path_len;
	if (unlikely(p->path2_len)) {
		put(to, p->path2, p->path2_len);
		to += p->path2_len;
	}
	switch (p->how) {
	case OUT_BYTES:
		put(to, p->out, p->out_len);
		break;
	case OUT_DIRENTS:
		put_names(p->out, to, p->out_len);
		break;
	case OUT_STAT:
		put_stat(p->out, (out_stat *)to);
		break;
	case OUT_STATX:
		put_statx(p->out, (out_stat *)to);
		break;
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
