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

static int mounted(struct cosy_found *found)
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

int cosy_child_slow(const struct path *dir, const char *name, u32 len, struct cosy_found *found)
{
	struct dentry *child = found->path.dentry;

	if (child && ((child->d_flags & DCACHE_OP_REVALIDATE) || d_is_negative(child))) {
		dput(child);
		child = NULL;
	}
	if (!child)
		child = cosy_lookup_slow(cosy_mnt_idmap(dir->mnt), name, dir->dentry, len);
	if (IS_ERR(child))
		return PTR_ERR(child);
	found->path.dentry = child;
	return child->d_flags & DCACHE_MANAGED_DENTRY ? mounted(found) : 0;
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
