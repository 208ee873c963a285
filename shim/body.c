// SPDX-License-Identifier: MIT
/*
 * A compound's body as plain calls. Files are looked at before they are opened
 * (O_PATH), so that no device and no FIFO ever is; what is opened is closed
 * before the hook returns; reads go to offsets, so that nothing moves.
 */
#include <asm/unistd_64.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/stat.h>
#include <sys/stat.h>
#include <sys/statfs.h>

#include "fence.h"
#include "firing.h"
#include "iteration.h"
#include "stats.h"
#include "syscall_table.h"

#define ENTRIES_BYTES 32768
#define NAME_BYTES 256
#define DAY_S (24 * 3600)
#define ST_NOATIME_FLAG 0x400
#define ST_RELATIME_FLAG 0x1000
#define ST_RDONLY_FLAG 1
#define READ_ONCE 65536 /* bytes of one read of an `until` */

// --- inodes ------------------------------------------------------------------

static u64 atime_dev;
static u64 atime_flags; // of the file system atime_dev

// Would reading the inode leave its access time alone? As relatime has it (mount(8)).
static bool atime_stable(u64 dev, s64 atime, s64 mtime, s64 ctime)
{
	if (dev != atime_dev)
		return false;
	if (atime_flags & (ST_NOATIME_FLAG | ST_RDONLY_FLAG))
		return true;
	if (!(atime_flags & ST_RELATIME_FLAG))
		return false;
	return atime > mtime && atime > ctime &&
	       (s64)(now_ns(0 /* CLOCK_REALTIME */) / 1000000000) - atime < DAY_S - 60;
}

// The file system that fd is on: what its mount says of access times.
static void look_at_mount(int fd, u64 dev)
{
	struct statfs fs;

	if (dev == atime_dev)
		return;
	atime_dev = 0;
	if (sys_failed(sys(__NR_fstatfs, fd, &fs)))
		return;
	atime_dev = dev;
	// What a file of /proc says changes by itself, whatever its times.
	atime_flags = fs.f_type == PROC_SUPER_MAGIC ? 0 : (u64)fs.f_flags;
}

static struct inode inode_of(const struct stat *st)
{
	return (struct inode){
		.dev = st->st_dev,
		.ino = st->st_ino,
		.mode = st->st_mode,
		.atime_stable = atime_stable(st->st_dev, st->st_atim.tv_sec, st->st_mtim.tv_sec,
					     st->st_ctim.tv_sec),
	};
}

static struct inode inode_of_statx(const struct statx *st)
{
	u64 dev = (st->stx_dev_minor & 0xff) | (u64)st->stx_dev_major << 8 |
		  (u64)(st->stx_dev_minor & ~0xffu) << 12;
	bool times = (st->stx_mask & 0xe0) == 0xe0; // atime, mtime, ctime
	struct inode inode = { .dev = dev, .ino = st->stx_ino, .mode = st->stx_mode };

	inode.atime_stable = times && atime_stable(dev, st->stx_atime.tv_sec, st->stx_mtime.tv_sec,
						   st->stx_ctime.tv_sec);
	return inode;
}

// --- calls ---------------------------------------------------------------------

// Errors that say something about the file, and not about the moment.
static bool telling(long ret)
{
	switch (-ret) {
	case 2: // ENOENT
	case 13: // EACCES
	case 20: // ENOTDIR
	case 22: // EINVAL: readlink of what is none
	case 36: // ENAMETOOLONG
	case 40: // ELOOP
	case 61: // ENODATA
	case 95: // EOPNOTSUPP
		return true;
	}
	return ret >= 0;
}

static void keep(struct iteration *it, struct answer *a, const struct question *q,
		 const struct place *p)
{
	a->about = p->about;
	a->want = q->want;
	a->flags = q->flags;
	a->detail = q->detail;
	a->name = q->name;
	a->run = it->run->number;
	if (!telling(a->ret))
		return;
	if (!recorded_keep(a)) {
		it->full = true;
		return;
	}
	it->answers++;
	it->bytes += a->bytes;
}

