// SPDX-License-Identifier: GPL-2.0
/* Fused operations: their arguments checked, their memory found. */
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "cosy.h"

#define NO_MEMORY 255 /* no argument says where */

static const struct fused {
	s64 (*run)(struct cosy_op *op, int *status);
	u32 flags; /* COSY_WANT_* that it takes */
	u8 flags_at; /* arguments: the flags, */
	u8 out_at; /* where results go, then their bytes, */
	u8 names_at; /* and names, descriptors or messages, then their bytes (not ENTRIES) */
	bool pure;
	bool buffer_only; /* memory that might not be writable would lose what came */
} table[] = {
	[COSY_OP_ENTRIES] = {
		.run = cosy_entries,
		.flags = COSY_WANT_XATTR | COSY_WANT_LINK | COSY_WANT_DATA | COSY_WANT_NOATIME |
			 COSY_WANT_NAMES,
		.flags_at = 1,
		.out_at = 2,
		.names_at = 6,
		.pure = true,
	},
	[COSY_OP_FILES] = {
		.run = cosy_files,
		.flags = COSY_WANT_LINK | COSY_WANT_DATA | COSY_WANT_NOFOLLOW | COSY_WANT_NOATIME |
			 COSY_WANT_AHEAD,
		.flags_at = 1,
		.out_at = 2,
		.names_at = 4,
		.pure = true,
	},
	[COSY_OP_COPY] = {
		.run = cosy_copy,
		.flags = COSY_WANT_AT,
		.flags_at = 3,
		.out_at = NO_MEMORY,
		.names_at = NO_MEMORY,
		.pure = false,
	},
	[COSY_OP_SCAN] = {
		.run = cosy_scan,
		.flags = COSY_WANT_HINTS | COSY_WANT_NOATIME,
		.flags_at = 1,
		.out_at = 2,
		.names_at = NO_MEMORY,
		.pure = true,
	},
	[COSY_OP_ACCEPT] = {
		.run = cosy_accept,
		.flags = COSY_WANT_NONBLOCK | COSY_WANT_CLOEXEC,
		.flags_at = 1,
		.out_at = 2,
		.names_at = NO_MEMORY,
		.buffer_only = true,
	},
	[COSY_OP_RECEIVE] = {
		.run = cosy_receive,
		.flags_at = 1,
		.out_at = 2,
		.names_at = 4,
		.buffer_only = true,
	},
	[COSY_OP_SEND] = {
		.run = cosy_send,
		.flags_at = 1,
		.out_at = 2,
		.names_at = 4,
	},
};

bool cosy_fused_exists(u64 nr)
{
	return nr < ARRAY_SIZE(table) && table[nr].run;
}

bool cosy_fused_is_pure(u64 nr)
{
	return cosy_fused_exists(nr) && table[nr].pure;
}

/* The names of ENTRIES are so few that they need no length. */
static u64 names_bytes(u32 nr, const u64 *args)
{
	if (nr != COSY_OP_ENTRIES)
		return args[table[nr].names_at + 1];
	return args[1] & COSY_WANT_XATTR ? COSY_MAX_XATTRS * (XATTR_NAME_MAX + 1) + 1 : 0;
}

static int start(struct cosy_op *op, u32 nr, const u64 *args, bool pure, struct cosy_budget *budget)
{
	u64 flags = args[table[nr].flags_at];

	if (flags & ~(u64)table[nr].flags)
		return -EINVAL;
	memset(op, 0, sizeof(*op));
	op->budget = budget;
	memcpy(op->args, args, sizeof(op->args));
	/* nothing asked ahead may change when a file was last read */
	op->pure = pure;
	op->flags = flags | (pure ? COSY_WANT_NOATIME : 0);
	return 0;
}

s64 cosy_fused(struct cosy_context *c, u32 nr, const u64 *args, bool pure,
	       struct cosy_budget *budget, u64 *used, int *status)
{
	const struct fused *f = &table[nr];
	struct cosy_op op;
	s64 ret = start(&op, nr, args, pure, budget);

