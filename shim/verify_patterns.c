// SPDX-License-Identifier: MIT
// What starts a compound, what it answers, and who can run it.
#include "verify_parts.h"

#define MAX_ATTRIBUTE 255
#define SCAN_FLAGS (AT_NOFOLLOW | AT_NO_AUTO)
#define SCAN_MASK (0x7ffu | 0x1000u) /* STATX_BASIC_STATS, STATX_MNT_ID */

static bool same_family(__u32 a, __u32 b)
{
	enum family x = family_of(a), y = family_of(b);

	if (x == FAMILY_FSTAT)
		x = FAMILY_STAT;
	if (y == FAMILY_FSTAT)
		y = FAMILY_STAT;
	return a == b || (x == y && x != FAMILY_NONE);
}

// --- patterns ----------------------------------------------------------------

static bool pattern_valid(const struct image *im, const struct cosy_pattern *p)
{
	const struct cosy_syscall *call = call_of(p->nr);
	__u32 flags = 0;

	if (!call ||
	    (call->cls != COSY_CLASS_PURE && family_of(p->nr) != FAMILY_OPEN && p->nr != __NR_read))
		return false;
	if (has(call, COSY_ARGT_AT_FLAGS))
		flags = AT_KNOWN;
	else if (has(call, COSY_ARGT_OPEN_FLAGS))
		flags = OPEN_KNOWN;
	return !(p->flags_allowed & ~flags) &&
	       (!p->mask_within || has(call, COSY_ARGT_STATX_MASK)) &&
	       !*text(im, p->string) == !has(call, COSY_ARGT_NAME) &&
	       text_len(text(im, p->string)) <= MAX_ATTRIBUTE;
}

bool trigger_valid(const struct image *im, const struct cosy_compound *c,
		   const struct cosy_pattern *p)
{
	const struct cosy_syscall *call = call_of(p->nr);

	if (!pattern_valid(im, p))
		return false;
	if (c->guards & (COSY_GUARD_CHILD | COSY_GUARD_LISTED) && !has(call, COSY_ARGT_PATH))
		return false;
	if (c->guards & COSY_GUARD_CHILD && p->flags_allowed & AT_EMPTY &&
	    has(call, COSY_ARGT_AT_FLAGS))
		return false;
	return !(c->guards & COSY_GUARD_REGULAR) || has(call, COSY_ARGT_FD);
}

static bool op_answers(const struct image *im, const struct cosy_op *op,
		       const struct cosy_pattern *p)
{
	if (family_of(p->nr) == FAMILY_XATTR && family_of(op->nr) == FAMILY_XATTR) {
		for (__u32 k = 0; k < op->n_args; k++)
			if (text_is(text(im, op->args[k].string), text(im, p->string)))
				return true;
		return false;
	}
	return same_family(op->nr, p->nr);
}

bool serve_valid(const struct image *im, const struct cosy_compound *c,
		 const struct cosy_pattern *p)
{
	if (!pattern_valid(im, p))
		return false;
	for (__u32 i = 0; i < c->n_ops; i++)
		if (op_answers(im, &im->ops[c->first_op + i], p))
			return true;
	return false;
}

// --- executors ---------------------------------------------------------------

static bool scan_op(const struct image *im, const struct cosy_op *op)
{
	enum family family = family_of(op->nr);

	if ((family != FAMILY_STAT && family != FAMILY_XATTR) || op->flags & COSY_OP_UNTIL ||
	    op->n_conds)
		return false;
	for (__u32 k = 0; k < op->n_args; k++)
		if ((op->args[k].kind == COSY_ARG_NAME || op->args[k].kind == COSY_ARG_PATH) &&
		    !arg_has_text(im, &op->args[k]))
			return true;
	return false;
}

