// SPDX-License-Identifier: GPL-2.0
/*
 * Writing results. The memory may be shared with the caller, so it is only
 * written here, never read back; and every byte of a record is written, since
 * it may also be fresh kernel memory on its way to the caller.
 */
#include "cosy.h"

void cosy_record_failed(struct cosy_record *r, int error)
{
	r->e->error = cosy_errno(error);
	r->e->mode = 0;
	memset((u8 *)r->e + offsetof(struct cosy_entry, mask), 0,
	       sizeof(*r->e) - offsetof(struct cosy_entry, mask));
}

void cosy_record_no_data(struct cosy_record *r, int error)
{
	cosy_record_data_end(r, error, false);
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
	cosy_record_data_end(r, len, true);
	return true;
}