	if (ret)
		return ret;
	if (f->out_at != NO_MEMORY) {
		u64 out = args[f->out_at], bytes = args[f->out_at + 1];

		if (!cosy_range_ok(c, out, bytes) || out % 8)
			return -EFAULT;
		op.out = c->buffer + out;
		op.out_bytes = min_t(u64, bytes, S32_MAX) & ~7u;
	}
	if (f->names_at != NO_MEMORY) {
		u64 names = args[f->names_at], bytes = names_bytes(nr, args);
		unsigned long user = READ_ONCE(c->user);

		if (nr == COSY_OP_ENTRIES && names <= c->bytes)
			bytes = min_t(u64, bytes, c->bytes - names);
		if (bytes && !cosy_range_ok(c, names, bytes))
			return -EFAULT;
		op.names = c->buffer + names;
		op.names_bytes = min_t(u64, bytes, S32_MAX);
		op.names_user = user ? user + names : 0;
	}
	op.scratch = cosy_scratch_get();
	if (!op.scratch)
		return -ENOMEM;
	cosy_reader_take(&op, &c->reader);
	ret = cosy_errno(f->run(&op, status));
	cosy_reader_keep(&op, &c->reader);
	cosy_scratch_put(op.scratch);
	*used = op.used;
	return ret;
}

static s64 fused_user(const struct fused *f, struct cosy_op *op, u64 out, int *status)
{
	s64 ret = cosy_errno(f->run(op, status));

	cosy_reader_destroy(op);
	if (op->used && copy_to_user((void __user *)out, op->out, op->used))
		ret = -EFAULT;
	return ret;
}

/* The caller's names, or NULL, or an error. Those of ENTRIES may end before `bytes`. */
static char *take_names(u32 nr, u64 from, u64 bytes)
{
	char *names;
	unsigned long left;

	if (!bytes)
		return NULL;
	names = kvmalloc(bytes, GFP_KERNEL_ACCOUNT);
	if (!names)
		return ERR_PTR(-ENOMEM);
	left = copy_from_user(names, (const void __user *)from, bytes);
	if (!left)
		return names;
	if (nr == COSY_OP_ENTRIES && left < bytes) {
		memset(names + bytes - left, 0xff, left); /* what is not there cannot end a name */
		return names;
	}
	kvfree(names);
	return ERR_PTR(-EFAULT);
}

s64 cosy_fused_user(u32 nr, const u64 *args, bool pure, struct cosy_budget *budget, u64 *used,
		    int *status)
{
	const struct fused *f = &table[nr];
	struct cosy_op op;
	u64 out = 0, out_bytes = 0, n_names = 0;
	char *names;
	s64 ret = start(&op, nr, args, pure, budget);

	if (ret)
		return ret;
	if (f->buffer_only)
		return -EINVAL;
	if (f->names_at != NO_MEMORY) {
		n_names = names_bytes(nr, args);
		op.names_user = args[f->names_at];
	}
	if (f->out_at != NO_MEMORY) {
		out = args[f->out_at];
		out_bytes = args[f->out_at + 1] & ~7ull;
	}
	if (out_bytes > COSY_MAX_USER_BYTES || n_names > COSY_MAX_USER_BYTES)
		return -EINVAL;
	names = take_names(nr, op.names_user, n_names);
	if (IS_ERR(names))
		return PTR_ERR(names);
	ret = -ENOMEM;
	op.scratch = cosy_scratch_get();
	if (!op.scratch)
		goto out_names;
	op.names = names;
	op.names_bytes = n_names;
	op.out_bytes = out_bytes;
	op.out = op.scratch->out;
	if (out_bytes > COSY_SCRATCH_OUT)
		op.out = kvmalloc(out_bytes, GFP_KERNEL_ACCOUNT);
	if (op.out) {
		ret = fused_user(f, &op, out, status);
		*used = op.used;
	}
	if (op.out != op.scratch->out)
		kvfree(op.out);
	cosy_scratch_put(op.scratch);
out_names:
	kvfree(names);
	return ret;
}
