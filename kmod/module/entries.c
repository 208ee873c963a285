// SPDX-License-Identifier: GPL-2.0
/*
 * COSY_OP_ENTRIES: a directory's entries with their attributes, and those of
 * its subdirectories. Names are collected first and looked up afterwards, since
 * iterate_dir() holds the lock that a lookup may need.
 */
#include <asm/word-at-a-time.h>
#include <linux/file.h>
#include <linux/slab.h>

#include "cosy.h"

#define MAX_SUBDIRS 1024 /* that wait for their own block */

/* A name of a directory, and where it came from. */
struct name {
	loff_t at; /* position of this entry */
	u16 len;
	u16 type; /* DT_* */
	u64 text[]; /* COSY_NAME_BYTES(len) */
};

struct names {
	struct dir_context dc;
	u8 *buffer;
	u32 used;
};

/* A subdirectory whose entries may ride along. */
struct subdir {
	struct path path;
	u32 parent; /* offset of its entry */
	u32 depth; /* of itself; the root has 0 */
};

struct walk {
	struct cosy_op *op;
	struct names names;
	struct subdir *subdirs; /* a queue: [first, n) wait */
	u32 first, n;
	u32 most_depth;
	char xattrs[COSY_MAX_XATTRS][XATTR_NAME_MAX + 1];
	u32 n_xattrs;
	s64 entries; /* in all blocks */
	int status;
	/* the entry at hand; here, where the compiler does not clear them for each */
	struct cosy_found found;
	struct cosy_record record;
	struct kstat st;
};

static u32 name_bytes(u32 len)
{
	return sizeof(struct name) + COSY_NAME_BYTES(len);
}

static bool is_dot(const char *name, int len)
{
	return name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.'));
}

static cosy_filldir_ret collect(struct dir_context *dc, const char *text, int length, loff_t at,
				u64 ino, unsigned int type)
{
	struct names *names = container_of(dc, struct names, dc);
	struct name *name = (struct name *)(names->buffer + names->used);
	u32 len = length, bytes = name_bytes(len), i;

	if (is_dot(text, length))
		return COSY_FILLDIR_GO_ON;
	if (len > NAME_MAX || names->used + bytes > COSY_NAMES_BYTES)
		return COSY_FILLDIR_STOP;
	names->used += bytes;
	name->at = at;
	name->len = len;
	name->type = type;
	for (i = 0; i < len / 8; i++)
		name->text[i] = load_unaligned_zeropad(text + 8 * i);
	name->text[i] = load_unaligned_zeropad(text + 8 * i) & bytemask_from_count(len % 8);
	return COSY_FILLDIR_GO_ON;
}

static void xattrs(struct walk *w, struct cosy_record *r, const struct path *path)
{
	__s32 *to = (__s32 *)(r->e + 1);
	u32 i;

	for (i = 0; i < w->n_xattrs; i++)
		to[i] = cosy_getxattr_size(cosy_mnt_idmap(path->mnt), path->dentry, w->xattrs[i]);
}

/* Its own block shall follow, if there is a place in the queue. */
static void remember(struct walk *w, const struct path *path, u32 depth)
{
	struct subdir *s;

	if (depth > w->most_depth || w->n == MAX_SUBDIRS)
		return;
	s = &w->subdirs[w->n++];
	s->path = *path;
	path_get(path);
	s->parent = w->op->used;
	s->depth = depth;
}

/* What an entry was asked for beyond attributes. False: no room. */
static bool contents(struct walk *w, struct cosy_record *r, const struct path *path,
		     const struct kstat *st, bool first)
{
	u32 flags = w->op->flags;

	if (S_ISLNK(st->mode))
		return !(flags & COSY_WANT_LINK) || cosy_record_link(r, w->op, path);
	if (S_ISREG(st->mode))
		return !(flags & COSY_WANT_DATA) ||
		       cosy_record_data(r, w->op, path, st, !first, &w->status);
	if (!S_ISDIR(st->mode))
		r->flags |= COSY_ENTRY_SPECIAL;
	return true;
}

