// SPDX-License-Identifier: MIT
/* Fused operations as the plain calls that they stand for. Layouts: cosy_module.h. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "fused.h"

#define COPY_CHUNK (256u << 10) /* as the module, so that operations count the same */
#define ATTRIBUTES (STATX_BASIC_STATS | STATX_BTIME)
#define NAMES_BYTES (32u << 10)

/* The COSY_WANT_* that an operation takes, by its number. */
static const uint32_t wants[] = {
	[COSY_OP_ENTRIES] = COSY_WANT_XATTR | COSY_WANT_LINK | COSY_WANT_DATA | COSY_WANT_NOATIME,
	[COSY_OP_FILES] = COSY_WANT_LINK | COSY_WANT_DATA | COSY_WANT_NOFOLLOW | COSY_WANT_NOATIME,
	[COSY_OP_COPY] = COSY_WANT_AT,
	[COSY_OP_SCAN] = COSY_WANT_HINTS | COSY_WANT_NOATIME,
	[COSY_OP_ACCEPT] = COSY_WANT_NONBLOCK | COSY_WANT_CLOEXEC,
	[COSY_OP_RECEIVE] = 0,
	[COSY_OP_SEND] = 0,
};

/* A directory whose own block may follow. */
struct subdir {
	char *path; /* from the directory asked for */
	uint32_t parent, depth;
};

static uint32_t device(uint32_t major, uint32_t minor)
{
	return (uint32_t)makedev(major, minor);
}

/* --- records ---------------------------------------------------------------------- */

static void attributes(struct cosy_entry *e, const struct statx *st)
{
	e->mode = st->stx_mode;
	e->mask = st->stx_mask & ATTRIBUTES; // newer kernels say more than there is a field for
	e->ino = st->stx_ino;
	e->size = st->stx_size;
	e->blocks = st->stx_blocks;
	e->atime_sec = st->stx_atime.tv_sec;
	e->mtime_sec = st->stx_mtime.tv_sec;
	e->ctime_sec = st->stx_ctime.tv_sec;
	e->btime_sec = st->stx_btime.tv_sec;
	e->atime_nsec = st->stx_atime.tv_nsec;
	e->mtime_nsec = st->stx_mtime.tv_nsec;
	e->ctime_nsec = st->stx_ctime.tv_nsec;
	e->btime_nsec = st->stx_btime.tv_nsec;
	e->attributes = st->stx_attributes;
	e->attributes_mask = st->stx_attributes_mask;
	e->nlink = st->stx_nlink;
	e->uid = st->stx_uid;
	e->gid = st->stx_gid;
	e->dev = device(st->stx_dev_major, st->stx_dev_minor);
	e->rdev = device(st->stx_rdev_major, st->stx_rdev_minor);
	e->blksize = st->stx_blksize;
}

/* NULL: no room. */
static struct cosy_entry *record(struct op *op, const char *name, size_t len)
{
	struct cosy_entry *e = (void *)(op->out + op->used);
	uint64_t bytes = sizeof(*e) + (op->n_xattrs + 1) / 2 * 8 + padded(len + 1);

	if (bytes > op->room - op->used)
		return NULL;
	memset(e, 0, bytes);
	e->bytes = (uint32_t)bytes;
	e->name_len = (uint16_t)len;
	e->n_xattrs = (uint8_t)op->n_xattrs;
	memcpy((char *)cosy_entry_name(e), name, len);
	return e;
}

/* Bytes at the record's end, or -errno. */
static void data_is(struct cosy_entry *e, int64_t data, bool end)
{
	e->data = (int32_t)data;
	e->flags |= (uint16_t)(COSY_ENTRY_DATA | (end ? COSY_ENTRY_DATA_END : 0));
	if (data > 0) {
		memset((char *)e + e->bytes + data, 0, padded((uint64_t)data) - (uint64_t)data);
		e->bytes += (uint32_t)padded((uint64_t)data);
	}
}

/* False: no room. */
static bool link_target(struct op *op, struct cosy_entry *e, int dir, const char *path)
{
	char target[PATH_MAX];
	ssize_t got = readlinkat(dir, path, target, sizeof(target));

	if (got < 0) {
		data_is(e, -errno, false);
		return true;
	}
	if (padded((uint64_t)got) > op->room - op->used - e->bytes)
		return false;
	memcpy((char *)e + e->bytes, target, (size_t)got);
	data_is(e, got, true);
	return true;
}

static int64_t read_all(struct op *op, int fd, char *to, uint64_t most, uint64_t offset, bool *end)
{
	uint64_t done = 0;

	while (done < most) {
		ssize_t got = pread(fd, to + done, most - done, (off_t)(offset + done));

		if (got < 0)
			return done ? (int64_t)done : -errno;
		done += (uint64_t)got;
		*end = !got;
		if (*end)
			break;
		op->status = plain_tick(op->budget);
		if (op->status)
			break;
	}
	return (int64_t)done;
}

