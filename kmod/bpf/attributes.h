/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The attributes of one inode, as its file system's own getattr would report
 * them. Proven file system by file system, see tests/native/test_bpf_conformance.py.
 */
#ifndef COSY_ATTRIBUTES_H
#define COSY_ATTRIBUTES_H

#include "constants.h"
#include "kernel_access.h"

#include "../uapi/cosy_bpf.h"

extern const void ext4_getattr __ksym __weak;
extern const void ext4_file_getattr __ksym __weak;
extern const void shmem_getattr __ksym __weak; /* tmpfs */

const volatile struct cosy_constants constants = {};

/* What holds for all inodes of one run. */
struct view {
	__u8 blkbits;
	_Bool multigrain; /* reading ctime marks the inode: leave that to the kernel */
	_Bool noatime, nodiratime, relatime; /* of mount and file system together */
	_Bool acl;
	__s64 day_ago; /* seconds: an older atime is updated even with relatime */
};

enum getattr_kind { GETATTR_OTHER, GETATTR_EXT4, GETATTR_EXT4_FILE, GETATTR_SHMEM };

static __always_inline enum getattr_kind getattr_of(const struct inode *inode)
{
	const void *getattr = inode->i_op->getattr;

	if (!getattr)
		return GETATTR_OTHER;
	if (getattr == &ext4_file_getattr)
		return GETATTR_EXT4_FILE;
	if (getattr == &ext4_getattr)
		return GETATTR_EXT4;
	if (getattr == &shmem_getattr)
		return GETATTR_SHMEM;
	return GETATTR_OTHER;
}

static __always_inline struct ext4_inode_info *ext4_info(const struct inode *inode)
{
	return CONTAINER_OF(struct ext4_inode_info, vfs_inode, inode);
}

static __always_inline struct shmem_inode_info *shmem_info(const struct inode *inode)
{
	return CONTAINER_OF(struct shmem_inode_info, vfs_inode, inode);
}

/* No extended attribute at all, so no access control list either. */
static __always_inline _Bool has_no_xattr(const struct inode *inode, enum getattr_kind kind)
{
	if (kind == GETATTR_SHMEM)
		return !shmem_info(inode)->xattrs.rb_root.rb_node && !inode->i_acl &&
		       !inode->i_default_acl;
	return constants.ext4_state_xattr && !ext4_info(inode)->i_file_acl &&
	       !(ext4_info(inode)->i_flags & constants.ext4_state_xattr);
}

/* The flags that statx() would report are all clear. */
static __always_inline _Bool is_plain(const struct inode *inode, enum getattr_kind kind)
{
	if (inode->i_flags & (S_DAX | S_AUTOMOUNT))
		return 0;
	if (kind == GETATTR_SHMEM)
		return !(shmem_info(inode)->fsflags & SHMEM_STATX_FLAGS);
	return !(ext4_info(inode)->i_flags & EXT4_STATX_FLAGS);
}

/* One number that orders times as struct timespec64 does. */
static __always_inline __s64 time_key(__s64 sec, __u32 nsec)
{
	return sec << 30 | nsec;
}

/* atime_needs_update() is false, and stays so for the life of an answer. */
static __always_inline _Bool atime_is_stable(const struct view *view, const struct inode *inode,
					     __s64 atime, __s64 mtime, __s64 ctime)
{
	if (view->noatime || (inode->i_flags & S_NOATIME))
		return 1;
	if (view->nodiratime && (inode->i_mode & S_IFMT) == S_IFDIR)
		return 1;
	return view->relatime && mtime < atime && ctime < atime && (atime >> 30) > view->day_ago;
}

static __always_inline void put_attributes(struct cosy_bpf_child *child, const struct view *view,
					   const struct inode *inode, enum getattr_kind kind)
{
	__u64 blocks = inode->i_blocks;
	__s64 atime_sec = inode->i_atime_sec, mtime_sec = inode->i_mtime_sec;
	__s64 ctime_sec = inode->i_ctime_sec;
	__u32 atime_nsec = inode->i_atime_nsec, mtime_nsec = inode->i_mtime_nsec;
	__u32 ctime_nsec = inode->i_ctime_nsec;
	__u32 uid = inode->i_uid.val, gid = inode->i_gid.val;
	__u32 flags = 0;

	if (view->multigrain) {
		if (!(ctime_nsec & I_CTIME_QUERIED))
			flags |= COSY_BPF_DECLINE;
		ctime_nsec &= ~I_CTIME_QUERIED;
	}
	if (kind == GETATTR_SHMEM) { /* shmem_getattr() would recount */
		struct shmem_inode_info *shmem = shmem_info(inode);

		if (shmem->alloced - shmem->swapped != inode->i_mapping->nrpages)
			flags |= COSY_BPF_DECLINE;
	}
	if (kind == GETATTR_EXT4_FILE) {
		struct ext4_inode_info *ext4 = ext4_info(inode);
		__u64 reserved = ext4->i_reserved_data_blocks;

		if (ext4->i_flags & EXT4_INLINE_DATA_FL && ext4->i_inline_off)
			flags |= COSY_BPF_DECLINE;
		if (reserved) { /* delayed allocation: counted in clusters */
			struct ext4_sb_info *sbi =
				CAST(struct ext4_sb_info, inode->i_sb->s_fs_info);

			blocks += reserved << (sbi->s_cluster_bits & 31) << (view->blkbits - 9);
		}
	}
	if (inode->i_blkbits != view->blkbits || uid == (__u32)-1 || gid == (__u32)-1)
		flags |= COSY_BPF_DECLINE;
	if (has_no_xattr(inode, kind))
		flags |= COSY_BPF_XATTR_NONE;
	if (is_plain(inode, kind))
		flags |= COSY_BPF_ATTR_PLAIN;
	if (atime_is_stable(view, inode, time_key(atime_sec, atime_nsec),
			    time_key(mtime_sec, mtime_nsec), time_key(ctime_sec, ctime_nsec)))
		flags |= COSY_BPF_ATIME_STABLE;

	child->ino = inode->i_ino;
	child->size = inode->i_size;
	child->blocks = blocks;
	child->atime_sec = atime_sec;
	child->mtime_sec = mtime_sec;
	child->ctime_sec = ctime_sec;
	child->atime_nsec = atime_nsec;
	child->mtime_nsec = mtime_nsec;
	child->ctime_nsec = ctime_nsec;
	child->nlink = inode->__i_nlink;
	child->uid = uid;
	child->gid = gid;
	child->rdev = inode->i_rdev;
	child->mode = inode->i_mode;
	child->flags = flags;
}

#endif