/* False: no room for this entry. `may`: the permission to search the directory, or -errno. */
static bool one_entry(struct walk *w, const struct path *dir, const struct name *name, int may,
		      u32 depth, struct cosy_block *block)
{
	struct cosy_op *op = w->op;
	struct cosy_found *found = &w->found;
	struct cosy_record *r = &w->record;
	bool fits = true;
	int err;

	if (!cosy_record_start(r, op, w->n_xattrs, name->len))
		return false;
	cosy_record_put_name(r, w->n_xattrs, name->text, name->len);
	if (op->flags & COSY_WANT_NAMES) {
		cosy_record_failed(r, 0);
		cosy_record_end(r, op, name->type);
		block->n++;
		return true;
	}
	err = may ?: cosy_child(dir, (const char *)name->text, name->len, found);
	if (err == -ENOENT)
		return true; /* it went away since its name was read */
	if (err) {
		cosy_record_failed(r, err);
	} else {
		if (unlikely(found->mount))
			r->flags |= COSY_ENTRY_MOUNT;
		if (w->n_xattrs)
			xattrs(w, r, &found->path);
		if (cosy_record_attributes(r, op, &found->path, &w->st)) {
			fits = contents(w, r, &found->path, &w->st, !block->n);
			if (fits && S_ISDIR(w->st.mode))
				remember(w, &found->path, depth + 1);
		}
		cosy_found_put(found);
	}
	if (!fits)
		return false;
	cosy_record_end(r, op, name->type);
	block->n++;
	return true;
}

/*
 * Entries of an open directory into block, until something ends it. Where the
 * rest begins is left in block->next.
 */
static void all_entries(struct walk *w, struct file *file, u32 depth, struct cosy_block *block)
{
	const struct path *dir = &file->f_path;
	const struct name *name;
	u32 at;
	int err;

	for (;;) {
		w->names.used = 0;
		err = iterate_dir(file, &w->names.dc);
		if (err || !w->names.used)
			break;
		err = cosy_may_search(dir);
		for (at = 0; at < w->names.used; at += name_bytes(name->len)) {
			name = (const struct name *)(w->names.buffer + at);
			block->next = name->at;
			w->status = cosy_tick(w->op->budget);
			if (w->status || !one_entry(w, dir, name, err, depth, block))
				return;
			/* the entry is there, but its data took too long */
			if (w->status) {
				at += name_bytes(name->len);
				block->next = at < w->names.used ?
						      ((struct name *)(w->names.buffer + at))->at :
						      w->names.dc.pos;
				return;
			}
		}
	}
	block->next = w->names.dc.pos;
	if (err)
		block->error = -cosy_errno(err);
	else
		block->flags |= COSY_BLOCK_END;
}

/*
 * May a server have to be asked what is in it? A file system that looks again at what was found says so. Its root
 * is never looked up; on a disk, the flag means nothing there: on 6.12 ext4's has fscrypt's d_revalidate.
 */
static bool may_be_remote(const struct dentry *dir)
{
	return (dir->d_flags & DCACHE_OP_REVALIDATE) &&
	       !(IS_ROOT(dir) && (dir->d_sb->s_type->fs_flags & FS_REQUIRES_DEV));
}