/* False: no room for all of it, though something is there already. */
static bool contents(struct op *op, struct cosy_entry *e, int dir, const char *path,
		     uint64_t offset, uint64_t most, bool first)
{
	int flags = O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, fd;
	uint64_t room = (op->room - op->used - e->bytes) & ~7ull;
	uint64_t left = e->size > offset ? e->size - offset : 0;
	bool end = false;
	int64_t got;

	if (op->want & COSY_WANT_NOATIME)
		flags |= O_NOATIME;
	if (!first && (left < most ? left : most) > room)
		return false;
	fd = openat(dir, path, flags);
	if (fd < 0 && errno == EPERM && (flags & O_NOATIME)) // not the owner: as good as it gets
		fd = openat(dir, path, flags & ~O_NOATIME);
	if (fd < 0) {
		data_is(e, -errno, false);
		return true;
	}
	got = read_all(op, fd, (char *)e + e->bytes, most < room ? most : room, offset, &end);
	// As far as its size: nothing is behind, without asking again.
	if (got >= 0 && e->size && offset + (uint64_t)got >= e->size)
		end = true;
	data_is(e, got, end);
	close(fd);
	return true;
}

/* --- entries ------------------------------------------------------------------------ */

static void xattrs(struct op *op, struct cosy_entry *e, int dir, const char *name)
{
	char path[64 + NAME_MAX];
	int32_t *to = (int32_t *)cosy_entry_xattrs(e);

	snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", dir, name);
	for (uint32_t i = 0; i < op->n_xattrs; i++) {
		ssize_t got = lgetxattr(path, op->xattrs[i], NULL, 0);

		to[i] = got < 0 ? -errno : (int32_t)got;
	}
}

/* False: no room. */
static bool one_entry(struct op *op, int dir, const char *name, uint8_t type,
		      struct cosy_block *block, bool *is_dir)
{
	struct cosy_entry *e = record(op, name, strlen(name));
	struct statx st;
	bool fits = true;

	*is_dir = false;
	if (!e)
		return false;
	e->type = type;
	if (statx(dir, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, ATTRIBUTES, &st)) {
		if (errno == ENOENT)
			return true; // it went away since its name was read
		e->error = -errno;
	} else {
		attributes(e, &st);
		if (st.stx_attributes & STATX_ATTR_MOUNT_ROOT)
			e->flags |= COSY_ENTRY_MOUNT;
		xattrs(op, e, dir, name);
		*is_dir = S_ISDIR(st.stx_mode);
		if (S_ISLNK(st.stx_mode) && (op->want & COSY_WANT_LINK))
			fits = link_target(op, e, dir, name);
		else if (S_ISREG(st.stx_mode) && (op->want & COSY_WANT_DATA))
			fits = contents(op, e, dir, name, 0, op->args[7], !block->n);
		else if (!S_ISREG(st.stx_mode) && !S_ISDIR(st.stx_mode) && !S_ISLNK(st.stx_mode))
			e->flags |= COSY_ENTRY_SPECIAL;
	}
	if (!fits)
		return false;
	op->used += e->bytes;
	block->n++;
	return true;
}

struct queue {
	struct subdir *dirs;
	size_t n, first;
};

static void remember(struct queue *q, const char *above, const char *name, uint32_t parent,
		     uint32_t depth)
{
	struct subdir *more = realloc(q->dirs, (q->n + 1) * sizeof(*more));
	char *path;

	if (!more)
		return;
	q->dirs = more;
	if (asprintf(&path, "%s/%s", above, name) >= 0)
		q->dirs[q->n++] = (struct subdir){ path, parent, depth };
}

struct dirent64_ {
	uint64_t ino;
	int64_t off;
	uint16_t reclen;
	uint8_t type;
	char name[];
};

static void all_entries(struct op *op, int dir, const struct subdir *at, struct queue *q,
			struct cosy_block *block)
{
	static _Thread_local char names[NAMES_BYTES] __attribute__((aligned(8)));
	bool is_dir;
	long got;

	while ((got = syscall(SYS_getdents64, dir, names, sizeof(names))) > 0) {
		for (long i = 0; i < got;) {
			const struct dirent64_ *d = (const void *)(names + i);
			uint64_t start = op->used;

			i += d->reclen;
			if (strcmp(d->name, ".") && strcmp(d->name, "..")) {
				op->status = plain_tick(op->budget);
				if (op->status ||
				    !one_entry(op, dir, d->name, d->type, block, &is_dir))
					return;
				if (is_dir && at->depth < op->args[5])
					remember(q, at->path, d->name, (uint32_t)start,
						 at->depth + 1);
			}
			block->next = (uint64_t)d->off;
			if (op->status)
				return;
		}
	}
	if (got < 0)
		block->error = (uint32_t)errno;
	else
		block->flags |= COSY_BLOCK_END;
}

