/* SPDX-License-Identifier: MIT */
/* A call that asks for attributes, taken apart; and its answer from a record. */
#ifndef COSY_ANSWER_H
#define COSY_ANSWER_H

#include <fcntl.h>

#include "cosy_image.h"
#include "results.h"
#include "sys.h"

#define ATTR_LAYOUTS 16 /* more than there are calls that ask for attributes */

/* Where a call has what, by its number: offsets into struct regs (0: nowhere). */
struct attr_layout {
	u8 dirfd, path, flags, mask, out, xattr;
	u16 implied; /* flags */
};
extern HIDDEN struct attr_layout attr_layouts[ATTR_LAYOUTS];
extern HIDDEN u8 attr_layout_of[]; /* index, plus 1 */

struct attr_call {
	const struct regs *regs; /* as it came */
	u32 nr;
	u32 layout; /* of its arguments: below ATTR_LAYOUTS, one for each number */
	int dirfd; /* AT_FDCWD if the call has none */
	u32 flags; /* AT_*, as said or as the call implies */
	u32 mask; /* statx */
	const char *path;
	void *out;
	const char *xattr; /* NULL: the call names none */
};

/* A pattern of the image as calls of its layout are compared with it. */
struct attr_pattern {
	u32 flags_refused, mask_refused;
	const char *name; /* of the attribute */
	u64 name_end; /* its last bytes with the NUL; names differ most there */
	u32 name_len; /* 0: none */
	bool acl, security; /* which of the name spaces that can be answered from */
	u8 kind; /* what a record answers by it: calls of one kind count together */
};

HIDDEN bool names_xattr(u32 nr);
/* Calls of this number will be taken. False: too many numbers. */
HIDDEN bool attr_call_expect(u32 nr);
HIDDEN bool attr_call_expected(u32 nr);
/* Of an expected number. */
static inline u8 attr_call_layout(u32 nr)
{
	return attr_layout_of[nr] - 1;
}

static inline u64 attr_argument(const struct regs *r, u8 place)
{
	return *(const u64 *)((const u8 *)r + place);
}

/* Of an expected number. No string is looked at yet. */
static inline void attr_call_take(const struct regs *r, struct attr_call *to)
{
	u32 layout = attr_call_layout((u32)r->nr);
	const struct attr_layout *l = &attr_layouts[layout];

	to->regs = r;
	to->nr = (u32)r->nr;
	to->layout = layout;
	to->dirfd = l->dirfd ? (int)attr_argument(r, l->dirfd) : AT_FDCWD;
	to->flags = l->flags ? (u32)attr_argument(r, l->flags) : l->implied;
	to->mask = l->mask ? (u32)attr_argument(r, l->mask) : 0;
	to->path = (const char *)attr_argument(r, l->path);
	to->out = (void *)attr_argument(r, l->out);
	to->xattr = l->xattr ? (const char *)attr_argument(r, l->xattr) : NULL;
}

/* Of an expected number, and its name in the image. */
HIDDEN void attr_pattern_take(struct attr_pattern *to, const struct cosy_pattern *p,
			      const char *name);
/* A call goes to the kernel. */
HIDDEN void attr_call_note(u32 nr);
/*
 * Does this program ask for extended attributes, or by statx? Most do neither, and what an
 * executor need not find out is saved. Until the kernel was asked often it may yet ask for the
 * former.
 */
HIDDEN bool asks_xattrs(void);
HIDDEN bool asks_statx(void);
/* Of the pattern's layout. */
static inline bool attr_call_allowed(const struct attr_call *call, const struct attr_pattern *p)
{
	return !(call->flags & p->flags_refused) && !(call->mask & p->mask_refused);
}

HIDDEN bool attr_call_names(const struct attr_call *call, const struct attr_pattern *p);
static inline bool attr_call_matches(const struct attr_call *call, const struct attr_pattern *p)
{
	return attr_call_allowed(call, p) &&
	       (p->name_len ? attr_call_names(call, p) : !call->xattr);
}

/*
 * Fill the caller's buffer, for a call that matched this pattern. COSY_DECLINES: done, *ret is what
 * the kernel would return.
 */
HIDDEN enum cosy_decline answer(const struct attr_call *call, const struct attr_pattern *p,
				const struct record *rec, long *ret);
/* The kernel answered a call: the st_mode that it said, or 0 if it says none. */
HIDDEN u32 answer_mode(const struct regs *r);
/* The kernel answered: learn what statx says besides the attributes. */
HIDDEN void answer_learn(const struct attr_call *call);

#endif
