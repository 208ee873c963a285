// SPDX-License-Identifier: GPL-2.0
/*
 * Walks the cached children of an open directory under RCU and returns their
 * names and attributes: one crossing instead of one stat per child.
 *
 * The result goes straight into the context of BPF_PROG_RUN, which belongs to
 * the caller alone. Each program is one global function that takes the whole
 * context as typed memory: inside it the verifier allows stores at variable
 * offsets, which it refuses through a context pointer.
 *
 * Whatever races with us (seen by d_parent, d_seq, d_hash, d_inode) is left
 * out: an absent child is asked for natively.
 */
#include "attributes.h"
#include "caller.h"
#include "kernel_access.h"

#include "../uapi/cosy_bpf.h"

char LICENSE[] SEC("license") = "GPL";

#define NAME_MAX 255
#define MAX_VISITS (1u << 18) /* list entries of one run, so that it ends within some ms */
#define QUEUE_SLOTS 16
#define QUEUE_LENGTH 512

/* A subdirectory that may ride along. Pointers stay valid for one RCU section. */
struct queued {
	__u64 dentry;
	__u32 seq;
	__u32 parent; /* offset of its record in data[], or NONE */
	__u32 depth; /* levels left below it */
	__u32 index; /* among the root's children, or NONE */
};

struct queue {
	__u32 taken;
	__u32 reserved;
	struct queued entries[QUEUE_LENGTH];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, QUEUE_SLOTS);
	__type(key, __u32);
	__type(value, struct queue);
} queues SEC(".maps");

#define NO_QUEUE QUEUE_SLOTS
#define NONE (~0u)
#define MISFITS 4 /* subdirectories that may be too large before the rest is given up */

/*
 * The state of one run. It crosses global functions, which the verifier looks
 * at one by one: each sees unknown numbers here, and its loops converge.
 */
struct scan {
	struct view view;
	__u64 dir; /* struct dentry *, the directory in work */
	__u64 ino, size; /* its own; the size in bytes hints at the number of children */
	__u32 start, end; /* of its block in data[] */
	__u32 parent; /* of the block, see struct cosy_bpf_dir */
	__u32 depth; /* levels below it that may ride along */
	__u32 skip; /* children of it to pass over */
	__u32 n; /* children in its block */
	__u32 seen; /* children of it passed or put */
	__u32 visits; /* of the whole run */
	__u32 queue; /* slot, or NO_QUEUE */
	__u32 head, tail; /* of the queue */
	__u32 n_dirs, n_children;
	__u32 index; /* of the directory in work, see struct queued */
	__u32 zero; /* 0, but the verifier does not know */
	_Bool complete;
	_Bool below; /* the root's children are not put themselves */
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
}

static __always_inline __u32 take_queue(void)
{
	__u32 first = bpf_get_smp_processor_id();

	for (__u32 i = 0; i < 4; i++) {
		__u32 slot = (first + i) % QUEUE_SLOTS;
		struct queue *queue = bpf_map_lookup_elem(&queues, &slot);

		if (queue && !__sync_val_compare_and_swap(&queue->taken, 0, 1))
			return slot;
	}
	return NO_QUEUE;
}

static __always_inline void release_queue(__u32 slot)
{
	struct queue *queue = bpf_map_lookup_elem(&queues, &slot);

	if (queue)
		queue->taken = 0;
}

/* False: the queue is full. */
static __always_inline _Bool enqueue(struct scan *scan, const struct dentry *dentry, __u32 seq)
{
	struct queue *queue = bpf_map_lookup_elem(&queues, &scan->queue);
	__u32 tail = scan->tail;

	if (!queue || tail >= QUEUE_LENGTH)
		return 0;
	queue->entries[tail].dentry = (__u64)dentry;
	queue->entries[tail].seq = seq;
	queue->entries[tail].parent = scan->below ? NONE : scan->end;
	queue->entries[tail].depth = scan->depth - 1;
	queue->entries[tail].index = scan->below ? scan->seen : NONE;
	scan->tail = tail + 1;
	return 1;
}

