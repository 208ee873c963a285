// SPDX-License-Identifier: GPL-2.0
/* Which files may be read ahead of a program that has not asked yet: those where nobody could tell. */
#include <linux/dcache.h>
#include <linux/fsnotify_backend.h>
#include <linux/ktime.h>

#include "cosy.h"

/*
 * As atime_needs_update(), which is not exported. Stable for as long as nobody
 * writes, a day at most under relatime.
 */
bool cosy_atime_is_stable(const struct path *path, const struct kstat *st, time64_t now)
{
	const struct inode *inode = d_backing_inode(path->dentry);
	int mnt = path->mnt->mnt_flags;

	if (IS_NOATIME(inode) || (mnt & (MNT_NOATIME | MNT_READONLY)))
		return true;
	if (S_ISDIR(inode->i_mode) &&
	    ((mnt & MNT_NODIRATIME) || (inode->i_sb->s_flags & SB_NODIRATIME)))
		return true;
	return (mnt & MNT_RELATIME) && timespec64_compare(&st->atime, &st->mtime) > 0 &&
	       timespec64_compare(&st->atime, &st->ctime) > 0 &&
	       now - st->atime.tv_sec < 23 * 60 * 60;
}

#ifdef CONFIG_FSNOTIFY
static bool sb_is_watched(const struct super_block *sb)
{
#ifdef HAVE_FSNOTIFY_SB_INFO
	const struct fsnotify_sb_info *info = READ_ONCE(sb->s_fsnotify_info);

	return info && rcu_access_pointer(info->sb_marks);
#else
	return rcu_access_pointer(sb->s_fsnotify_marks);
#endif
}

/* Marks on a whole mount are the kernel's own to see. */
bool cosy_is_marked(const struct path *path)
{
	const struct dentry *dentry = path->dentry;
	const struct inode *dir;
	bool watched;

	if (READ_ONCE(d_inode(dentry)->i_fsnotify_mask) || sb_is_watched(dentry->d_sb))
		return true;
	/* the flag of a watched parent stays for a while when the watch is gone */
	rcu_read_lock();
	dir = d_inode_rcu(READ_ONCE(dentry->d_parent));
	watched = !dir || READ_ONCE(dir->i_fsnotify_mask);
	rcu_read_unlock();
	return watched;
}
#else
bool cosy_is_marked(const struct path *path)
{
	return false;
}
#endif

/* An open would break a lease; any close takes the POSIX locks of its process away. */
static bool is_locked(const struct inode *inode)
{
	const struct file_lock_context *locks = smp_load_acquire(&inode->i_flctx);

	return locks && (!list_empty(&locks->flc_lease) || !list_empty(&locks->flc_posix));
}

bool cosy_may_be_ahead(const struct path *path, const struct kstat *st)
{
	const struct inode *inode = d_inode(path->dentry);

	return cosy_size_is_true(inode) && !(path->dentry->d_flags & DCACHE_OP_REVALIDATE) &&
	       !is_locked(inode) && !cosy_is_marked(path) &&
	       cosy_atime_is_stable(path, st, ktime_get_real_seconds());
}
