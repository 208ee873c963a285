// SPDX-License-Identifier: GPL-2.0
/* COSY_OP_FILES: attributes and contents of files by name. */
#include <asm/word-at-a-time.h>

#include "cosy.h"

struct files {
	struct cosy_op *op;
	struct path dir;
	int dirfd;
	int dir_error; /* of dirfd, or of the permission to search it */
	int status;
	/* the file at hand; its name, if it is short */
	struct cosy_found found;
	struct cosy_record record;
	struct kstat st;
	u64 name[(NAME_MAX + 8) / 8];
	/* the directory that the last name with slashes led to, and the part of the name that says so */
	struct path parent;
	const char *prefix;
	u32 prefix_len; /* its last slash included; 0: none is known */
	int parent_error; /* of the permission to search it */
};

/*
 * A name out of memory that may change under us, into f->name as far as it is
 * short; its length, or `left` if it does not end.
 */
static u32 take_name(struct files *f, u32 at)
{
	const struct word_at_a_time constants = WORD_AT_A_TIME_CONSTANTS;
	const char *from = f->op->names + at;
	u32 left = f->op->names_bytes - at, len;
	unsigned long nul, word;

	for (len = 0; len < left && len < sizeof(f->name); len += 8) {
		if (likely(left - len >= 8)) {
			word = get_unaligned((const unsigned long *)(from + len));
		} else {
			word = 0;
			memcpy(&word, from + len, left - len);
		}
		if (has_zero(word, &nul, &constants)) {
			nul = create_zero_mask(prep_zero_mask(word, nul, &constants));
			f->name[len / 8] = word & zero_bytemask(nul);
			return len + find_zero(nul);
		}
		f->name[len / 8] = word;
	}
	if (len < left)
		len += strnlen(from + len, left - len);
	return min(len, left);
}

/* A single component that is neither empty nor a dot. */
static bool is_plain(const struct files *f, u32 len)
{
	const char *name = (const char *)f->name;

	return len && !memchr(name, '/', len) && f->name[0] != '.' &&
	       f->name[0] != ('.' | '.' << 8);
}

#define WALK 1

/* By a short name. 0, -errno, or WALK: the kernel's own walk must tell. */
static int child(const struct files *f, u32 len, struct cosy_found *found)
{
	const char *name = (const char *)f->name;

	if (len >= sizeof(f->name))
		return WALK;
	/* no child in the dcache has a name that is not plain */
	if (likely(!f->dir_error && cosy_child_cached(&f->dir, name, len, found)))
		return 0;
	if (!is_plain(f, len))
		return WALK;
	return f->dir_error ?: cosy_child_slow(&f->dir, name, len, found);
}

static void forget_parent(struct files *f)
{
	if (f->prefix_len)
		path_put(&f->parent);
	f->prefix_len = 0;
}

/* Paths that come together are often of one directory: its path is walked once. */
static void remember_parent(struct files *f, u32 at, u32 len, const struct path *path)
{
	const char *name = f->op->names + at;
	u32 prefix = len;

	forget_parent(f);
	while (prefix && name[prefix - 1] != '/')
		prefix--;
	/* not where the last component is a mount point, a dot, or the slash itself */
	if (!prefix || prefix == len || name[prefix] == '.' || path->dentry == path->mnt->mnt_root)
		return;
	f->parent.mnt = mntget(path->mnt);
	f->parent.dentry = dget_parent(path->dentry);
	f->prefix = name;
	f->prefix_len = prefix;
	f->parent_error = cosy_may_search(&f->parent);
}

/* By a path whose directory is known. As child(). */
static int child_of_parent(const struct files *f, u32 at, u32 len, struct cosy_found *found)
{
	const char *name = f->op->names + at;

	if (!f->prefix_len || len <= f->prefix_len || len - f->prefix_len > NAME_MAX ||
	    f->parent_error || memcmp(name, f->prefix, f->prefix_len) ||
	    memchr(name + f->prefix_len, '/', len - f->prefix_len))
		return WALK;
	if (cosy_child_cached(&f->parent, name + f->prefix_len, len - f->prefix_len, found))
		return 0;
	if (found->path.dentry)
		dput(found->path.dentry);
	return WALK;
}

