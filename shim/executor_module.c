// SPDX-License-Identifier: MIT
/*
 * The kernel module as executor (kmod/module/): one open, ioctl and close of
 * /dev/cosy per run, since the shim holds no descriptor. Its entries are turned
 * into the records that the eBPF executor writes, which is what results.c keeps.
 */
#include "executor.h"

#include <asm/unistd_64.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/stat.h>

#include "cosy_module.h"

/*
 * As many bytes as fit into the pages, whatever the names: an entry is larger
 * than its record by 48 bytes or more, which outweighs what is lost where a page
 * ends.
 */
#define OUT_BYTES (COSY_BPF_PAGES * COSY_BPF_PAGE)
#define DEADLINE_NS 20000000

static _Alignas(8) u8 out[OUT_BYTES];

/* st_dev as the kernel has it: the other way round than new_encode_dev(). */
static u32 dev_decode(u32 dev)
{
	u32 major = (dev >> 8) & 0xfff, minor = (dev & 0xff) | ((dev >> 12) & 0xfff00);

	return major << 20 | minor;
}

static u8 child_flags(const struct cosy_bpf_run *run, const struct cosy_block *block,
		      const struct cosy_entry *e)
{
	u8 flags = 0;

	if (e->error || e->flags & COSY_ENTRY_MOUNT || e->dev != block->dev ||
	    e->blksize != run->blksize || (e->mask & STATX_BASIC_STATS) != STATX_BASIC_STATS)
		flags |= COSY_BPF_DECLINE;
	if (e->flags & COSY_ENTRY_XATTR_NONE)
		flags |= COSY_BPF_XATTR_NONE;
	if (e->flags & COSY_ENTRY_ATIME_STABLE)
		flags |= COSY_BPF_ATIME_STABLE;
	if (!e->attributes)
		flags |= COSY_BPF_ATTR_PLAIN;
	return flags;
}

static void put_child(struct cosy_bpf_child *to, const struct cosy_bpf_run *run,
		      const struct cosy_block *block, const struct cosy_entry *e)
{
	u64 *words = (u64 *)(to + 1);

	to->ino = e->ino;
	to->size = e->size;
	to->blocks = e->blocks;
	to->atime_sec = e->atime_sec;
	to->mtime_sec = e->mtime_sec;
	to->ctime_sec = e->ctime_sec;
	to->atime_nsec = e->atime_nsec;
	to->mtime_nsec = e->mtime_nsec;
	to->ctime_nsec = e->ctime_nsec;
	to->nlink = e->nlink;
	to->uid = e->uid;
	to->gid = e->gid;
	to->rdev = dev_decode(e->rdev);
	to->mode = e->mode;
	to->flags = child_flags(run, block, e);
	to->namelen = (u8)e->name_len;
	// both are filled up with NULs to 8 bytes
	for (u32 i = 0; i < (e->name_len + 7u) / 8; i++)
		words[i] = ((const u64 *)cosy_entry_name(e))[i];
}

static void put_children(struct run_buffers *to, const struct cosy_block *block)
{
	const struct cosy_entry *e = (const void *)(block + 1);
	struct cosy_bpf_run *run = &to->run;
	u32 page = 0, at = 0;

	for (u32 i = 0; i < block->n; i++, e = (const void *)((const u8 *)e + e->bytes)) {
		u32 bytes = (u32)sizeof(struct cosy_bpf_child) + (e->name_len + 7u) / 8 * 8;

		if (e->name_len > 255)
			continue;
		if (!e->error && !run->blksize)
			run->blksize = e->blksize;
		if (at + bytes > COSY_BPF_PAGE) {
			if (++page == COSY_BPF_PAGES)
				break;
			at = 0;
		}
		put_child((void *)(to->pages[page].data + at), run, block, e);
		at += bytes;
		run->used[page] = (u16)at;
		run->n_children++;
	}
}

// What statx says of the mount that the directory is in.
static u32 mount_id(int dirfd)
{
	struct statx st;

	if (sys(__NR_statx, dirfd, "", AT_EMPTY_PATH, STATX_MNT_ID, &st) < 0 ||
	    !(st.stx_mask & STATX_MNT_ID))
		return 0;
	return (u32)st.stx_mnt_id;
}

static u32 status_of(const struct cosy_fused *call, const struct cosy_block *block)
{
	switch (call->result) {
	case -EBADF:
		return COSY_BPF_BADFD;
	case -ENOTDIR:
		return COSY_BPF_NOTDIR;
	case -EOPNOTSUPP:
		return COSY_BPF_FS;
	}
	if (call->result < 0)
		return COSY_BPF_PERM;
	if (call->outcome.status == -EPERM)
		return COSY_BPF_WATCHED;
	return block->flags & COSY_BLOCK_END ? COSY_BPF_OK : COSY_BPF_FULL;
}

static long ask(struct cosy_fused *call)
{
	long ret;
	int fd = (int)sys(__NR_openat, AT_FDCWD, COSY_DEVICE, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return fd;
	ret = sys(__NR_ioctl, fd, COSY_IOC_FUSED, call);
	sys(__NR_close, fd);
	return ret;
}

long module_run(struct run_buffers *to, int dirfd, u32 skip)
{
	const struct cosy_block *block = (const void *)out;
	struct cosy_fused call = {
		.op = COSY_OP_ENTRIES,
		.flags = COSY_FUSED_USER | COSY_FUSED_PURE,
		.args = { (u32)dirfd, COSY_WANT_CACHED | COSY_WANT_HINTS, (u64)out, OUT_BYTES,
			  skip },
		.limits = { .deadline_ns = DEADLINE_NS },
	};
	struct cosy_bpf_run *run = &to->run;
	u32 mnt_id = run->mnt_id;
	long ret;

	memset(run, 0, sizeof(*run));
	ret = ask(&call);
	if (ret == -EPERM) {
		run->status = COSY_BPF_WATCHED;
		return 0;
	}
	if (ret < 0)
		return ret;
	run->status = status_of(&call, block);
	if (call.result < 0)
		return 0;
	run->dev = dev_decode(block->dev);
	run->dir_ino = block->ino;
	run->sb_flags = block->flags & COSY_BLOCK_ACL ? COSY_BPF_SB_ACL : 0;
	run->mnt_id = skip ? mnt_id : mount_id(dirfd);
	put_children(to, block);
	run->seen = (u32)block->next;
	return 0;
}
