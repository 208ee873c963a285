/* SPDX-License-Identifier: (GPL-2.0 WITH Linux-syscall-note) OR MIT */
/*
 * The eBPF executor's call. The program hangs on the tracepoint that the kernel
 * passes when prctl() is asked for an option it does not know; the call itself
 * fails with EINVAL as ever, so nobody else meets it:
 *
 *	prctl(COSY_BPF_OPTION, cookie, dirfd, skip, 0)
 *
 * Results go into memory of the calling thread, registered once per thread: the
 * value of its pidfd in the map COSY_BPF_PIN_BUFFERS is a struct
 * cosy_bpf_buffers. Anyone who can open the map may register memory for any
 * thread, so the cookie, a secret of the process, must lie in that memory, too.
 */
#ifndef COSY_BPF_H
#define COSY_BPF_H

#ifndef __bpf__
#include <linux/types.h>
#define COSY_UPTR
#else
#define COSY_UPTR __attribute__((btf_type_tag("uptr")))
#endif

#define COSY_BPF_ABI 3
#define COSY_BPF_OPTION (0x436f7300 | COSY_BPF_ABI) /* "Cos" */
#define COSY_BPF_PIN_DIR "/sys/fs/bpf/cosy"
#define COSY_BPF_PIN_BUFFERS COSY_BPF_PIN_DIR "/buffers"
#define COSY_BPF_PIN_LINK COSY_BPF_PIN_DIR "/dirscan"

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
	COSY_BPF_LIMIT, /* enough for one run, negative children included: resume, too */
	COSY_BPF_WATCHED, /* ptrace, seccomp or audit on the caller */
	COSY_BPF_NOT_RUN, /* set by the caller before: the program did not come by */
};

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
	/* the name follows, padded with NULs to 8 bytes */
}; /* 80 bytes */

#define COSY_BPF_PAGES 10 /* the kernel has room for eleven pointers */
#define COSY_BPF_PAGE 4096

/* Records of children, one behind the other; none crosses a page's end. */
struct cosy_bpf_page {
	__u8 data[COSY_BPF_PAGE];
};

/* What one run says about the directory; it must not cross a page's end either. */
struct cosy_bpf_run {
	__u64 cookie; /* in: not 0 */
	__u32 status; /* enum cosy_bpf_status */
	__u32 n_children; /* in all pages */
	__u32 seen; /* children visited, skipped ones included */
	__u32 dev; /* as in the kernel: major << 20 | minor */
	__u32 blksize;
	__u32 mnt_id; /* as statx's stx_mnt_id */
	__u64 dir_ino;
	__u32 sb_flags; /* COSY_BPF_SB_* */
	__u16 used[COSY_BPF_PAGES]; /* bytes of each page */
	__u64 dir_size; /* bytes, as its st_size: a hint at the number of children */
	__u64 reserved[7];
}; /* 128 bytes */
#define COSY_BPF_SB_ACL 0x1 /* POSIX ACLs are on: a missing one is ENODATA */

struct cosy_bpf_buffers {
	struct cosy_bpf_run COSY_UPTR *run;
	struct cosy_bpf_page COSY_UPTR *pages[COSY_BPF_PAGES];
};

#endif
