// SPDX-License-Identifier: GPL-2.0
/*
 * Walks the cached children of an open directory under RCU and puts their
 * names and attributes into the caller's memory: one crossing instead of one
 * stat per child. How it is called stands in uapi/cosy_bpf.h.
 *
 * The tracepoint calls us with preemption off, so a run is bounded to some
 * hundred microseconds, and a large directory takes several.
 *
 * Whatever races with us (seen by d_parent, d_seq, d_hash, d_inode) is left
 * out: an absent child is asked for natively.
 */
#include "attributes.h"
#include "caller.h"
#include "kernel_access.h"

#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "GPL";

#define NAME_MAX 255
#define BATCH 8 /* children looked up together */
#define MOST_VISITS 1024 /* children of one run */
#define MOST_SKIPPED (1u << 15)

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct cosy_bpf_buffers);
} buffers SEC(".maps");

/* Where a thread's last run was cut. For this program alone: kernel addresses are in it. */
struct cut {
	__u64 dir; /* struct dentry * */
	__u64 next; /* struct hlist_node *, the child to go on with */
	__u32 seen; /* children in front of it */
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct cut);
} cuts SEC(".maps");

/*
 * The state of one run. It crosses a global function, which the verifier looks
 * at by itself: it sees unknown numbers here, and its loops converge.
 */
struct scan {
	struct view view;
	__u64 dir; /* struct dentry * */
	__u64 next; /* struct hlist_node *, the child to put next; 0: none */
	__u32 n, seen; /* children put; visited */
	__u32 visits; /* of this run */
	__u32 zero; /* 0, but the verifier does not know */
	__u32 gathered; /* entries of the batch */
	struct gathered {
		__u64 dentry;
		__u64 seq;
	} batch[BATCH];
};

/* A directory whose children can be told, and is the caller certain to be let in? */
static __always_inline __u32 check_directory(const struct inode *inode, const struct cred *cred,
					     const struct view *view)
{
	enum getattr_kind kind = getattr_of(inode);
	_Bool no_acl;

	if ((inode->i_mode & S_IFMT) != S_IFDIR)
		return COSY_BPF_NOTDIR;
	if ((kind != GETATTR_EXT4 && kind != GETATTR_SHMEM) || inode->i_op->permission ||
	    (inode->i_flags & (S_CASEFOLD | S_ENCRYPTED | S_AUTOMOUNT)))
		return COSY_BPF_FS;
	/* With huge pages on, the reported block size is another. */
	if (kind == GETATTR_SHMEM && (CAST(struct shmem_sb_info, inode->i_sb->s_fs_info)->huge ||
				      constants.shmem_huge_forced))
		return COSY_BPF_FS;
	no_acl = !view->acl || !inode->i_acl || has_no_xattr(inode, kind);
	if (!may_search(inode, cred, no_acl))
		return COSY_BPF_PERM;
	return COSY_BPF_OK;
}

/* Children with one of these are for the kernel: path lookup would do more than to look. */
static __always_inline __u32 special_dentry_flags(void)
{
#define FLAG(name) bpf_core_enum_value(enum dentry_flags, DCACHE_##name)
	return FLAG(OP_HASH) | FLAG(OP_COMPARE) | FLAG(OP_REVALIDATE) | FLAG(OP_WEAK_REVALIDATE) |
	       FLAG(DISCONNECTED) | FLAG(DENTRY_KILLED) | FLAG(MOUNTED) | FLAG(NEED_AUTOMOUNT) |
	       FLAG(MANAGE_TRANSIT) | FLAG(NOKEY_NAME) | FLAG(OP_REAL) | FLAG(PAR_LOOKUP) |
	       FLAG(DENTRY_CURSOR);
#undef FLAG
}