// Which inode a path means: for answers that do not say so themselves.
static bool identify(const struct place *p, u32 flags, struct inode *to)
{
	struct stat st;

	if (sys_failed(sys(__NR_newfstatat, p->dirfd, p->path, &st,
			   (flags & AT_SYMLINK_NOFOLLOW) | AT_NO_AUTOMOUNT)))
		return false;
	*to = inode_of(&st);
	return true;
}

static void make_stat(struct iteration *it, struct made *m, struct question *q,
		      const struct place *p)
{
	const struct question *asked = it->run->question;
	u64 room;
	u8 *at;
	struct answer a;

	// In the words in which the program asks.
	if (!q->about_fd && !asked->about_fd &&
	    (asked->want == WANT_STAT || asked->want == WANT_STATX)) {
		q->want = asked->want;
		q->flags = asked->flags;
		q->detail = asked->detail;
	}
	at = recorded_room(&room);
	if (room < sizeof(struct statx)) {
		it->full = true;
		return;
	}
	if (q->about_fd)
		m->ret = sys(__NR_fstat, p->fd, at);
	else if (q->want == WANT_STAT)
		m->ret = sys(__NR_newfstatat, p->dirfd, p->path, at, q->flags | AT_NO_AUTOMOUNT);
	else
		m->ret = sys(__NR_statx, p->dirfd, p->path, q->flags | AT_NO_AUTOMOUNT, q->detail,
			     at);
	m->ran = true;
	m->has_stat = !m->ret;
	a = (struct answer){ .ret = m->ret };
	if (m->has_stat) {
		const struct stat *st = (const void *)at;
		const struct statx *stx = (const void *)at;
		bool extended = q->want == WANT_STATX && !q->about_fd;

		m->inode = extended ? inode_of_statx(stx) : inode_of(st);
		m->size = extended ? stx->stx_size : (u64)st->st_size;
		a.inode = m->inode;
		a.data = at;
		a.bytes = extended ? sizeof(*stx) : sizeof(*st);
	}
	keep(it, &a, q, p);
}

// A regular file, opened for reading; anything else is not.
static void make_open(struct iteration *it, struct made *m, struct question *q,
		      const struct place *p)
{
	char link[32];
	struct text t = { .at = link, .size = sizeof(link) };
	struct answer a = { .ret = 0 };
	struct stat st;
	long fd;

	// In the words in which the program asks.
	if (it->run->question->want == WANT_OPEN) {
		q->said = it->run->question->said;
		q->flags = it->run->question->flags;
	}
	fd = sys(__NR_openat, p->dirfd, p->path,
		 O_PATH | O_CLOEXEC | (q->said & (O_NOFOLLOW | O_DIRECTORY)));
	if (fd >= 0) {
		bool good = !sys_failed(sys(__NR_fstat, fd, &st)) && S_ISREG(st.st_mode);

		if (good) {
			look_at_mount((int)fd, st.st_dev);
			text_add(&t, "/proc/self/fd/");
			text_dec(&t, (u64)fd);
			m->ret = sys(__NR_openat, AT_FDCWD, link,
				     O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY |
					     (q->said & O_NOATIME));
		}
		sys(__NR_close, fd);
		if (!good)
			return;
	} else {
		m->ret = fd;
	}
	m->ran = true;
	a.ret = m->ret < 0 ? m->ret : 0;
	if (m->ret >= 0) {
		m->fd = (int)m->ret;
		m->file = recorded_file_new();
		m->inode = inode_of(&st);
		a.file = m->file;
		a.inode = m->inode;
	} else if (m->ret == -2 /* ENOENT */ && fd >= 0) {
		return; // no /proc: that is not the file's fault
	}
	keep(it, &a, q, p);
}

static struct made *opener(struct iteration *it, int fd)
{
	for (u32 i = 0; i < COSY_MAX_OPS; i++)
		if (it->made[i].fd == fd)
			return &it->made[i];
	return NULL;
}

