/* SPDX-License-Identifier: GPL-2.0 */
/* What the parts of the module share. kmod/uapi/cosy_module.h is the outside. */
#ifndef COSY_H
#define COSY_H

#include <linux/cred.h>
#include <linux/dcache.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <linux/mutex.h>
#include <linux/path.h>
#include <linux/sched.h>
#include <linux/stat.h>
#include <linux/thread_info.h>
#include <linux/types.h>
#include <linux/uidgid.h>

#include "compat.h"
#include "cosy_module.h"

/* --- limits.c --------------------------------------------------------------- */

/* What a run may still use. */
struct cosy_budget {
	u64 ops, max_ops;
	u64 start_ns, deadline_ns; /* CLOCK_MONOTONIC */
	u64 look_at; /* ops at which the clock is read again; never above max_ops */
	unsigned int closed; /* files by COSY_I_CALL */
};

void cosy_budget_init(struct cosy_budget *budget, const struct cosy_limits *limits);
/* Somebody sees each system call of the caller, and would miss those of a compound. */
bool cosy_is_watched(void);

/*
 * An error on its way to the caller. -ERESTARTSYS, -ERESTARTNOINTR, -ERESTARTNOHAND and their
 * like say that a signal came before anything was done; they are the kernel's own.
 */
static inline s64 cosy_errno(s64 err)
{
	return unlikely(err <= -512 && err >= -516) ? -EINTR : err;
}

#define COSY_SEEN                                                                                  \
	(SYSCALL_WORK_SECCOMP | SYSCALL_WORK_SYSCALL_TRACE | SYSCALL_WORK_SYSCALL_EMU |            \
	 SYSCALL_WORK_SYSCALL_AUDIT | SYSCALL_WORK_SYSCALL_USER_DISPATCH)
#define COSY_PENDING (_TIF_SIGPENDING | _TIF_NOTIFY_SIGNAL | _TIF_NEED_RESCHED)

int cosy_tick_slow(struct cosy_budget *budget);
/* Counts one op. 0, or the status with which the run ends. Also a preemption point. */
static inline int cosy_tick(struct cosy_budget *budget)
{
	if (unlikely((READ_ONCE(current_thread_info()->flags) & COSY_PENDING) ||
		     (READ_ONCE(current_thread_info()->syscall_work) & COSY_SEEN) ||
		     budget->ops >= budget->look_at)) {
		int status = cosy_tick_slow(budget);

		if (status)
			return status;
	}
	budget->ops++;
	return 0;
}

#define COSY_LONG_BYTES (64u << 10)
/* The same in front of work that takes as long as many others: the clock is read now. */
static inline int cosy_tick_long(struct cosy_budget *budget)
{
	budget->look_at = 0;
	return cosy_tick(budget);
}

void cosy_budget_max(struct cosy_info *info);

/* --- contexts (main.c) -------------------------------------------------------- */

struct cosy_program {
	u32 n, flags; /* COSY_LOAD_* */
	struct cosy_insn insns[];
};

struct cosy_context {
	struct mutex lock; /* held while a compound runs */
	struct mm_struct *mm; /* the address space that it belongs to */
	unsigned long user; /* where the buffer is mapped in it; 0: nowhere */
	u8 *buffer;
	size_t bytes; /* of the buffer; set once, behind buffer */
	struct page **pages;
	struct file *reader; /* kept between operations, not open (contents.c) */
	struct cosy_program *programs[COSY_MAX_PROGRAMS];
};

static inline bool cosy_range_ok(const struct cosy_context *c, u64 offset, u64 bytes)
{
	return offset <= c->bytes && bytes <= c->bytes - offset;
}

/* --- fused operations ---------------------------------------------------------- */

#define COSY_NAMES_BYTES (32u << 10) /* of directory entries read at a time */

struct cosy_scratch;

/* A fused operation under way. */
struct cosy_op {
	struct cosy_budget *budget;
	u64 args[COSY_FUSED_ARGS];
	u32 flags; /* COSY_WANT_* */
	bool pure;
	u8 *out; /* aligned to 8 bytes; other threads of the caller may write there, too */
	u32 out_bytes, used;
	const char *names; /* as above, but not to be trusted twice */
	u32 names_bytes;
	struct cosy_scratch *scratch;
	unsigned long names_user; /* the same names in the caller's memory; 0: not there */
	u64 data_offset; /* of each file contents are read from here on, */
	u32 most_data; /* so many bytes at most */
	struct file *reader; /* opened for one file after the other (contents.c) */
	dev_t dev; /* of the record before; 0: none */
	u32 dev_encoded; /* as struct stat has it */
};