static __always_inline void set_view(struct view *view, struct cosy_bpf_run *run,
				     const struct inode *inode, const struct super_block *sb,
				     const struct vfsmount *mnt)
{
	__u32 mnt_flags = mnt->mnt_flags;
	__u64 sb_flags = sb->s_flags;

	view->blkbits = inode->i_blkbits;
	view->multigrain = (sb->s_type->fs_flags & FS_MGTIME) != 0;
	view->noatime = (mnt_flags & (MNT_NOATIME | MNT_READONLY)) || (sb_flags & SB_RDONLY);
	view->nodiratime = (mnt_flags & MNT_NODIRATIME) || (sb_flags & SB_NODIRATIME);
	view->relatime = (mnt_flags & MNT_RELATIME) != 0;
	view->acl = (sb_flags & SB_POSIXACL) != 0;
	/* TAI is ahead of UTC by less than a minute; another minute for the answer's age. */
	view->day_ago = (__s64)(bpf_ktime_get_tai_ns() / 1000000000) - 86400 + 60;
	run->dev = sb->s_dev;
	run->blksize = 1u << (view->blkbits & 31);
	run->mnt_id = CONTAINER_OF(struct mount, mnt, mnt)->mnt_id;
	run->sb_flags = view->acl ? COSY_BPF_SB_ACL : 0;
	run->dir_ino = inode->i_ino;
	run->dir_size = inode->i_size;
}

/* Where size bytes go; NULL when they do not fit. One register holds what is checked and used. */
static __always_inline void *place(struct cosy_bpf_page *page, __u64 offset, const __u32 size)
{
	barrier_var(offset);
	return offset <= sizeof(page->data) - size ? page->data + offset : 0;
}

/* Copies a name and pads it with NULs. False when it does not fit. */
static __always_inline _Bool put_name(struct cosy_bpf_page *page, __u32 at,
				      const unsigned char *name, __u32 length, const __u32 zero)
{
	const __u32 end = at + length;

	while (at < end && CAN_LOOP) {
		__u64 word = CAST(union shortname_store, name)->words[0];
		__u64 *to = place(page, at, sizeof(word));

		if (!to)
			return 0;
		if (end - at < 8)
			word &= (1ULL << (8 * (end - at))) - 1;
		*to = word;
		name += 8;
		at = (at + 8) ^ zero;
	}
	return at >= end;
}

/* One child, at offset `at`: the bytes of its record, 0: it is left out, FULL: no room. */
#define FULL (~0u)
static __always_inline __u32 put_child(struct scan *scan, struct cosy_bpf_page *page, __u32 at,
				       struct dentry *dentry, __u32 seq, __u32 special)
{
	struct inode *inode = READ_ONCE(dentry->d_inode);
	struct cosy_bpf_child *child;
	enum getattr_kind kind;
	__u32 length, record;

	if (!inode || (seq & 1) || (dentry->d_flags & special) || !dentry->d_hash.pprev)
		return 0;
	inode = CAST(struct inode, inode);
	kind = getattr_of(inode);
	length = dentry->d_name.len;
	if (kind == GETATTR_OTHER || !inode->__i_nlink || length > NAME_MAX)
		return 0;
	record = sizeof(*child) + ((length + 7) & ~7u);
	child = place(page, at, sizeof(*child));
	if (!child || at + record > sizeof(page->data))
		return FULL;
	put_attributes(child, &scan->view, inode, kind);
	child->namelen = length;
	if (!put_name(page, at + sizeof(*child), dentry->d_name.name, length, scan->zero))
		return 0;
	barrier();
	if (READ_ONCE(dentry->d_seq.seqcount.sequence) != seq ||
	    READ_ONCE(dentry->d_inode) != inode)
		return 0;
	return record;
}

/*
 * On a walk of a large tree all memory is cold. The list of children can only
 * be followed one by one, but their inodes' cache lines can be asked for
 * together: nothing needs the values yet, so the processor does not wait
 * between them.
 */
static __always_inline void touch_inode(const struct dentry *dentry)
{
	const struct inode *inode = READ_ONCE(dentry->d_inode);
	const struct ext4_inode_info *ext4;

	ext4 = ext4_info(inode);
	inode = CAST(struct inode, inode);
	(void)READ_ONCE(inode->i_mode);
	(void)READ_ONCE(inode->i_ino);
	(void)READ_ONCE(inode->i_ctime_nsec);
	(void)READ_ONCE(ext4->i_flags);
	(void)READ_ONCE(ext4->i_reserved_data_blocks);
}

