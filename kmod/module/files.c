// SPDX-License-Identifier: GPL-2.0
/* COSY_OP_FILES: attributes and contents of files by name. */
#include "cosy.h"

struct files {
	struct cosy_op *op;
	struct path dir;
	int dirfd;
	int dir_error; /* of dirfd, or of the permission to search it */
	u64 offset, most_data;
	int status;
};

/* One component that is neither empty nor a dot. */
static bool is_plain(const char *name, u32 len)
{
	return len && !memchr(name, '/', len) &&
	       !(name[0] == '.' && len <= 2 && name[len - 1] == '.');
}

/* `plain`: a private copy of the name, or NULL: let the kernel walk the caller's. */
static int find(const struct files *f, const char *plain, u32 len, u32 at, struct path *path,
		bool *mount)
{
	bool follow = !(f->op->flags & COSY_WANT_NOFOLLOW);
	int err;

	if (plain) {
		err = f->dir_error ?: cosy_child(&f->dir, plain, len, path, mount);
		if (err || !follow || !d_is_symlink(path->dentry))
			return err;
		path_put(path);
	}
	*mount = false;
	if (!f->op->names_user)
		return -EFAULT;
	return cosy_user_path_at(f->dirfd, (const char __user *)(f->op->names_user + at),
				 follow ? LOOKUP_FOLLOW : 0, path);
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
static bool one_file(struct files *f, u32 at, u32 len, bool first)
{
	struct cosy_op *op = f->op;
	struct cosy_record r;
	struct path path;
	struct kstat st = { .mode = 0 };
	char name[NAME_MAX + 1];
	bool plain = false, mount = false, fits = true;
	int err;

	if (len <= NAME_MAX) {
		memcpy(name, op->names + at, len);
		name[len] = 0;
		plain = is_plain(name, len);
	}
	if (!cosy_record_start(&r, op, 0, len <= NAME_MAX ? name : op->names + at, len))
		return false;
	err = len < PATH_MAX ? find(f, plain ? name : NULL, len, at, &path, &mount) : -ENAMETOOLONG;
	if (err) {
		cosy_record_failed(&r, err);
	} else {
		if (mount)
			r.flags |= COSY_ENTRY_MOUNT;
		if (cosy_record_attributes(&r, &path, &st))
			fits = contents(f, &r, &path, &st, first);
		path_put(&path);
	}
	if (!fits)
		return false;
	cosy_record_end(&r, op, st.mode >> 12 & 15);
	return true;
}

static void all_files(struct files *f, struct cosy_block *block)
{
	struct cosy_op *op = f->op;
	u32 at = 0;

	while (at < op->names_bytes) {
		u32 left = op->names_bytes - at;
		u32 len = strnlen(op->names + at, left);

		if (len == left || len > U16_MAX) {
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