/* 0, or -errno if there is no block at all. */
static int one_block(struct walk *w, const struct path *dir, u64 position, u32 parent, u32 depth)
{
	struct cosy_op *op = w->op;
	const struct inode *inode = d_inode(dir->dentry);
	struct cosy_block block = { .parent = parent, .ino = inode->i_ino };
	u32 start = op->used;
	struct file *file;
	struct kstat st;
	int err;

	if (cosy_room(op) < sizeof(block))
		return -ENOSPC;
	if (op->pure && may_be_remote(dir->dentry))
		return -EOPNOTSUPP;
	if ((op->flags & COSY_WANT_NAMES) && cosy_is_marked(dir))
		return -EOPNOTSUPP;
	file = cosy_open(dir, O_DIRECTORY | (op->flags & COSY_WANT_NOATIME ? O_NOATIME : 0));
	if (IS_ERR(file))
		return PTR_ERR(file);
	err = vfs_getattr(dir, &st, STATX_INO, AT_NO_AUTOMOUNT);
	if (!err && position)
		err = min_t(loff_t, vfs_llseek(file, position, SEEK_SET), 0);
	if (err)
		goto out;
	block.ino = st.ino;
	block.dev = new_encode_dev(st.dev);
	op->used += sizeof(block);
	all_entries(w, file, depth, &block);
	block.bytes = op->used - start;
	memcpy(op->out + start, &block, sizeof(block));
	w->entries += block.n;
	/* the next ones are welcome only if they are whole */
	if (depth && !(block.flags & COSY_BLOCK_END)) {
		op->used = start;
		w->entries -= block.n;
		err = -ENOSPC;
	}
out:
	fput(file);
	return err;
}

/* NUL-ended names, the last one by two. 0, or -errno. */
static int take_xattrs(struct walk *w)
{
	const char *from = w->op->names;
	u32 left = w->op->names_bytes;

	while (left && READ_ONCE(*from)) {
		u32 len = strnlen(from, min_t(u32, left, XATTR_NAME_MAX + 1));

		if (w->n_xattrs == COSY_MAX_XATTRS || len > XATTR_NAME_MAX || len == left)
			return -EINVAL;
		memcpy(w->xattrs[w->n_xattrs], from, len);
		w->xattrs[w->n_xattrs++][len] = 0;
		from += len + 1;
		left -= len + 1;
	}
	return left && w->n_xattrs ? 0 : -EINVAL;
}

static void subdirs(struct walk *w)
{
	while (w->first < w->n && !w->status) {
		struct subdir *s = &w->subdirs[w->first];
		int err;

		w->status = cosy_tick(w->op->budget);
		if (w->status)
			break;
		err = one_block(w, &s->path, 0, s->parent, s->depth);
		/* no permission, gone: its entry stands without a block */
		if (err == -ENOSPC)
			break;
		path_put(&s->path);
		w->first++;
	}
	while (w->first < w->n)
		path_put(&w->subdirs[w->first++].path);
}

s64 cosy_entries(struct cosy_op *op, int *status)
{
	struct walk *w;
	struct file *file;
	s64 err;

	if (op->args[5] > COSY_MAX_DEPTH)
		return -EINVAL;
	w = kzalloc(sizeof(*w), GFP_KERNEL_ACCOUNT);
	if (!w)
		return -ENOMEM;
	w->op = op;
	w->most_depth = op->args[5];
	op->most_data = min_t(u64, op->args[7], S32_MAX);
	w->names.dc.actor = collect;
	err = op->flags & COSY_WANT_XATTR ? take_xattrs(w) : 0;
	if (err)
		goto out_walk;
	w->names.buffer = op->scratch->names;
	err = -ENOMEM;
	if (w->most_depth) {
		w->subdirs = kvmalloc_array(MAX_SUBDIRS, sizeof(*w->subdirs), GFP_KERNEL_ACCOUNT);
		if (!w->subdirs)
			goto out_walk;
	}
	err = -EBADF;
	file = fget((int)op->args[0]);
	if (!file)
		goto out_subdirs;
	err = -ENOTDIR;
	if (d_is_dir(file->f_path.dentry))
		err = one_block(w, &file->f_path, op->args[4], ~0u, 0);
	fput(file);
	if (!err) {
		subdirs(w);
		err = w->entries;
		*status = w->status;
	}
out_subdirs:
	kvfree(w->subdirs);
out_walk:
	kfree(w);
	return err;
}