s64 cosy_entries(struct cosy_op *op, int *status);
s64 cosy_files(struct cosy_op *op, int *status);
s64 cosy_copy(struct cosy_op *op, int *status);
s64 cosy_scan(struct cosy_op *op, int *status);
s64 cosy_accept(struct cosy_op *op, int *status);
s64 cosy_receive(struct cosy_op *op, int *status);
s64 cosy_send(struct cosy_op *op, int *status);
/* Which operations there are, and which flags they take; checked before they are called. */
bool cosy_fused_exists(u64 nr);
bool cosy_fused_is_pure(u64 nr);
/*
 * With arguments as of struct cosy_fused, memory in the context's buffer. Returns
 * what the operation returns, or -errno; *status says whether the run must end.
 */
s64 cosy_fused(struct cosy_context *c, u32 nr, const u64 *args, bool pure,
	       struct cosy_budget *budget, u64 *used, int *status);
/* The same with memory of the caller. */
s64 cosy_fused_user(u32 nr, const u64 *args, bool pure, struct cosy_budget *budget, u64 *used,
		    int *status);

/* --- scratch.c --------------------------------------------------------------------- */

#define COSY_SCRATCH_OUT (64u << 10)

struct cosy_scratch {
	u8 out[COSY_SCRATCH_OUT]; /* results on their way to the caller's memory */
	u8 names[COSY_NAMES_BYTES]; /* of a directory */
};

/* NULL: no memory. What is in it is of no meaning. */
struct cosy_scratch *cosy_scratch_get(void);
void cosy_scratch_put(struct cosy_scratch *s);
void cosy_scratch_exit(void);

/* --- record.c -------------------------------------------------------------------- */

/* A record under construction. What is in e is written once and never read. */
struct cosy_record {
	struct cosy_entry *e;
	u32 bytes;
	u16 flags; /* COSY_ENTRY_* */
	s32 data;
};

/* Bytes that are free. */
static inline u32 cosy_room(const struct cosy_op *op)
{
	return op->out_bytes - op->used;
}

/* Of a name in memory: filled up with NULs, at least one, to a multiple of 8. */
#define COSY_NAME_BYTES(len) (((len) + 8) / 8 * 8)

/* Bytes of a record without data. */
static inline u32 cosy_record_bytes(u32 n_xattrs, u32 name_len)
{
	return sizeof(struct cosy_entry) + (n_xattrs + 1) / 2 * 8 + COSY_NAME_BYTES(name_len);
}

/*
 * An entry behind all that is there; its name is still to be written, to
 * cosy_record_name(). False: no room.
 */