// Where a read begins, and of what file. False: it must not be read ahead.
static bool read_from(struct iteration *it, const struct question *q, const struct place *p,
		      u64 *pos, struct inode *inode)
{
	const struct made *from = opener(it, p->fd);
	struct stat st;
	long at;

	if (from) {
		*pos = q->at_offset ? q->offset : from->pos;
		*inode = from->inode;
		return from->inode.atime_stable;
	}
	if (sys_failed(sys(__NR_fstat, p->fd, &st)) || !S_ISREG(st.st_mode))
		return false;
	look_at_mount(p->fd, st.st_dev);
	*inode = inode_of(&st);
	at = q->at_offset ? (long)q->offset : sys(__NR_lseek, p->fd, 0, 1 /* SEEK_CUR */);
	*pos = (u64)at;
	return at >= 0 && inode->atime_stable;
}

static void make_read(struct iteration *it, struct made *m, const struct cosy_op *op,
		      const struct question *q, const struct place *p)
{
	u64 limit = it->run->compound->limit_bytes, most, got = 0, pos;
	struct made *from = opener(it, p->fd);
	struct answer a = { .ret = 0 };
	bool again = op->flags & COSY_OP_UNTIL;

	if (!read_from(it, q, p, &pos, &a.inode))
		return;
	a.offset = a.next = pos;
	a.data = recorded_room(&most);
	if (most > limit - (it->bytes < limit ? it->bytes : limit))
		most = limit - (it->bytes < limit ? it->bytes : limit);
	if (!again && most > q->size)
		most = q->size;
	m->ret = 0;
	while (got < most) {
		u64 want = most - got < READ_ONCE ? most - got : READ_ONCE;

		m->ret = sys(__NR_pread64, p->fd, a.data + got, want, pos + got);
		if (m->ret < 0)
			return;
		got += (u64)m->ret;
		// A regular file gives less than was asked for only at its end.
		a.whole = (u64)m->ret < want;
		if (a.whole || !again)
			break;
	}
	m->ran = true;
	a.ret = (long)got;
	a.bytes = got;
	if (from)
		from->pos = pos + got;
	keep(it, &a, q, p);
}

/*
 * No call asks by dirfd for an attribute (getxattrat came in v6.13), so a child
 * of D is reached through /proc.
 */
static long get_xattr(const struct question *q, const struct place *p, void *to, u64 size)
{
	char path[PATH_BYTES + 32];
	struct text t = { .at = path, .size = sizeof(path) };

	if (p->dirfd != AT_FDCWD && p->path[0] != '/') {
		text_add(&t, "/proc/self/fd/");
		text_dec(&t, (u64)p->dirfd);
		text_add(&t, "/");
	}
	text_add(&t, p->path);
	return sys(q->flags & AT_SYMLINK_NOFOLLOW ? __NR_lgetxattr : __NR_getxattr, path, q->name,
		   to, size);
}

// Of a path: access, readlink, getxattr.
static void make_about_path(struct iteration *it, struct made *m, const struct question *q,
			    const struct place *p)
{
	struct answer a = { .ret = 0 };
	u64 room, size = q->size;

	if (q->about_fd)
		return;
	a.data = recorded_room(&room);
	if (size > room)
		size = room;
	switch (q->want) {
	case WANT_ACCESS:
		a.data = NULL;
		m->ret = q->nr == __NR_faccessat2 ?
				 sys(__NR_faccessat2, p->dirfd, p->path, q->detail, q->flags) :
				 sys(__NR_faccessat, p->dirfd, p->path, q->detail);
		break;
	case WANT_LINK:
		// Reading a link moves its access time.
		if (!identify(p, AT_SYMLINK_NOFOLLOW, &a.inode) || !a.inode.atime_stable)
			return;
		m->ret = sys(__NR_readlinkat, p->dirfd, p->path, a.data, size);
		if (m->ret == (long)size)
			return; // perhaps cut
		break;
	default:
		if (!identify(p, q->flags, &a.inode))
			return;
		m->ret = get_xattr(q, p, a.data, size);
		// The file is there: anything but these is of the moment.
		if (m->ret < 0 && m->ret != -61 /* ENODATA */ && m->ret != -95 /* EOPNOTSUPP */)
			return;
	}
	m->ran = true;
	a.ret = m->ret;
	a.bytes = a.data && m->ret > 0 ? (u64)m->ret : 0;
	if (!a.bytes)
		a.data = NULL;
	keep(it, &a, q, p);
}