static int walk(struct files *f, u32 at, u32 len, bool follow, struct cosy_found *found)
{
	int err = follow ? WALK : child_of_parent(f, at, len, found);

	if (err != WALK)
		return err;
	if (!f->op->names_user)
		return -EFAULT;
	found->mount = false;
	found->held = true;
	err = cosy_user_path_at(f->dirfd, (const char __user *)(f->op->names_user + at),
				follow ? LOOKUP_FOLLOW : 0, &found->path);
	if (!err && !follow)
		remember_parent(f, at, len, &found->path);
	return err;
}

static int find(struct files *f, u32 len, u32 at, struct cosy_found *found)
{
	bool follow = !(f->op->flags & COSY_WANT_NOFOLLOW);
	int err = child(f, len, found);

	if (err != WALK) {
		if (err || !follow || !d_is_symlink(found->path.dentry))
			return err;
		cosy_found_put(found);
	}
	return walk(f, at, len, follow, found);
}

/* False: no room. */
static bool contents(struct files *f, struct cosy_record *r, const struct path *path,
		     const struct kstat *st, bool first)
{
	u32 flags = f->op->flags;

	if (S_ISLNK(st->mode) && (flags & COSY_WANT_LINK))
		return cosy_record_link(r, f->op, path);
	if (S_ISREG(st->mode) && (flags & COSY_WANT_DATA))
		return cosy_record_data(r, f->op, path, st, !first, &f->status);
	if (!S_ISREG(st->mode) && !S_ISDIR(st->mode) && !S_ISLNK(st->mode))
		r->flags |= COSY_ENTRY_SPECIAL;
	else if ((flags & COSY_WANT_DATA) && !S_ISREG(st->mode))
		cosy_record_no_data(r, S_ISDIR(st->mode) ? -EISDIR : -ELOOP);
	return true;
}

/* False: no room. */
static bool one_file(struct files *f, u32 at, u32 len, bool first)
{
	struct cosy_op *op = f->op;
	struct cosy_found *found = &f->found;
	struct cosy_record *r = &f->record;
	bool fits = true;
	u64 *name;
	int err;

	if (!cosy_record_start(r, op, 0, len))
		return false;
	if (likely(len < sizeof(f->name))) {
		cosy_record_put_name(r, 0, f->name, len);
	} else {
		name = cosy_record_name(r, 0);
		name[len / 8] = 0;
		memcpy(name, op->names + at, len);
	}
	f->st.mode = 0;
	err = len < PATH_MAX ? find(f, len, at, found) : -ENAMETOOLONG;
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

	while (at < op->names_bytes) {
		len = take_name(f, at);
		if (len == op->names_bytes - at || len > U16_MAX) {
			block->error = EINVAL;
			return;
		}
		f->status = cosy_tick(op->budget);
		if (f->status || !one_file(f, at, len, !block->n))
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
	};
	struct cosy_block block = { .parent = ~0u };
	bool opened;

	op->data_offset = op->args[6];
	op->most_data = min_t(u64, op->args[7], S32_MAX);
	if (op->data_offset > LLONG_MAX - U32_MAX)
		return -EINVAL;
	if (cosy_room(op) < sizeof(block))
		return -ENOSPC;
	op->used = sizeof(block);
	f.dir_error = cosy_directory(f.dirfd, &f.dir);
	opened = !f.dir_error;
	if (opened)
		f.dir_error = cosy_may_search(&f.dir);
	all_files(&f, &block);
	forget_parent(&f);
	if (opened)
		path_put(&f.dir);
	block.bytes = op->used;
	memcpy(op->out, &block, sizeof(block));
	*status = f.status;
	return block.n;
}