/* One entry of the batch; the index is bounded where it is used, for the verifier. */
static __always_inline struct gathered *gathered(struct scan *scan, __u64 i)
{
	barrier_var(i);
	return &scan->batch[i & (BATCH - 1)];
}

/* The next children of the list. The status, if there can be none. */
static __always_inline __u32 gather(struct scan *scan)
{
	struct dentry *dir = CAST(struct dentry, scan->dir);
	struct hlist_node *next = (struct hlist_node *)scan->next;

	scan->gathered = 0;
	while (next && CAN_LOOP) {
		struct dentry *dentry = CONTAINER_OF(struct dentry, d_sib, next);
		__u32 i = scan->gathered;

		if (i >= BATCH)
			break;
		gathered(scan, i)->seq = READ_ONCE(dentry->d_seq.seqcount.sequence);
		barrier();
		next = READ_ONCE(dentry->d_sib.next);
		if (READ_ONCE(dentry->d_parent) != dir)
			return COSY_BPF_MOVED;
		(void)READ_ONCE(dentry->d_sb); /* shares its cache line with the name */
		touch_inode(dentry);
		gathered(scan, i)->dentry = (__u64)dentry;
		scan->gathered = i + 1;
	}
	return COSY_BPF_OK;
}

/* Fills one page with children from scan->next on; *used: its bytes. */
__attribute__((noinline)) int put_page(struct cosy_bpf_page *page, struct scan *scan, __u32 *used)
{
	const __u32 special = special_dentry_flags();

	if (!page || !scan || !used)
		return COSY_BPF_NOT_RUN;
	*used = 0;
	while (scan->next && CAN_LOOP) {
		__u32 status = gather(scan);

		if (status != COSY_BPF_OK)
			return status;
		for (__u32 i = scan->zero; i < scan->gathered && CAN_LOOP; i++) {
			struct dentry *dentry = CAST(struct dentry, gathered(scan, i)->dentry);
			__u32 seq = gathered(scan, i)->seq, record;

			if (++scan->visits > MOST_VISITS)
				return COSY_BPF_LIMIT;
			record = put_child(scan, page, *used, dentry, seq, special);
			if (record == FULL)
				return COSY_BPF_FULL;
			if (record) {
				*used += record;
				scan->n++;
			}
			scan->seen++;
			scan->next = (__u64)READ_ONCE(dentry->d_sib.next);
		}
	}
	return COSY_BPF_OK;
}

/*
 * Goes on where this thread's last run was cut, if that child is still what it was: on the list
 * of this directory's children, as its parent and its neighbour on the list say. Whatever else
 * may lie at that address by now does not say so.
 */
static __always_inline _Bool resume(struct scan *scan, const struct cut *cut, __u32 skip)
{
	struct dentry *dentry;

	if (!cut || cut->seen != skip || cut->dir != scan->dir || !cut->next)
		return 0;
	dentry = CONTAINER_OF(struct dentry, d_sib, cut->next);
	if ((__u64)READ_ONCE(dentry->d_parent) != cut->dir || !dentry->d_sib.pprev ||
	    (__u64)READ_ONCE(CAST(struct hlist_node, dentry->d_sib.pprev)->next) != cut->next)
		return 0;
	scan->next = cut->next;
	scan->seen = skip;
	return 1;
}

/* Finds the place where an earlier run was cut, from the list's beginning. */
static __always_inline __u32 skip_children(struct scan *scan, __u32 skip)
{
	struct dentry *dir = CAST(struct dentry, scan->dir);
	struct hlist_node *next = READ_ONCE(dir->d_children.first);

	while (next && scan->seen < skip) {
		struct dentry *dentry = CONTAINER_OF(struct dentry, d_sib, next);

		if (!CAN_LOOP || scan->seen >= MOST_SKIPPED)
			return COSY_BPF_LIMIT;
		next = READ_ONCE(dentry->d_sib.next);
		if (READ_ONCE(dentry->d_parent) != dir)
			return COSY_BPF_MOVED;
		scan->seen++;
	}
	scan->next = (__u64)next;
	return COSY_BPF_OK;
}

