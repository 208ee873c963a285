// SPDX-License-Identifier: GPL-2.0
/*
 * From a name to a path. The permission to search a directory is checked once
 * for many names, not for each; so a child is taken straight from the dcache.
 */
#include <linux/dcache.h>
#include <linux/fs_struct.h>
#include <linux/file.h>
#include <linux/sched.h>

#include "cosy.h"

int cosy_may_search(const struct path *dir)
{
	return inode_permission(cosy_mnt_idmap(dir->mnt), d_inode(dir->dentry), MAY_EXEC);
}

static __always_inline struct dentry *lookup(const struct path *dir, const char *name, u32 len)
{
	struct qstr qname = QSTR_INIT(name, len);
	struct dentry *parent = dir->dentry, *child = NULL;

	if (likely(!(parent->d_flags & (DCACHE_OP_HASH | DCACHE_OP_COMPARE)))) {
		qname.hash = full_name_hash(parent, name, len);
		child = d_lookup(parent, &qname);
	}
	if (child && likely(!(child->d_flags & DCACHE_OP_REVALIDATE) && d_is_positive(child)))
		return child;
	if (child)
		dput(child);
	return cosy_lookup_slow(cosy_mnt_idmap(dir->mnt), name, parent, len);
}

static noinline int mounted(struct cosy_found *found)
{
	const struct vfsmount *mnt = found->path.mnt;
	int err;

	mntget(found->path.mnt);
	err = cosy_follow_down(&found->path);
	if (err) {
		path_put(&found->path);
		return err;
	}
	found->held = true;
	found->mount = found->path.mnt != mnt;
	return 0;
}

int cosy_child(const struct path *dir, const char *name, u32 len, struct cosy_found *found)
{
	struct dentry *dentry = lookup(dir, name, len);

	if (IS_ERR(dentry))
		return PTR_ERR(dentry);
	found->path.dentry = dentry;
	found->path.mnt = dir->mnt;
	found->mount = false;
	found->held = false;
	if (unlikely(dentry->d_flags & DCACHE_MANAGED_DENTRY))
		return mounted(found);
	return 0;
}

int cosy_directory(int dirfd, struct path *dir)
{
	struct file *file;

	if (dirfd == AT_FDCWD) {
		get_fs_pwd(current->fs, dir);
		return 0;
	}
	file = fget_raw(dirfd);
	if (!file)
		return -EBADF;
	*dir = file->f_path;
	path_get(dir);
	fput(file);
	if (d_is_dir(dir->dentry))
		return 0;
	path_put(dir);
	return -ENOTDIR;
}
