/* SPDX-License-Identifier: (GPL-2.0 WITH Linux-syscall-note) OR MIT */
/*
 * The eBPF executor's call: the context of one BPF_PROG_RUN, private to the
 * caller. The kernel copies it in, the program fills it, the kernel copies it
 * out, so results of one process are never visible to another.
 *
 * data[] holds directory blocks, one behind the other: a struct cosy_bpf_dir,
 * then n struct cosy_bpf_child, each followed by its name, padded with NULs
 * to 8 bytes. The first block is the directory that was asked for, the others
 * are directories below it, each whole.
 */
#ifndef COSY_BPF_H
#define COSY_BPF_H

#ifndef __bpf__
#include <linux/types.h>
#endif

#define COSY_BPF_ABI 2
#define COSY_BPF_PIN_DIR "/sys/fs/bpf/cosy"
/* One program per context size; the kernel wants at least the size it was verified for. */
#define COSY_BPF_SMALL 4096
#define COSY_BPF_LARGE 65528
#define COSY_BPF_PIN_SMALL COSY_BPF_PIN_DIR "/dirscan_small"
#define COSY_BPF_PIN_LARGE COSY_BPF_PIN_DIR "/dirscan_large"

enum cosy_bpf_status {
	COSY_BPF_OK = 0,
	COSY_BPF_BADFD, /* no such descriptor, or not open for reading */
	COSY_BPF_NOTDIR,
	COSY_BPF_FS, /* a file system not proven to match its own getattr */
	COSY_BPF_IDMAP, /* idmapped mount */
	COSY_BPF_USERNS, /* not the initial user namespace */
	COSY_BPF_PERM, /* search permission is not certain */
	COSY_BPF_FULL, /* cut: resume with skip = seen */
	COSY_BPF_MOVED, /* the list of children changed under us */
	COSY_BPF_LIMIT, /* too many children, negative ones included */
	COSY_BPF_WATCHED, /* ptrace, seccomp or audit on the caller */
	COSY_BPF_BUSY, /* no free scratch space: try again or go native */
	COSY_BPF_ABI_MISMATCH,
};

struct cosy_bpf_dir {
	__u32 n; /* children that follow */
	__u32 bytes; /* of the whole block, this header included */
	__u32 parent; /* offset in data[] of the child record it belongs to; ~0: none */
	__u32 flags;
	__u64 ino; /* of the directory */
}; /* 24 bytes */
#define COSY_BPF_DIR_COMPLETE 0x1 /* every cached child was visited */

/* struct cosy_bpf_child.flags */
#define COSY_BPF_DECLINE 0x1 /* attributes are not certain: ask the kernel */
#define COSY_BPF_XATTR_NONE 0x2 /* the inode has no extended attribute at all */
#define COSY_BPF_ATIME_STABLE 0x4 /* reading it would not change its atime now */
#define COSY_BPF_ATTR_PLAIN 0x8 /* statx attributes are all clear */

struct cosy_bpf_child {
	__u64 ino;
	__u64 size; /* bytes */
	__u64 blocks; /* of 512 bytes */
	__s64 atime_sec, mtime_sec, ctime_sec;
	__u32 atime_nsec, mtime_nsec, ctime_nsec;
	__u32 nlink;
	__u32 uid, gid;
	__u32 rdev; /* as in the kernel: major << 20 | minor */
	__u16 mode;
	__u8 flags;
	__u8 namelen; /* bytes, without the padding */
	/* name follows */
}; /* 80 bytes */

/* struct cosy_bpf_run.flags */
#define COSY_BPF_BELOW 0x1 /* no children of the root: the blocks of its subdirectories, in order */

struct cosy_bpf_run {
	/* in */
	__u32 abi;
	__s32 dirfd;
	__u32 skip; /* children of the root to pass over (after COSY_BPF_FULL): their seen */
	__u32 depth; /* levels of subdirectories to add while there is room */
	/* out */
	__u32 status; /* enum cosy_bpf_status */
	__u32 used; /* bytes of data[] */
	__u32 n_dirs;
	__u32 n_children;
	__u32 seen; /* children of the root visited, skipped ones included */
	__u32 dev; /* as in the kernel: major << 20 | minor */
	__u32 blksize;
	__u32 mnt_id; /* as statx's stx_mnt_id */
	__u32 sb_flags; /* COSY_BPF_SB_* */
	__u32 flags; /* in: COSY_BPF_BELOW or 0 */
	__u64 dir_ino; /* of the root */
	__u8 data[];
}; /* 64 bytes */
#define COSY_BPF_SB_ACL 0x1 /* POSIX ACLs are on: a missing one is ENODATA */

#endif