/* A function of its own also so that clang describes struct cosy_bpf_run to the kernel. */
static __attribute__((noinline)) __u32 begin(struct cosy_bpf_run *run, struct task_struct *task,
					     __u32 dirfd, __u32 skip, struct scan *scan)
{
	const struct cut *cut;
	const struct cred *cred = CAST(struct cred, task->cred);
	struct opened opened = {};
	struct super_block *sb;
	struct dentry *dentry;
	struct inode *inode;
	struct vfsmount *mnt;
	__u32 status;

	if (is_watched(task))
		return COSY_BPF_WATCHED;
	if (cred->user_ns->level)
		return COSY_BPF_USERNS;
	if (!open_directory(task, dirfd, &opened))
		return COSY_BPF_BADFD;
	dentry = CAST(struct dentry, opened.dentry);
	mnt = CAST(struct vfsmount, opened.mnt);
	inode = CAST(struct inode, dentry->d_inode);
	sb = CAST(struct super_block, dentry->d_sb);
	if (mnt->mnt_idmap->uid_map.nr_extents || mnt->mnt_idmap->gid_map.nr_extents)
		return COSY_BPF_IDMAP;
	if (sb->s_user_ns->level)
		return COSY_BPF_USERNS;
	set_view(&scan->view, run, inode, sb, mnt);
	status = check_directory(inode, cred, &scan->view);
	if (status != COSY_BPF_OK)
		return status;
	if (sb->s_flags & SB_NOATIME)
		return COSY_BPF_FS; /* its atime is a dummy */
	scan->dir = (__u64)dentry;
	cut = skip ? bpf_task_storage_get(&cuts, bpf_get_current_task_btf(), 0, 0) : 0;
	return resume(scan, cut, skip) ? COSY_BPF_OK : skip_children(scan, skip);
}

/* The pointers must be loaded one by one: the verifier knows each by its place. */
#define PUT_PAGE(i)                                                                                \
	do {                                                                                       \
		page = to->pages[i];                                                               \
		if (!page)                                                                         \
			goto done;                                                                 \
		status = put_page(page, &scan, &used);                                             \
		run->used[i] = used;                                                               \
		if (status != COSY_BPF_FULL)                                                       \
			goto done;                                                                 \
	} while (0)

SEC("tp_btf/task_prctl_unknown")
int BPF_PROG(dirscan, int option, unsigned long cookie, unsigned long dirfd, unsigned long skip)
{
	struct task_struct *task;
	struct cosy_bpf_buffers *to;
	struct cosy_bpf_page *page;
	struct cosy_bpf_run *run;
	struct scan scan = {};
	__u32 status, used = 0;
	struct cut *cut;

	(void)ctx;
	if (option != COSY_BPF_OPTION)
		return 0;
	task = bpf_get_current_task_btf();
	to = bpf_task_storage_get(&buffers, task, 0, 0);
	if (!to)
		return 0;
	run = to->run;
	if (!run || !cookie || run->cookie != cookie)
		return 0;
	status = begin(run, task, dirfd, skip, &scan);
	if (status != COSY_BPF_OK)
		goto done;
	PUT_PAGE(0);
	PUT_PAGE(1);
	PUT_PAGE(2);
	PUT_PAGE(3);
	PUT_PAGE(4);
	PUT_PAGE(5);
	PUT_PAGE(6);
	PUT_PAGE(7);
	PUT_PAGE(8);
	PUT_PAGE(9);
done:
	if (status == COSY_BPF_FULL || status == COSY_BPF_LIMIT) {
		cut = bpf_task_storage_get(&cuts, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
		if (cut) {
			cut->dir = scan.dir;
			cut->next = scan.next;
			cut->seen = scan.seen;
		}
	}
	run->seen = scan.seen;
	run->n_children = scan.n;
	run->status = status;
	return 0;
}