/* Makes the next subdirectory that may be told the one in work. False: there is none. */
static __always_inline _Bool dequeue(struct scan *scan, const struct cred *cred)
{
	struct queue *queue = bpf_map_lookup_elem(&queues, &scan->queue);

	while (queue && scan->head < scan->tail && CAN_LOOP) {
		__u32 head = scan->head++;
		struct dentry *dentry;
		struct inode *inode;

		if (head >= QUEUE_LENGTH)
			break;
		dentry = CAST(struct dentry, queue->entries[head].dentry);
		inode = CAST(struct inode, dentry->d_inode);
		if (READ_ONCE(dentry->d_seq.seqcount.sequence) != queue->entries[head].seq ||
		    check_directory(inode, cred, &scan->view) != COSY_BPF_OK)
			continue;
		scan->dir = (__u64)dentry;
		scan->ino = inode->i_ino;
		scan->size = inode->i_size;
		scan->index = queue->entries[head].index;
		scan->parent = queue->entries[head].parent;
		scan->depth = queue->entries[head].depth;
		return 1;
	}
	return 0;
}

/* The root directory of this run becomes the one in work, or the status says why not. */
static __always_inline __u32 begin(struct cosy_bpf_run *run, struct task_struct *task,
				   struct scan *scan)
{
	const struct cred *cred = CAST(struct cred, task->cred);
	struct opened opened = {};
	struct super_block *sb;
	struct dentry *dentry;
	struct inode *inode;
	struct vfsmount *mnt;
	__u32 status;

	run->seen = 0;
	if (run->abi != COSY_BPF_ABI || run->flags & ~COSY_BPF_BELOW)
		return COSY_BPF_ABI_MISMATCH;
	if (is_watched(task))
		return COSY_BPF_WATCHED;
	if (cred->user_ns->level)
		return COSY_BPF_USERNS;
	if (!open_directory(task, run->dirfd, &opened))
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
	scan->ino = inode->i_ino;
	scan->parent = NONE;
	scan->index = NONE;
	scan->skip = run->skip;
	scan->depth = run->depth;
	scan->below = run->flags & COSY_BPF_BELOW && scan->depth;
	scan->queue = scan->depth ? take_queue() : NO_QUEUE;
	return COSY_BPF_OK;
}

/* Where size bytes go; NULL when they do not fit. One register holds what is checked and used. */
static __always_inline void *place(__u8 *data, const __u32 capacity, __u64 offset, const __u32 size)
{
	barrier_var(offset);
	return offset <= capacity - size ? data + offset : 0;
}

