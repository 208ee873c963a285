/* SPDX-License-Identifier: GPL-2.0 */
/*
 * All that differs between Linux 5.15 and 6.12. Kbuild defines HAVE_* by what
 * it finds in the kernel's headers.
 */
#ifndef COSY_COMPAT_H
#define COSY_COMPAT_H

#include <linux/fs.h>
#ifdef HAVE_FILELOCK
#include <linux/filelock.h>
#endif
#include <linux/ima.h>
#include <linux/mm.h>
#include <linux/mount.h>
#include <linux/namei.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <linux/security.h>
#include <linux/version.h>
#include <linux/xattr.h>
#ifdef HAVE_LINUX_UNALIGNED
#include <linux/unaligned.h>
#else
#include <asm/unaligned.h>
#endif

/* commit 256c8aed2b42 ("fs: introduce dedicated idmap type for mounts") (in v6.2) */
#ifdef HAVE_MNT_IDMAP
typedef struct mnt_idmap cosy_idmap;
#define cosy_mnt_idmap(mnt) mnt_idmap(mnt)
#else
typedef struct user_namespace cosy_idmap;
#define cosy_mnt_idmap(mnt) mnt_user_ns(mnt)
#endif

/* commit 25885a35a720 ("Change calling conventions for filldir_t") (in v6.1) */
#ifdef HAVE_FILLDIR_BOOL
typedef bool cosy_filldir_ret;
#define COSY_FILLDIR_GO_ON true
#define COSY_FILLDIR_STOP false
#else
typedef int cosy_filldir_ret;
#define COSY_FILLDIR_GO_ON 0
#define COSY_FILLDIR_STOP (-ENOSPC)
#endif

static inline struct dentry *cosy_lookup_slow(cosy_idmap *idmap, const char *name,
					      struct dentry *dir, int len)
{
#ifdef HAVE_LOOKUP_ONE_POSITIVE
	return lookup_one_positive_unlocked(idmap, name, dir, len);
#else
	/* v5.15: no idmapped mount is searched this way, cosy_may_search() saw to that */
	return lookup_positive_unlocked(name, dir, len);
#endif
}

/* Down into what is mounted at path; 0, or -errno. An automount is not triggered. */
static inline int cosy_follow_down(struct path *path)
{
#ifdef HAVE_FOLLOW_DOWN_FLAGS
	int err = follow_down(path, 0);
#else
	int err = follow_down(path);
#endif
	/* an automount point that nobody triggered yet stands for itself */
	return err == -EISDIR ? 0 : err;
}

static inline int cosy_user_path_at(int dirfd, const char __user *name, unsigned int flags,
				    struct path *path)
{
#ifdef HAVE_USER_PATH_AT_EMPTY
	return user_path_at_empty(dirfd, name, flags, path, NULL);
#else
	return user_path_at(dirfd, name, flags, path);
#endif
}

/*
 * Who tells inotify of an open moved twice, and no header shows it: out of
 * open(2) into do_dentry_open() by commit 7b8c9d7bb457 ("fsnotify: move
 * fsnotify_open() hook into do_dentry_open()") (in v6.5), and on into vfs_open()
 * by commit 7d1cf5e624ef ("vfs: generate FS_CREATE before FS_OPEN when
 * ->atomic_open used.") (in v6.11).
 */
#define COSY_DENTRY_OPEN_NOTIFIES (LINUX_VERSION_CODE >= KERNEL_VERSION(6, 5, 0))
#define COSY_FINISH_OPEN_NOTIFIES                                                                  \
	(COSY_DENTRY_OPEN_NOTIFIES && LINUX_VERSION_CODE < KERNEL_VERSION(6, 11, 0))

/* What opening a file does behind dentry_open(): measurement and appraisal. */
static inline int cosy_post_open(struct file *file)
{
#ifdef HAVE_FILE_POST_OPEN
	return security_file_post_open(file, MAY_READ);
#else
	return ima_file_check(file, MAY_READ);
#endif
}

static inline void cosy_vm_flags_set(struct vm_area_struct *vma, unsigned long flags)
{
#ifdef HAVE_VM_FLAGS_SET
	vm_flags_set(vma, flags);
#else
	vma->vm_flags |= flags;
#endif
}

static inline void cosy_vm_flags_clear(struct vm_area_struct *vma, unsigned long flags)
{
#ifdef HAVE_VM_FLAGS_SET
	vm_flags_clear(vma, flags);
#else
	vma->vm_flags &= ~flags;
#endif
}

/* commit 077c212f0344 ("fs: new accessor methods for atime and mtime") (in v6.7) */
#ifdef HAVE_INODE_GET_ATIME
#define cosy_inode_atime(inode) inode_get_atime(inode)
#define cosy_inode_mtime(inode) inode_get_mtime(inode)
#define cosy_inode_ctime(inode) inode_get_ctime(inode)
#else
#define cosy_inode_atime(inode) ((inode)->i_atime)
#define cosy_inode_mtime(inode) ((inode)->i_mtime)
#define cosy_inode_ctime(inode) ((inode)->i_ctime)
#endif

/*
 * getxattr(name, NULL, 0). Since commit e499214ce3ef ("acl: don't depend on IOP_XATTR")
 * and its series (in v6.2) ACLs have a way of their own.
 */
static inline ssize_t cosy_getxattr_size(cosy_idmap *idmap, struct dentry *dentry, const char *name)
{
#if defined(HAVE_VFS_GET_ACL) && defined(CONFIG_FS_POSIX_ACL)
	if (!strcmp(name, XATTR_NAME_POSIX_ACL_ACCESS) ||
	    !strcmp(name, XATTR_NAME_POSIX_ACL_DEFAULT)) {
		struct posix_acl *acl = vfs_get_acl(idmap, dentry, name);
		ssize_t size;

		if (IS_ERR(acl))
			return PTR_ERR(acl);
		if (!acl)
			return -ENODATA;
		size = posix_acl_xattr_size(acl->a_count);
		posix_acl_release(acl);
		return size;
	}
#endif
	return vfs_getxattr(idmap, dentry, name, NULL, 0);
}

#endif