static __always_inline bool cosy_record_start(struct cosy_record *r, struct cosy_op *op,
					      u32 n_xattrs, u32 name_len)
{
	struct cosy_entry *e = (struct cosy_entry *)(op->out + op->used);

	r->bytes = cosy_record_bytes(n_xattrs, name_len);
	if (unlikely(r->bytes > cosy_room(op)))
		return false;
	r->e = e;
	r->flags = 0;
	r->data = 0;
	if (unlikely(n_xattrs))
		memset(e + 1, 0, (n_xattrs + 1) / 2 * 8);
	e->name_len = name_len;
	e->n_xattrs = n_xattrs;
	e->error = 0;
	return true;
}
static inline u64 *cosy_record_name(const struct cosy_record *r, u32 n_xattrs)
{
	return (u64 *)((u8 *)(r->e + 1) + (n_xattrs + 1) / 2 * 8);
}
/* A short name, word by word. */
static inline void cosy_record_put_name(const struct cosy_record *r, u32 n_xattrs, const u64 *name,
					u32 len)
{
	u64 *to = cosy_record_name(r, n_xattrs);
	u32 i;

	for (i = 0; i <= len / 8; i++)
		to[i] = name[i];
}
/* There are no attributes, by this error. */
void cosy_record_failed(struct cosy_record *r, int error);
/* The target of a symbolic link. False: no room, r is unchanged. */
bool cosy_record_link(struct cosy_record *r, struct cosy_op *op, const struct path *path);
/* data: bytes behind the record, or -errno. end: nothing is behind them. */
static __always_inline void cosy_record_data_end(struct cosy_record *r, s32 data, bool end)
{
	u8 *to = (u8 *)r->e + r->bytes;

	r->data = cosy_errno(data);
	r->flags |= COSY_ENTRY_DATA | (end ? COSY_ENTRY_DATA_END : 0);
	if (data > 0) {
		if (data % 8)
			memset(to + data, 0, 8 - data % 8);
		r->bytes += ALIGN(data, 8);
	}
}
/* No data, by this error. */
void cosy_record_no_data(struct cosy_record *r, int error);
/* The owner as the caller's user namespace sees it. */
static inline void cosy_ids(const struct kstat *st, u32 *uid, u32 *gid)
{
	struct user_namespace *ns = current_user_ns();

	if (likely(ns == &init_user_ns && uid_valid(st->uid) && gid_valid(st->gid))) {
		*uid = __kuid_val(st->uid);
		*gid = __kgid_val(st->gid);
	} else {
		*uid = from_kuid_munged(ns, st->uid);
		*gid = from_kgid_munged(ns, st->gid);
	}
}
/* As the last one before: most are of one device. */
static inline u32 cosy_encoded(struct cosy_op *op, dev_t dev)
{
	if (unlikely(dev != op->dev)) {
		op->dev = dev;
		op->dev_encoded = new_encode_dev(dev);
	}
	return op->dev_encoded;
}
/* Attributes as stat gives them. False: there are none, r says why. */
static __always_inline bool cosy_record_attributes(struct cosy_record *r, struct cosy_op *op,
						   const struct path *path, struct kstat *st)
{
	struct cosy_entry *e = r->e;
	int err = vfs_getattr(path, st, STATX_BASIC_STATS | STATX_BTIME, AT_NO_AUTOMOUNT);

	if (err) {
		cosy_record_failed(r, err);
		return false;
	}
	if (path->dentry == path->mnt->mnt_root)
		st->attributes |= STATX_ATTR_MOUNT_ROOT;
	e->mode = st->mode;
	e->mask = st->result_mask & (STATX_BASIC_STATS | STATX_BTIME);
	e->ino = st->ino;
	e->size = st->size;
	e->blocks = st->blocks;
	e->atime_sec = st->atime.tv_sec;
	e->mtime_sec = st->mtime.tv_sec;
	e->ctime_sec = st->ctime.tv_sec;
	e->btime_sec = st->btime.tv_sec;
	e->atime_nsec = st->atime.tv_nsec;
	e->mtime_nsec = st->mtime.tv_nsec;
	e->ctime_nsec = st->ctime.tv_nsec;
	e->btime_nsec = st->btime.tv_nsec;
	e->attributes = st->attributes;
	e->attributes_mask = st->attributes_mask | STATX_ATTR_MOUNT_ROOT;
	e->nlink = st->nlink;
	cosy_ids(st, &e->uid, &e->gid);
	e->dev = cosy_encoded(op, st->dev);
	e->rdev = unlikely(st->rdev) ? new_encode_dev(st->rdev) : 0;
	e->blksize = st->blksize;
	return true;
}
/* Done: it counts. */
static __always_inline void cosy_record_end(const struct cosy_record *r, struct cosy_op *op,
					    u8 type)
{
	r->e->bytes = r->bytes;
	r->e->flags = r->flags;
	r->e->data = r->data;
	r->e->type = type;
	op->used += r->bytes;
}

/* --- contents.c ------------------------------------------------------------------ */

/* As open(O_RDONLY) of a path that was looked up; directories and regular files. */
struct file *cosy_open(const struct path *path, int flags);
/*
 * Contents of a regular file with these attributes. False: no room for all of what is
 * asked for though it is wanted whole, r is unchanged.
 */
bool cosy_record_data(struct cosy_record *r, struct cosy_op *op, const struct path *path,
		      const struct kstat *st, bool whole, int *status);
