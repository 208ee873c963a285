// SPDX-License-Identifier: GPL-2.0
/*
 * Writing results. The memory may be shared with the caller, so it is only
 * written here, never read back; and every byte of a record is written, since
 * it may also be fresh kernel memory on its way to the caller.
 */
#include <linux/magic.h>

#include "cosy.h"

#define DATA_CHUNK (64u << 10) /* bytes between two looks at the limits */

void cosy_record_failed(struct cosy_record *r, int error)
{
	r->e->error = cosy_errno(error);
	r->e->mode = 0;
	memset((u8 *)r->e + offsetof(struct cosy_entry, mask), 0,
	       sizeof(*r->e) - offsetof(struct cosy_entry, mask));
}

/* data: bytes behind the record, or -errno. */
static __always_inline void data_end(struct cosy_record *r, s32 data, bool end)
{
	u8 *to = (u8 *)r->e + r->bytes;

	r->data = cosy_errno(data);
	r->flags |= COSY_ENTRY_DATA | (end ? COSY_ENTRY_DATA_END : 0);
	if (data > 0) {
		memset(to + data, 0, ALIGN(data, 8) - data);
		r->bytes += ALIGN(data, 8);
	}
}

void cosy_record_no_data(struct cosy_record *r, int error)
{
	data_end(r, error, false);
}

bool cosy_record_link(struct cosy_record *r, struct cosy_op *op, const struct path *path)
{
	DEFINE_DELAYED_CALL(done);
	const char *target;
	size_t len;

	/* A link of /proc leads to an object, not by a name: get_link() wants a walk under way. */
	if (d_inode(path->dentry)->i_op->readlink) {
		r->flags |= COSY_ENTRY_SPECIAL;
		return true;
	}
	target = vfs_get_link(path->dentry, &done);
	if (IS_ERR(target)) {
		cosy_record_no_data(r, PTR_ERR(target));
		return true;
	}
	len = strnlen(target, PATH_MAX);
	if (ALIGN(len, 8) > cosy_room(op) - r->bytes) {
		do_delayed_call(&done);
		return false;
	}
	memcpy((u8 *)r->e + r->bytes, target, len);
	do_delayed_call(&done);
	if (!(op->flags & COSY_WANT_NOATIME))
		touch_atime(path);
	data_end(r, len, true);
	return true;
}

/* Its size is where reading ends. Elsewhere only a read of 0 bytes tells. */
static bool size_is_true(const struct inode *inode)
{
	return inode->i_sb->s_bdev || inode->i_sb->s_magic == TMPFS_MAGIC;
}

/* Bytes read, or -errno. *end: nothing is behind them. */
static ssize_t read_some(struct cosy_op *op, struct file *file, u8 *to, u64 offset, u64 bytes,
			 bool *end, int *status)
{
	const struct inode *inode = file_inode(file);
	loff_t at = offset;
	u64 done = 0;

	while (done < bytes) {
		size_t want = min_t(u64, bytes - done, DATA_CHUNK);
		ssize_t got = cosy_read(file, to + done, want, &at);

		if (got < 0)
			return done ? done : got;
		done += got;
		*end = !got || (size_is_true(inode) && at >= i_size_read(inode));
		if (*end)
			break;
		/* the first chunk is paid for by the tick of its file */
		*status = cosy_tick(op->budget);
		if (*status)
			break;
	}
	return done;
}

bool cosy_record_data(struct cosy_record *r, struct cosy_op *op, const struct path *path, u64 size,
		      u64 offset, u64 most, bool whole, int *status)
{
	u64 room = (cosy_room(op) - r->bytes) & ~7u;
	u64 left = size > offset ? size - offset : 0;
	bool end = false;
	struct file *file;
	ssize_t got;

	most = min_t(u64, most, S32_MAX);
	if (whole && min(left, most) > room)
		return false;
	file = cosy_reader_open(op, path);
	if (IS_ERR(file)) {
		cosy_record_no_data(r, PTR_ERR(file));
		return true;
	}
	/* cosy_read() knows no other files */
	if (!file->f_op->read_iter || file->f_op->read) {
		r->flags |= COSY_ENTRY_SPECIAL;
	} else {
		got = read_some(op, file, (u8 *)r->e + r->bytes, offset, min(room, most), &end,
				status);
		data_end(r, got, end);
	}
	cosy_reader_close(op);
	return true;
}