/* 0, or -errno if there is no block at all. */
static int one_block(struct op *op, int root, const struct subdir *at, uint64_t position,
		     struct queue *q, int64_t *entries)
{
	struct cosy_block *block = (void *)(op->out + op->used);
	uint64_t start = op->used;
	size_t queued = q->n;
	struct stat st;
	int dir, err = 0;

	if (op->room - op->used < sizeof(*block))
		return -ENOSPC;
	dir = openat(root, at->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return -errno;
	if (fstat(dir, &st) || (position && lseek(dir, (off_t)position, SEEK_SET) < 0))
		err = -errno;
	if (!err) {
		*block = (struct cosy_block){ .parent = at->parent,
					      .next = position,
					      .ino = st.st_ino,
					      .dev = (uint32_t)st.st_dev };
		op->used += sizeof(*block);
		all_entries(op, dir, at, q, block);
		block->bytes = (uint32_t)(op->used - start);
		*entries += block->n;
		if (at->depth && !(block->flags & COSY_BLOCK_END)) { // whole, or not at all
			*entries -= block->n;
			op->used = start;
			while (q->n > queued)
				free(q->dirs[--q->n].path);
			err = -ENOSPC;
		}
	}
	close(dir);
	return err;
}

static int64_t entries(struct op *op)
{
	struct subdir root = { .path = (char *)".", .parent = ~0u };
	struct queue q = { 0 };
	int64_t n = 0;
	int err;

	if (op->args[5] > COSY_MAX_DEPTH)
		return -EINVAL;
	if ((int)op->args[0] < 0) // AT_FDCWD is no descriptor
		return -EBADF;
	err = one_block(op, (int)op->args[0], &root, op->args[4], &q, &n);
	while (!err && q.first < q.n && !op->status) {
		struct subdir at = q.dirs[q.first++];

		op->status = plain_tick(op->budget);
		if (!op->status && one_block(op, (int)op->args[0], &at, 0, &q, &n) == -ENOSPC)
			q.first = q.n;
		free(at.path);
	}
	while (q.first < q.n)
		free(q.dirs[q.first++].path);
	free(q.dirs);
	return err ? err : n;
}

/* --- files -------------------------------------------------------------------------- */

/* False: no room. */
static bool one_file(struct op *op, const char *name, size_t len, bool first)
{
	int dir = (int)op->args[0],
	    follow = op->want & COSY_WANT_NOFOLLOW ? AT_SYMLINK_NOFOLLOW : 0;
	struct cosy_entry *e = record(op, name, len);
	struct statx st;
	bool fits = true;

	if (!e)
		return false;
	if (statx(dir, name, follow | AT_NO_AUTOMOUNT, ATTRIBUTES, &st)) {
		e->error = -errno;
	} else {
		attributes(e, &st);
		e->type = st.stx_mode >> 12 & 15;
		if (st.stx_attributes & STATX_ATTR_MOUNT_ROOT)
			e->flags |= COSY_ENTRY_MOUNT;
		if (S_ISLNK(st.stx_mode) && (op->want & COSY_WANT_LINK))
			fits = link_target(op, e, dir, name);
		else if (S_ISREG(st.stx_mode) && (op->want & COSY_WANT_DATA))
			fits = contents(op, e, dir, name, op->args[6], op->args[7], first);
		else if (!S_ISREG(st.stx_mode) && !S_ISDIR(st.stx_mode) && !S_ISLNK(st.stx_mode))
			e->flags |= COSY_ENTRY_SPECIAL;
		else if ((op->want & COSY_WANT_DATA) && !S_ISREG(st.stx_mode))
			data_is(e, S_ISDIR(st.stx_mode) ? -EISDIR : -ELOOP, false);
	}
	if (fits)
		op->used += e->bytes;
	return fits;
}

static int64_t files(struct op *op, const char *names, uint64_t bytes)
{
	struct cosy_block *block = (void *)op->out;

	if (op->room < sizeof(*block))
		return -ENOSPC;
	*block = (struct cosy_block){ .parent = ~0u };
	op->used = sizeof(*block);
	while (block->next < bytes && !op->status) {
		const char *name = names + block->next;
		size_t len = strnlen(name, bytes - block->next);

		if (len == bytes - block->next || len > UINT16_MAX) {
			block->error = EINVAL;
			break;
		}
		op->status = plain_tick(op->budget);
		if (op->status || !one_file(op, name, len, !block->n))
			break;
		block->n++;
		block->next += len + 1;
	}
	if (block->next == bytes)
		block->flags |= COSY_BLOCK_END;
	block->bytes = (uint32_t)op->used;
	return block->n;
}

/* --- copy ---------------------------------------------------------------------------- */

static ssize_t copy_some(struct op *op, bool at, uint64_t done, size_t bytes)
{
	loff_t from = (loff_t)(op->args[4] + done), to = (loff_t)(op->args[5] + done);
	int in = (int)op->args[0], out = (int)op->args[1];
	ssize_t got = copy_file_range(in, at ? &from : NULL, out, at ? &to : NULL, bytes, 0);

	return got < 0 ? -errno : got;
}

static int64_t copy(struct op *op)
{
	bool at = op->want & COSY_WANT_AT;
	uint64_t done = 0, bytes = op->args[2];
	ssize_t got = 0;

	while (done < bytes) {
		uint64_t left = bytes - done;

		op->status = plain_tick(op->budget);
		if (op->status)
			break;
		got = copy_some(op, at, done, left < COPY_CHUNK ? left : COPY_CHUNK);
		if (got <= 0)
			break;
		done += (uint64_t)got;
	}
	return done ? (int64_t)done : got;
}

/* --- all of them ----------------------------------------------------------------------- */

bool plain_fused_exists(uint64_t op)
{
	return op > COSY_OP_NONE && op < COSY_OP_MAX;
}

bool plain_fused_is_pure(uint64_t op)
{
	return op != COSY_OP_COPY && op < COSY_OP_ACCEPT;
}

/* Memory of a request; NULL: not there. */
static unsigned char *memory(const struct cosy *c, uint32_t flags, uint64_t at, uint64_t bytes)
{
	if (flags & COSY_FUSED_USER)
		return (unsigned char *)(uintptr_t)at;
	return plain_range_ok(c, at, bytes) ? c->buffer + at : NULL;
}

static int take_xattrs(struct op *op, const char *from, uint64_t room)
{
	while (room && *from) {
		size_t len = strnlen(from, room);

		if (op->n_xattrs == COSY_MAX_XATTRS || len == room || len > 255)
			return -EINVAL;
		op->xattrs[op->n_xattrs++] = from;
		from += len + 1;
		room -= len + 1;
	}
	return room && op->n_xattrs ? 0 : -EINVAL;
}

static int64_t plain_entries(struct op *op, const struct cosy *c, uint32_t flags)
{
	uint64_t at = op->args[6];
	uint64_t room = flags & COSY_FUSED_USER || at > c->bytes ? 4096 : c->bytes - at;
	const char *names;
	int err;

	if (op->want & COSY_WANT_XATTR) {
		names = (const char *)memory(c, flags, at, 0);
		err = names ? take_xattrs(op, names, room) : -EFAULT;
		if (err)
			return err;
	}
	return entries(op);
}

/* Operations that have results in memory; `in` with its size in args[5]. */
static int64_t with_memory(struct op *op, const struct cosy *c, uint32_t nr, uint32_t flags)
{
	const unsigned char *in = NULL;

	op->room = (op->args[3] < INT_MAX ? op->args[3] : INT_MAX) & ~7ull;
	op->out = memory(c, flags, op->args[2], op->args[3]);
	if (!op->out || op->args[2] % 8)
		return -EFAULT;
	if (nr == COSY_OP_ENTRIES)
		return plain_entries(op, c, flags);
	if (nr == COSY_OP_ACCEPT)
		return plain_accept(op);
	in = memory(c, flags, op->args[4], op->args[5]);
	if (!in)
		return -EFAULT;
	if (nr == COSY_OP_RECEIVE)
		return plain_receive(op, in, op->args[5]);
	if (nr == COSY_OP_SEND)
		return plain_send(op, in, op->args[5]);
	return files(op, (const char *)in, op->args[5]);
}

int64_t plain_fused(const struct cosy *c, uint32_t nr, uint32_t flags, const uint64_t *args,
		    struct plain_budget *budget, uint64_t *used, int *status)
{
	uint64_t want = args[nr == COSY_OP_COPY ? 3 : 1];
	struct op op = { .budget = budget, .args = args, .want = (uint32_t)want };
	int64_t ret;

	*used = 0;
	if (want & ~(uint64_t)wants[nr])
		return -EINVAL;
	if (nr == COSY_OP_SCAN) // no call tells
		return -EOPNOTSUPP;
	if (flags & COSY_FUSED_USER && (nr == COSY_OP_ACCEPT || nr == COSY_OP_RECEIVE))
		return -EINVAL;
	if (flags & COSY_FUSED_PURE)
		op.want |= COSY_WANT_NOATIME;
	ret = nr == COSY_OP_COPY ? copy(&op) : with_memory(&op, c, nr, flags);
	*used = op.used;
	if (ret >= 0)
		*status = op.status;
	return ret;
}