/* Copies a name and pads it with NULs. False when it does not fit. */
static __always_inline _Bool put_name(__u8 *data, const __u32 capacity, __u32 at,
				      const unsigned char *name, __u32 length, const __u32 zero)
{
	const __u32 end = at + length;

	while (at < end && CAN_LOOP) {
		__u64 word = CAST(union shortname_store, name)->words[0];
		__u64 *to = place(data, capacity, at, sizeof(word));

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

/* One child of the directory in work. False: no room. */
static __always_inline _Bool put_child(struct scan *scan, __u8 *data, const __u32 capacity,
				       struct dentry *dentry, __u32 seq, __u32 special)
{
	struct inode *inode = READ_ONCE(dentry->d_inode);
	struct cosy_bpf_child *child;
	enum getattr_kind kind;
	__u32 length, record;

	if (!inode || (seq & 1) || (dentry->d_flags & special) || !dentry->d_hash.pprev)
		return 1;
	inode = CAST(struct inode, inode);
	kind = getattr_of(inode);
	length = dentry->d_name.len;
	if (kind == GETATTR_OTHER || !inode->__i_nlink || length > NAME_MAX)
		return 1;
	record = sizeof(*child) + ((length + 7) & ~7u);
	child = place(data, capacity, scan->end, sizeof(*child));
	if (!child || scan->end + record > capacity)
		return 0;
	put_attributes(child, &scan->view, inode, kind);
	child->namelen = length;
	if (!put_name(data, capacity, scan->end + sizeof(*child), dentry->d_name.name, length,
		      scan->zero))
		return 1;
	barrier();
	if (READ_ONCE(dentry->d_seq.seqcount.sequence) != seq ||
	    READ_ONCE(dentry->d_inode) != inode)
		return 1;
	if (scan->depth && (child->mode & S_IFMT) == S_IFDIR)
		enqueue(scan, dentry, seq);
	scan->n++;
	scan->end += record;
	return 1;
}

/* A child that is not told itself, but may be a directory to tell. False: no room. */
static __always_inline _Bool queue_child(struct scan *scan, struct dentry *dentry, __u32 seq,
					 __u32 special)
{
	struct inode *inode = READ_ONCE(dentry->d_inode);

	if (!inode || (seq & 1) || (dentry->d_flags & special) || !dentry->d_hash.pprev ||
	    (CAST(struct inode, inode)->i_mode & S_IFMT) != S_IFDIR)
		return 1;
	return enqueue(scan, dentry, seq);
}

/*
 * On a walk of a large tree all memory is cold: ask for the next child's inode
 * and for the dentry behind while this child is put. The values are not needed,
 * so nothing waits for them: 500 ns per child of /usr became 350.
 */
static __always_inline void look_ahead(const struct dentry *dentry)
{
	const struct inode *inode = READ_ONCE(dentry->d_inode);
	const struct hlist_node *next = READ_ONCE(dentry->d_sib.next);

	if (next) {
		const struct dentry *behind = CONTAINER_OF(struct dentry, d_sib, next);

		(void)READ_ONCE(behind->d_inode);
		(void)READ_ONCE(behind->d_sib.next);
	}
	if (inode) {
		const struct ext4_inode_info *ext4 = ext4_info(inode);

		inode = CAST(struct inode, inode);
		(void)READ_ONCE(inode->i_mode);
		(void)READ_ONCE(inode->i_ino);
		(void)READ_ONCE(inode->i_ctime_nsec);
		(void)READ_ONCE(ext4->i_file_acl);
		(void)READ_ONCE(ext4->i_flags);
		(void)READ_ONCE(ext4->i_reserved_data_blocks);
	}
}

/* Puts the children of the directory in work, from scan->end on. */
static __always_inline __u32 put_children(struct scan *scan, __u8 *data, const __u32 capacity)
{
	const __u32 special = special_dentry_flags();
	struct dentry *dir = CAST(struct dentry, scan->dir);
	struct hlist_node *first = READ_ONCE(dir->d_children.first), *next = first;

	scan->complete = !scan->skip && !scan->below;
	while (next) {
		struct dentry *dentry = CONTAINER_OF(struct dentry, d_sib, next);
		__u32 seq = READ_ONCE(dentry->d_seq.seqcount.sequence);

		if (!CAN_LOOP || ++scan->visits > MAX_VISITS)
			return COSY_BPF_LIMIT;
		barrier();
		next = READ_ONCE(dentry->d_sib.next);
		if (next)
			look_ahead(CONTAINER_OF(struct dentry, d_sib, next));
		if (READ_ONCE(dentry->d_parent) != dir)
			return COSY_BPF_MOVED;
		if (scan->skip)
			scan->skip--;
		else if (scan->below) {
			if (!queue_child(scan, dentry, seq, special))
				return COSY_BPF_FULL;
		} else if (!put_child(scan, data, capacity, dentry, seq, special))
			return COSY_BPF_FULL;
		scan->seen++;
	}
	/* New and renamed children go to the front: what came meanwhile shows there. */
	scan->complete &= READ_ONCE(dir->d_children.first) == first;
	return COSY_BPF_OK;
}

/* Makes the block of the directory in work; the first may be cut, the others are whole. */
static __always_inline __u32 put_directory(struct scan *scan, __u8 *data, const __u32 capacity)
{
	struct cosy_bpf_dir *block;
	__u32 status;

	scan->start = scan->end;
	/* Better not begun than thrown away: few directories are so full of short names. */
	if (!place(data, capacity, scan->start, sizeof(*block)) ||
	    (scan->n_dirs && scan->size / 4 > capacity - scan->start))
		return COSY_BPF_FULL;
	scan->end += sizeof(*block);
	scan->n = 0;
	scan->seen = 0;
	status = put_children(scan, data, capacity);
	block = place(data, capacity, scan->start, sizeof(*block));
	if (!block || (scan->n_dirs && status != COSY_BPF_OK)) {
		scan->end = scan->start;
		return status;
	}
	block->n = scan->n;
	block->bytes = scan->end - scan->start;
	block->parent = scan->parent;
	block->ino = scan->ino;
	block->flags = status == COSY_BPF_OK && scan->complete ? COSY_BPF_DIR_COMPLETE : 0;
	scan->n_dirs++;
	scan->n_children += scan->n;
	scan->below = 0;
	return status;
}

/*
 * A subdirectory did not fit. One of the root's, when those are what was asked
 * for: the next run begins with it, unless it will never fit. True: go on with
 * others.
 */
static __always_inline _Bool pass_over(struct scan *scan, struct cosy_bpf_run *run, __u32 *misfits)
{
	if (scan->index != NONE && scan->n_dirs > 1 && scan->size < COSY_BPF_LARGE / 2) {
		run->seen = scan->index;
		run->status = COSY_BPF_FULL;
		return 0;
	}
	return ++*misfits < MISFITS;
}

#define DIRSCAN(name, size)                                                                        \
	struct name##_context {                                                                    \
		__u8 bytes[size];                                                                  \
	};                                                                                         \
                                                                                                   \
	__attribute__((noinline)) int name##_directory(struct name##_context *context,             \
						       struct scan *scan)                          \
	{                                                                                          \
		if (!context || !scan)                                                             \
			return COSY_BPF_FULL;                                                      \
		return put_directory(scan, context->bytes + sizeof(struct cosy_bpf_run),           \
				     (size) - sizeof(struct cosy_bpf_run));                        \
	}                                                                                          \
                                                                                                   \
	__attribute__((noinline)) int name##_run(struct name##_context *context)                   \
	{                                                                                          \
		struct cosy_bpf_run *run = (void *)context;                                        \
		struct scan scan = {};                                                             \
		__u32 misfits = 0;                                                                 \
		const struct cred *cred;                                                           \
		struct task_struct *task = bpf_get_current_task_btf();                             \
                                                                                                   \
		if (!context)                                                                      \
			return 0;                                                                  \
		bpf_rcu_read_lock();                                                               \
		cred = CAST(struct cred, task->cred);                                              \
		run->status = begin(run, task, &scan);                                             \
		if (run->status == COSY_BPF_OK) {                                                  \
			run->status = name##_directory(context, &scan);                            \
			run->seen = scan.seen;                                                     \
			while ((run->status == COSY_BPF_OK || run->flags & COSY_BPF_BELOW) &&      \
			       dequeue(&scan, cred) && CAN_LOOP)                                   \
				if (name##_directory(context, &scan) != COSY_BPF_OK &&             \
				    !pass_over(&scan, run, &misfits))                              \
					break;                                                     \
			release_queue(scan.queue);                                                 \
		}                                                                                  \
		bpf_rcu_read_unlock();                                                             \
		run->used = scan.end;                                                              \
		run->n_dirs = scan.n_dirs;                                                         \
		run->n_children = scan.n_children;                                                 \
		return 0;                                                                          \
	}                                                                                          \
                                                                                                   \
	SEC("syscall") int name(void *context)                                                     \
	{                                                                                          \
		return name##_run(context);                                                        \
	}

DIRSCAN(dirscan_small, COSY_BPF_SMALL)
DIRSCAN(dirscan_large, COSY_BPF_LARGE)