static bool scan_answers(const struct image *im, const struct cosy_pattern *p)
{
	static const char *const attributes[] = {
		"security.selinux",
		"security.capability",
		"system.posix_acl_access",
		"system.posix_acl_default",
	};

	if (family_of(p->nr) != FAMILY_XATTR)
		return family_of(p->nr) == FAMILY_STAT && !(p->flags_allowed & ~SCAN_FLAGS) &&
		       !(p->mask_within & ~SCAN_MASK);
	for (__u32 i = 0; i < sizeof(attributes) / sizeof(attributes[0]); i++)
		if (text_is(text(im, p->string), attributes[i]))
			return true;
	return false;
}

static bool directory_scan(const struct image *im, const struct cosy_compound *c)
{
	if (c->flags != COSY_SPECULATIVE || c->loop != COSY_LOOP_ENTRIES)
		return false;
	for (__u32 i = 0; i < c->n_ops; i++)
		if (!scan_op(im, &im->ops[c->first_op + i]))
			return false;
	for (__u32 i = 0; i < c->n_serve; i++)
		if (!scan_answers(im, &im->patterns[c->first_serve + i]))
			return false;
	return true;
}

// Of the entry at hand, or of what the program opens.
static bool opens(const struct cosy_compound *c, const struct cosy_op *op)
{
	static const __u8 of_entry[] = { COSY_ARG_DIR, COSY_ARG_NAME };
	static const __u8 of_trigger[] = { COSY_ARG_TRIGGER, COSY_ARG_TRIGGER };
	const __u8 *wanted = c->loop == COSY_LOOP_ENTRIES ? of_entry : of_trigger;
	__u32 n = 0;

	for (__u32 k = 0; k < op->n_args; k++) {
		if (op->args[k].kind == COSY_ARG_CONST)
			continue;
		if (n == 2 || op->args[k].kind != wanted[n])
			return false;
		n++;
	}
	return op->nr == __NR_openat && n == 2 && !op->n_conds;
}

static bool slurp_call(__u32 nr)
{
	return nr == __NR_fstat || nr == __NR_newfstatat || nr == __NR_read || nr == __NR_close;
}

static bool slurp(const struct image *im, const struct cosy_compound *c)
{
	const struct cosy_op *op = &im->ops[c->first_op];
	bool reads = false, closes = false;

	if (c->flags != COSY_SPECULATIVE ||
	    (c->loop != COSY_LOOP_ENTRIES && c->loop != COSY_LOOP_NONE) || !opens(c, op))
		return false;
	for (__u32 i = 1; i < c->n_ops; i++) {
		op = &im->ops[c->first_op + i];
		if (!slurp_call(op->nr) || op->args[0].kind != COSY_ARG_RESULT ||
		    op->args[0].index || (op->nr == __NR_read && !(op->flags & COSY_OP_UNTIL)))
			return false;
		reads = reads || op->nr == __NR_read;
		closes = closes || op->nr == __NR_close;
	}
	for (__u32 i = 0; i < c->n_triggers; i++)
		if (im->patterns[c->first_trigger + i].nr != __NR_openat)
			return false;
	for (__u32 i = 0; i < c->n_serve; i++)
		if (!slurp_call(im->patterns[c->first_serve + i].nr))
			return false;
	return reads && closes;
}

static bool reference_call(__u32 nr)
{
	return family_of(nr) != FAMILY_NONE || nr == __NR_close;
}

static bool plain_calls(const struct image *im, const struct cosy_compound *c)
{
	if (c->flags != COSY_SPECULATIVE)
		return false;
	for (__u32 i = 0; i < c->n_ops; i++)
		if (!reference_call(im->ops[c->first_op + i].nr))
			return false;
	for (__u32 i = 0; i < c->n_serve; i++)
		if (!reference_call(im->patterns[c->first_serve + i].nr))
			return false;
	return true;
}

bool executors_valid(const struct image *im, const struct cosy_compound *c)
{
	__u32 able = 0;

	if (directory_scan(im, c))
		able |= COSY_EXECUTOR_BPF;
	if (c->flags == COSY_EXPLICIT || slurp(im, c))
		able |= COSY_EXECUTOR_MODULE;
	if (plain_calls(im, c))
		able |= COSY_EXECUTOR_REFERENCE;
	return c->executors && !(c->executors & ~able);
}