/* The one file of an operation, from one to the next. */
void cosy_reader_keep(struct cosy_op *op, struct file **kept);
void cosy_reader_take(struct cosy_op *op, struct file **kept);
void cosy_reader_destroy(struct cosy_op *op);

/* --- ahead.c --------------------------------------------------------------------- */

/* Its size is where reading ends. Elsewhere only a read of 0 bytes tells. */
static inline bool cosy_size_is_true(const struct inode *inode)
{
	return inode->i_sb->s_bdev || inode->i_sb->s_magic == TMPFS_MAGIC;
}
/* Reading it at `now`, seconds of real time, or a little later leaves its access time. */
bool cosy_atime_is_stable(const struct path *path, const struct kstat *st, time64_t now);
/* inotify or fanotify would tell somebody that it is opened or read. */
bool cosy_is_marked(const struct path *path);
/* A regular file that can be opened, read and closed without a trace. */
bool cosy_may_be_ahead(const struct path *path, const struct kstat *st);

/* --- names.c ------------------------------------------------------------------------ */

/* dirfd or AT_FDCWD as a path that the caller puts. */
int cosy_directory(int dirfd, struct path *dir);
int cosy_may_search(const struct path *dir);
/* What a name led to. It borrows its directory's mount unless it is a mount point itself. */
struct cosy_found {
	struct path path;
	bool mount; /* a mount point: path is what is mounted there */
	bool held; /* path holds its mount */
};

/*
 * What cosy_child_cached() did not find, or only found->path.dentry, which cannot be
 * used as it is.
 */
int cosy_child_slow(const struct path *dir, const char *name, u32 len, struct cosy_found *found);

/*
 * A child by its name, which is a single component, and what is mounted there.
 * cosy_may_search() came first. 0, then cosy_found_put(); or -errno.
 */
static __always_inline bool cosy_child_cached(const struct path *dir, const char *name, u32 len,
					      struct cosy_found *found)
{
	struct dentry *parent = dir->dentry, *child = NULL;
	struct qstr qname = QSTR_INIT(name, len);

	if (likely(!(parent->d_flags & (DCACHE_OP_HASH | DCACHE_OP_COMPARE)))) {
		qname.hash = full_name_hash(parent, name, len);
		child = d_lookup(parent, &qname);
	}
	found->path.mnt = dir->mnt;
	found->path.dentry = child;
	found->mount = false;
	found->held = false;
	return likely(child && d_is_positive(child) &&
		      !(child->d_flags & (DCACHE_OP_REVALIDATE | DCACHE_MANAGED_DENTRY)));
}

static __always_inline int cosy_child(const struct path *dir, const char *name, u32 len,
				      struct cosy_found *found)
{
	return cosy_child_cached(dir, name, len, found) ? 0 :
							  cosy_child_slow(dir, name, len, found);
}

/* A dentry of tmpfs is never let go; dput() would take its lock to find that out. */
static inline void cosy_found_put(const struct cosy_found *found)
{
	struct dentry *dentry = found->path.dentry;

	if (unlikely(found->held))
		mntput(found->path.mnt);
	if (!(dentry->d_flags & DCACHE_OP_DELETE) || !lockref_put_not_zero(&dentry->d_lockref))
		dput(dentry);
}

/* --- calls.c ------------------------------------------------------------------------ */

struct cosy_call;
/* NULL: not on the list. */
const struct cosy_call *cosy_call_find(s32 nr);
bool cosy_call_is_pure(const struct cosy_call *call);
u32 cosy_call_n_args(const struct cosy_call *call);
/*
 * Makes the call: *result is what it returns. Otherwise the status with which the
 * run ends, and the call is still to be made.
 */
int cosy_call(const struct cosy_context *c, const struct cosy_call *call, const u64 *args,
	      struct cosy_budget *budget, u64 *result);
/* accept4(fd, NULL, NULL, flags): what a security module says of it cannot be asked in another way. */
s64 cosy_call_accept(int fd, int flags);
void cosy_calls_init(void);
bool cosy_calls_work(void);

/* --- verify.c, interpret.c ------------------------------------------------------------ */

enum cosy_refusal cosy_verify(const struct cosy_insn *insns, u32 n, u32 flags, u32 *error_at);
void cosy_interpret(struct cosy_context *c, const struct cosy_program *program,
		    struct cosy_run *run, struct cosy_budget *budget);

#endif
