// SPDX-License-Identifier: GPL-2.0
/* COSY_OP_FILES: attributes and contents of files by name. */
#include <asm/word-at-a-time.h>

#include "cosy.h"

struct files {
	struct cosy_op *op;
	struct path dir;
	int dirfd;
	int dir_error; /* of dirfd, or of the permission to search it */
	u64 offset, most_data;
	int status;
	/* the file at hand; its name, if it is a single component */
	struct cosy_found found;
	struct cosy_record record;
	struct kstat st;
	u64 name[(NAME_MAX + 8) / 8];
};

/*
 * A name out of memory that may change under us, into f->name as far as it is
 * short; its length, or `left` if it does not end. *plain: it is a single
 * component that is neither empty nor a dot, and f->name holds it.
 */
static u32 take_name(struct files *f, u32 at, bool *plain)
{
	const struct word_at_a_time constants = WORD_AT_A_TIME_CONSTANTS;
	const char *from = f->op->names + at;
	u32 left = f->op->names_bytes - at, len;
	unsigned long nul = 0, slash = 0, bits, word;

	*plain = false;
	for (len = 0; len < left && len < sizeof(f->name); len += 8) {
		if (likely(left - len >= 8)) {
			word = get_unaligned((const unsigned long *)(from + len));
		} else {
			word = 0;
			memcpy(&word, from + len, left - len);
		}
		if (has_zero(word, &nul, &constants)) {
			nul = create_zero_mask(prep_zero_mask(word, nul, &constants));
			word &= zero_bytemask(nul);
			slash |= has_zero(word ^ REPEAT_BYTE('/'), &bits, &constants);
			f->name[len / 8] = word;
			len += find_zero(nul);
			*plain = len && !slash && f->name[0] != '.' &&
				 f->name[0] != ('.' | '.' << 8);
			return len;
		}
		slash |= has_zero(word ^ REPEAT_BYTE('/'), &bits, &constants);
		f->name[len / 8] = word;
	}
	if (len < left)
		len += strnlen(from + len, left - len);
	return min(len, left);
}

/* `plain`: f->name is the name; otherwise the kernel walks the caller's. */
static int find(const struct files *f, bool plain, u32 len, u32 at, struct cosy_found *found)
{
	bool follow = !(f->op->flags & COSY_WANT_NOFOLLOW);
	int err;

	if (plain) {
		err = f->dir_error ?: cosy_child(&f->dir, (const char *)f->name, len, found);
		if (err || !follow || !d_is_symlink(found->path.dentry))
			return err;
		cosy_found_put(found);
	}
	if (!f->op->names_user)
		return -EFAULT;
	found->mount = false;
	found->held = true;
	return cosy_user_path_at(f->dirfd, (const char __user *)(f->op->names_user + at),
				 follow ? LOOKUP_FOLLOW : 0, &found->path);
}

/* False: no room. */
static bool contents(struct files *f, struct cosy_record *r, const struct path *path,
		     const struct kstat *st, bool first)
{
	u32 flags = f->op->flags;

	if (S_ISLNK(st->mode) && (flags & COSY_WANT_LINK))
		return cosy_record_link(r, f->op, path);
	if (S_ISREG(st->mode) && (flags & COSY_WANT_DATA))
		return cosy_record_data(r, f->op, path, st->size, f->offset, f->most_data, !first,
					&f->status);
	if (!S_ISREG(st->mode) && !S_ISDIR(st->mode) && !S_ISLNK(st->mode))
		r->flags |= COSY_ENTRY_SPECIAL;
	else if ((flags & COSY_WANT_DATA) && !S_ISREG(st->mode))
		cosy_record_no_data(r, S_ISDIR(st->mode) ? -EISDIR : -ELOOP);
	return true;
}

/* False: no room. */
static bool one_file(struct files *f, u32 at, u32 len, bool plain, bool first)
{
	struct cosy_op *op = f->op;
	struct cosy_found *found = &f->found;
	struct cosy_record *r = &f->record;
	bool fits = true;
	u64 *name;
	int err;

	if (!cosy_record_start(r, op, 0, len))
		return false;
	if (plain) {
		cosy_record_put_name(r, 0, f->name, len);
	} else {
		name = cosy_record_name(r, 0);
		name[len / 8] = 0;
		memcpy(name, op->names + at, len);
	}
	f->st.mode = 0;
	err = len < PATH_MAX ? find(f, plain, len, at, found) : -ENAMETOOLONG;
	if (err) {
		cosy_record_failed(r, err);
	} else {
		if (found->mount)
			r->flags |= COSY_ENTRY_MOUNT;
		if (cosy_record_attributes(r, op, &found->path, &f->st))
			fits = contents(f, r, &found->path, &f->st, first);
		cosy_found_put(found);
	}
	if (!fits)
		return false;
	cosy_record_end(r, op, f->st.mode >> 12 & 15);
	return true;
}

static void all_files(struct files *f, struct cosy_block *block)
{
	struct cosy_op *op = f->op;
	u32 at = 0, len;
	bool plain;

	while (at < op->names_bytes) {
		len = take_name(f, at, &plain);
		if (len == op->names_bytes - at || len > U16_MAX) {
			block->error = EINVAL;
			return;
		}
		f->status = cosy_tick(op->budget);
		if (f->status || !one_file(f, at, len, plain, !block->n))
			return;
		block->n++;
		at += len + 1;
		block->next = at;
		if (f->status)
			return;
	}
	block->flags |= COSY_BLOCK_END;
}

s64 cosy_files(struct cosy_op *op, int *status)
{
	struct files f = {
		.op = op,
		.dirfd = (int)op->args[0],
		.offset = op->args[6],
		.most_data = op->args[7],
	};
	struct cosy_block block = { .parent = ~0u };
	bool opened;

	if (f.offset > LLONG_MAX - U32_MAX)
		return -EINVAL;
	if (cosy_room(op) < sizeof(block))
		return -ENOSPC;
	op->used = sizeof(block);
	f.dir_error = cosy_directory(f.dirfd, &f.dir);
	opened = !f.dir_error;
	if (opened)
		f.dir_error = cosy_may_search(&f.dir);
	all_files(&f, &block);
	if (opened)
		path_put(&f.dir);
	block.bytes = op->used;
	memcpy(op->out, &block, sizeof(block));
	*status = f.status;
	return block.n;
}