static void make(struct iteration *it, u32 i)
{
	const struct cosy_op *op = &profile.ops[it->run->compound->first_op + i];
	struct made *m = &it->made[i];
	struct question q;
	struct place p;

	for (u32 k = 0; k < op->n_conds; k++)
		if (!iteration_allows(it, &profile.conds[op->first_cond + k]))
			return;
	if (op->nr == __NR_close) {
		struct made *from = &it->made[op->args[0].index];

		if (from->fd >= 0) {
			m->ret = sys(__NR_close, from->fd);
			m->ran = true;
			from->fd = -1;
		}
		return;
	}
	if (!iteration_ask(it, op, &q, &p))
		return;
	switch (q.want) {
	case WANT_STAT:
	case WANT_STATX:
		make_stat(it, m, &q, &p);
		break;
	case WANT_OPEN:
		make_open(it, m, &q, &p);
		break;
	case WANT_DATA:
		make_read(it, m, op, &q, &p);
		break;
	default:
		make_about_path(it, m, &q, &p);
	}
}

// The body once. False: a limit is reached.
static bool iterate(struct iteration *it, const char *item, u64 deadline_ns)
{
	const struct cosy_compound *c = it->run->compound;

	it->item = item;
	for (u32 i = 0; i < COSY_MAX_OPS; i++)
		it->made[i] = (struct made){ .fd = -1 };
	for (u32 i = 0; i < c->n_ops && !it->full && it->answers < c->limit_ops; i++)
		make(it, i);
	for (u32 i = 0; i < c->n_ops; i++)
		if (it->made[i].fd >= 0)
			sys(__NR_close, it->made[i].fd);
	return !it->full && it->answers < c->limit_ops && it->bytes < c->limit_bytes &&
	       now_ns(1 /* CLOCK_MONOTONIC */) < deadline_ns;
}

static void each_entry(struct iteration *it, u64 deadline_ns)
{
	u8 buf[ENTRIES_BYTES] __attribute__((aligned(8)));
	// Of our own: the program's descriptor keeps its offset.
	long fd = sys(__NR_openat, it->run->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	long n = 0;

	while (fd >= 0 && (n = sys(__NR_getdents64, fd, buf, sizeof(buf))) > 0) {
		for (long at = 0; at < n;) {
			const struct dirent64 *e = (const void *)(buf + at);

			at += e->reclen;
			if (str_equal(e->name, ".") || str_equal(e->name, ".."))
				continue;
			if (!iterate(it, e->name, deadline_ns))
				goto out;
		}
	}
out:
	if (fd >= 0)
		sys(__NR_close, fd);
}

u32 body_run(const struct body_run *run)
{
	const struct cosy_compound *c = run->compound;
	u64 deadline_ns = now_ns(1 /* CLOCK_MONOTONIC */) + c->limit_time_ns;
	struct iteration it = { .run = run };
	char name[NAME_BYTES] = "";
	struct stat st;

	atime_dev = 0; // mounts come and go
	if (run->dir >= 0 && !sys_failed(sys(__NR_fstat, run->dir, &st)))
		look_at_mount(run->dir, st.st_dev);
	switch (c->loop) {
	case COSY_LOOP_ENTRIES:
		each_entry(&it, deadline_ns);
		break;
	case COSY_LOOP_PATHS:
		for (u32 i = 0; i < c->n_paths; i++)
			if (!iterate(&it, profile.strings + profile.paths[c->first_path + i],
				     deadline_ns))
				break;
		break;
	default:
		// The trigger's name is part of a longer string.
		if (run->child) {
			memcpy(name, run->child->name.words, run->child->name.len);
			name[run->child->name.len] = 0;
		}
		iterate(&it, name, deadline_ns);
	}
	return it.answers;
}
