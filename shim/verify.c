// SPDX-License-Identifier: MIT
#include "verify_parts.h"

#include "crc32.h"

#define MAX_NTH 1024
#define MAX_ENTRIES (1u << 20)
#define MAX_MISS 1024
#define MAX_LIMIT_OPS (1u << 20)
#define MAX_LIMIT_BYTES (256u << 20)
#define MAX_LIMIT_TIME_NS 1000000000u
#define MAX_OUT (1u << 20)
#define MAX_NAME 64

#define GUARDS                                                                                     \
	(COSY_GUARD_SCANNED | COSY_GUARD_CHILD | COSY_GUARD_LEAF | COSY_GUARD_REGULAR |            \
	 COSY_GUARD_LISTED)
#define IN_SCAN (COSY_GUARD_SCANNED | COSY_GUARD_CHILD)
#define OP_FLAGS (COSY_OP_OPTIONAL | COSY_OP_UNTIL)
#define AT_FDCWD_VALUE ((__u64) - 100)

static bool tells_size(const struct image *im, const struct cosy_compound *c, __u32 op)
{
	const struct cosy_syscall *call = call_of(im->ops[c->first_op + op].nr);

	return call && (has(call, COSY_ARGT_STAT_OUT) || has(call, COSY_ARGT_STATX_OUT));
}

// --- arguments ---------------------------------------------------------------

static bool is_text_kind(__u8 kind)
{
	return kind == COSY_ARGT_PATH || kind == COSY_ARGT_PATH2 || kind == COSY_ARGT_NAME ||
	       kind == COSY_ARGT_STR;
}

static bool is_number_kind(__u8 kind)
{
	return kind == COSY_ARGT_SIZE || kind == COSY_ARGT_OFFSET || kind == COSY_ARGT_COUNT ||
	       kind == COSY_ARGT_INT;
}

static bool is_pointer_kind(__u8 kind)
{
	return kind == COSY_ARGT_BUF_IN || kind == COSY_ARGT_IOV_IN || kind == COSY_ARGT_IOV_OUT ||
	       kind == COSY_ARGT_PTR;
}

// Least bytes of an output buffer; 0: the kind is none.
static __u64 out_least(__u8 kind)
{
	switch (kind) {
	case COSY_ARGT_STAT_OUT:
		return 144;
	case COSY_ARGT_STATX_OUT:
		return 256;
	case COSY_ARGT_BUF_OUT:
		return 1;
	case COSY_ARGT_DIRENTS_OUT:
		return 24;
	}
	return 0;
}

// No field is set that this kind of argument does not use.
static bool arg_clean(const struct image *im, const struct cosy_arg *arg)
{
	bool index = arg->index, string = arg_has_text(im, arg), value = arg->value,
	     field = arg->field;

	switch (arg->kind) {
	case COSY_ARG_CONST:
	case COSY_ARG_OUT:
		return !index && !string && !field;
	case COSY_ARG_STRING:
	case COSY_ARG_NAME:
	case COSY_ARG_PATH:
	case COSY_ARG_ITEM:
		return !index && !value && !field;
	case COSY_ARG_DIR:
		return !index && !string && !value && !field;
	case COSY_ARG_RESULT:
		return !string && !value && !field;
	case COSY_ARG_TRIGGER:
		return !value && !field;
	case COSY_ARG_FIELD:
		return !string;
	}
	return false;
}

// Every call that triggers the compound has such an argument there.
static bool trigger_has(const struct image *im, const struct cosy_compound *c, __u8 index,
			__u8 kind)
{
	for (__u32 i = 0; i < c->n_triggers; i++) {
		const struct cosy_syscall *call = call_of(im->patterns[c->first_trigger + i].nr);

		if (!call || index >= call->n_args || call->args[index] != kind)
			return false;
	}
	return c->n_triggers != 0;
}

// What the argument comes from is known when operation `op` runs.
static bool provenance_valid(const struct image *im, const struct cosy_compound *c, __u32 op,
			     const struct cosy_arg *arg, __u8 kind)
{
	switch (arg->kind) {
	case COSY_ARG_DIR:
		if (kind != COSY_ARGT_DIRFD && kind != COSY_ARGT_FD)
			return false;
		return (c->guards & IN_SCAN) == IN_SCAN;
	case COSY_ARG_NAME:
	case COSY_ARG_PATH:
		return (c->guards & IN_SCAN) == IN_SCAN;
	case COSY_ARG_ITEM:
		return c->loop == COSY_LOOP_PATHS;
	case COSY_ARG_RESULT:
		return arg->index < op;
	case COSY_ARG_FIELD:
		return arg->index < op && arg->field == COSY_FIELD_SIZE &&
		       tells_size(im, c, arg->index) && is_number_kind(kind) &&
		       arg->value <= MAX_OUT;
	case COSY_ARG_TRIGGER:
		return c->loop == COSY_LOOP_NONE && trigger_has(im, c, arg->index, kind);
	case COSY_ARG_CONST:
		return kind != COSY_ARGT_AT_FLAGS || !(arg->value & ~(__u64)AT_KNOWN);
	}
	return true;
}

// More that a mined compound must keep to: what it opens, and by which descriptors.
static bool mined_arg_valid(const struct image *im, const struct cosy_compound *c,
			    const struct cosy_arg *arg, __u8 kind)
{
	if (kind == COSY_ARGT_OPEN_FLAGS)
		return arg->kind == COSY_ARG_CONST && !(arg->value & ~(__u64)OPEN_KNOWN);
	if (kind != COSY_ARGT_FD && kind != COSY_ARGT_DIRFD)
		return true;
	switch (arg->kind) {
	case COSY_ARG_CONST:
		return kind == COSY_ARGT_DIRFD && arg->value == AT_FDCWD_VALUE;
	case COSY_ARG_FIELD:
		return false;
	case COSY_ARG_RESULT:
		return family_of(im->ops[c->first_op + arg->index].nr) == FAMILY_OPEN;
	}
	return true;
}

static bool arg_valid(const struct image *im, const struct cosy_compound *c, __u32 op,
		      const struct cosy_arg *arg, __u8 kind)
{
	const char *string = text(im, arg->string);
	bool named = arg->kind == COSY_ARG_STRING || arg->kind == COSY_ARG_NAME ||
		     arg->kind == COSY_ARG_PATH || arg->kind == COSY_ARG_ITEM;

	if (!arg_clean(im, arg) || is_pointer_kind(kind))
		return false;
	if (out_least(kind))
		return arg->kind == COSY_ARG_OUT && arg->value >= out_least(kind) &&
		       arg->value <= MAX_OUT;
	if (arg->kind == COSY_ARG_OUT)
		return false;
	if (is_text_kind(kind) ? !named && arg->kind != COSY_ARG_TRIGGER : named || *string)
		return false;
	if (text_len(string) > MAX_PATH || (arg->kind != COSY_ARG_STRING && *string == '/'))
		return false;
	return provenance_valid(im, c, op, arg, kind);
}

// How the arguments of one call go together.
static bool args_agree(const struct image *im, const struct cosy_op *op,
		       const struct cosy_syscall *call, __u32 i)
{
	const struct cosy_arg *arg = &op->args[i];
	int dirfd = arg_of(call, COSY_ARGT_DIRFD), flags = arg_of(call, COSY_ARGT_AT_FLAGS);

	// A name is looked up in D.
	if (arg->kind == COSY_ARG_NAME && (dirfd < 0 || op->args[dirfd].kind != COSY_ARG_DIR))
		return false;
	if (call->args[i] == COSY_ARGT_SIZE && arg->kind == COSY_ARG_CONST && i &&
	    op->args[i - 1].kind == COSY_ARG_OUT && arg->value > op->args[i - 1].value)
		return false;
	if (arg->kind == COSY_ARG_STRING && !arg_has_text(im, arg))
		return call->args[i] == COSY_ARGT_PATH && flags >= 0 &&
		       op->args[flags].kind == COSY_ARG_CONST && op->args[flags].value & AT_EMPTY;
	return true;
}

// --- operations --------------------------------------------------------------

/*
 * Leaves no trace behind: pure calls; opening for reading, what is read from
 * there, and closing it again.
 */
static bool op_speculable(const struct cosy_compound *c, const struct cosy_op *op,
			  const struct cosy_syscall *call)
{
	if (call->cls == COSY_CLASS_PURE || family_of(op->nr) == FAMILY_OPEN)
		return true;
	if (!op->n_args || (op->nr != __NR_close && op->nr != __NR_read))
		return false;
	if (op->args[0].kind == COSY_ARG_RESULT)
		return true;
	return op->nr == __NR_read && op->args[0].kind == COSY_ARG_TRIGGER &&
	       c->guards & COSY_GUARD_REGULAR;
}

static bool cond_valid(const struct image *im, const struct cosy_compound *c, __u32 op,
		       const struct cosy_cond *cond)
{
	if (cond->field < COSY_FIELD_RET || cond->field > COSY_FIELD_SIZE ||
	    cond->relation < COSY_IS || cond->relation > COSY_AT_LEAST || cond->index >= op ||
	    cond->reserved || cond->reserved2)
		return false;
	return cond->field <= COSY_FIELD_ERRNO || tells_size(im, c, cond->index);
}

static bool op_valid(const struct image *im, const struct cosy_compound *c, __u32 i)
{
	const struct cosy_op *op = &im->ops[c->first_op + i];
	const struct cosy_syscall *call = call_of(op->nr);

	if (!call || op->flags & ~OP_FLAGS || op->n_args != call->n_args ||
	    call->cls == COSY_CLASS_PROCESS)
		return false;
	if (c->flags == COSY_SPECULATIVE && !op_speculable(c, op, call))
		return false;
	if (op->flags & COSY_OP_UNTIL &&
	    (call->cls != COSY_CLASS_POSITIONAL ||
	     (!has(call, COSY_ARGT_BUF_OUT) && !has(call, COSY_ARGT_DIRENTS_OUT))))
		return false;
	for (__u32 k = 0; k < op->n_args; k++)
		if (!arg_valid(im, c, i, &op->args[k], call->args[k]) ||
		    !args_agree(im, op, call, k) ||
		    (c->flags == COSY_SPECULATIVE &&
		     !mined_arg_valid(im, c, &op->args[k], call->args[k])))
			return false;
	for (__u32 k = 0; k < op->n_conds; k++)
		if (!cond_valid(im, c, i, &im->conds[op->first_cond + k]))
			return false;
	return true;
}

// --- compounds ---------------------------------------------------------------

static bool name_valid(const char *name)
{
	size_t n = 0;

	for (; name[n]; n++)
		if (n == MAX_NAME || !((name[n] >= 'a' && name[n] <= 'z') ||
				       (name[n] >= '0' && name[n] <= '9') || (n && name[n] == '-')))
			return false;
	return n != 0;
}

static bool paths_valid(const struct image *im, const struct cosy_compound *c)
{
	if (c->loop != COSY_LOOP_PATHS)
		return !c->n_paths && !(c->guards & COSY_GUARD_LISTED);
	if (!c->n_paths || c->guards & (IN_SCAN | COSY_GUARD_LEAF))
		return false;
	for (__u32 i = 0; i < c->n_paths; i++) {
		size_t len = text_len(text(im, im->paths[c->first_path + i]));

		if (!len || len > MAX_PATH)
			return false;
	}
	return true;
}

// How far into a directory its runs go.
static bool reach_valid(const struct cosy_compound *c)
{
	if (c->loop != COSY_LOOP_ENTRIES)
		return !c->chunk && !c->grow && !c->miss;
	return c->chunk && c->chunk <= MAX_ENTRIES && c->grow >= 2 && c->grow <= MAX_ENTRIES &&
	       c->miss && c->miss <= MAX_MISS;
}

static bool numbers_valid(const struct cosy_compound *c)
{
	if (c->flags != COSY_SPECULATIVE && c->flags != COSY_EXPLICIT)
		return false;
	if (c->guards & ~GUARDS || c->loop > COSY_LOOP_PATHS || !c->nth || c->nth > MAX_NTH ||
	    c->min_entries > MAX_ENTRIES)
		return false;
	if (c->loop == COSY_LOOP_ENTRIES && (c->guards & IN_SCAN) != IN_SCAN)
		return false;
	if (!reach_valid(c))
		return false;
	return c->limit_ops && c->limit_ops <= MAX_LIMIT_OPS && c->limit_bytes &&
	       c->limit_bytes <= MAX_LIMIT_BYTES && c->limit_time_ns &&
	       c->limit_time_ns <= MAX_LIMIT_TIME_NS;
}

static bool compound_valid(const struct image *im, const struct cosy_compound *c)
{
	if (!name_valid(text(im, c->name)) || !numbers_valid(c) || !paths_valid(im, c))
		return false;
	if (c->flags == COSY_SPECULATIVE && (!c->n_triggers || !c->n_serve))
		return false;
	for (__u32 i = 0; i < c->n_ops; i++)
		if (!op_valid(im, c, i))
			return false;
	for (__u32 i = 0; i < c->n_triggers; i++)
		if (!trigger_valid(im, c, &im->patterns[c->first_trigger + i]))
			return false;
	for (__u32 i = 0; i < c->n_serve; i++)
		if (!serve_valid(im, c, &im->patterns[c->first_serve + i]))
			return false;
	return executors_valid(im, c);
}

static bool names_differ(const struct image *im)
{
	for (__u32 i = 0; i < im->head->n_compounds; i++)
		for (__u32 k = 0; k < i; k++)
			if (text_is(text(im, im->compounds[i].name),
				    text(im, im->compounds[k].name)))
				return false;
	return true;
}

// --- offsets and counts --------------------------------------------------------

// A table of n items of `size` bytes at `offset`, aligned to 8.
static bool table_fits(const struct cosy_image *h, __u32 offset, __u32 n, size_t size)
{
	return offset % 8 == 0 && offset >= sizeof(*h) && offset <= h->size &&
	       n <= (h->size - offset) / size;
}

static bool range_fits(__u32 first, __u32 n, __u32 all, __u32 most)
{
	return n <= most && first <= all && n <= all - first;
}

static bool header_fits(const struct cosy_image *h, size_t size)
{
	static const char magic[] = COSY_IMAGE_MAGIC;

	if (size < sizeof(*h) || size > COSY_IMAGE_MAX_SIZE || h->size != size || h->flags)
		return false;
	for (__u32 i = 0; i < sizeof(h->magic); i++)
		if (h->magic[i] != (__u8)magic[i])
			return false;
	if (h->crc32 != crc32((const __u8 *)h + 16, size - 16))
		return false;
	return h->n_compounds <= COSY_MAX_COMPOUNDS &&
	       table_fits(h, h->compounds, h->n_compounds, sizeof(struct cosy_compound)) &&
	       table_fits(h, h->ops, h->n_ops, sizeof(struct cosy_op)) &&
	       table_fits(h, h->patterns, h->n_patterns, sizeof(struct cosy_pattern)) &&
	       table_fits(h, h->conds, h->n_conds, sizeof(struct cosy_cond)) &&
	       table_fits(h, h->paths, h->n_paths, sizeof(__u32)) && h->strings >= sizeof(*h) &&
	       h->strings <= size && h->strings_size <= size - h->strings && h->strings_size;
}

static bool arg_is_zero(const struct cosy_arg *arg)
{
	return !arg->kind && !arg->index && !arg->field && !arg->string && !arg->value;
}

static bool op_fits(const struct image *im, const struct cosy_op *op)
{
	if (op->n_args > COSY_MAX_ARGS ||
	    !range_fits(op->first_cond, op->n_conds, im->head->n_conds, COSY_MAX_CONDS) ||
	    (op->first_cond && !op->n_conds))
		return false;
	for (__u32 k = 0; k < COSY_MAX_ARGS; k++)
		if (k < op->n_args ? op->args[k].string >= im->head->strings_size :
				     !arg_is_zero(&op->args[k]))
			return false;
	return true;
}

static bool patterns_fit(const struct image *im, __u32 first, __u32 n)
{
	for (__u32 i = first; i < first + n; i++)
		if (im->patterns[i].reserved || im->patterns[i].string >= im->head->strings_size)
			return false;
	return true;
}

static bool compound_fits(const struct image *im, const struct cosy_compound *c)
{
	const struct cosy_image *h = im->head;

	if (c->name >= h->strings_size || !c->n_ops ||
	    !range_fits(c->first_op, c->n_ops, h->n_ops, COSY_MAX_OPS) ||
	    !range_fits(c->first_trigger, c->n_triggers, h->n_patterns, COSY_MAX_PATTERNS) ||
	    !range_fits(c->first_serve, c->n_serve, h->n_patterns, COSY_MAX_PATTERNS) ||
	    !range_fits(c->first_path, c->n_paths, h->n_paths, COSY_MAX_PATHS) ||
	    c->n_triggers + c->n_serve > COSY_MAX_PATTERNS)
		return false;
	for (__u32 i = 0; i < c->n_ops; i++)
		if (!op_fits(im, &im->ops[c->first_op + i]))
			return false;
	for (__u32 i = 0; i < c->n_paths; i++)
		if (im->paths[c->first_path + i] >= h->strings_size)
			return false;
	return patterns_fit(im, c->first_trigger, c->n_triggers) &&
	       patterns_fit(im, c->first_serve, c->n_serve);
}

bool image_verify(const struct cosy_image *head, size_t size, struct image *to)
{
	const __u8 *at = (const __u8 *)head;

	if (!header_fits(head, size))
		return false;
	*to = (struct image){
		.head = head,
		.compounds = (const void *)(at + head->compounds),
		.ops = (const void *)(at + head->ops),
		.patterns = (const void *)(at + head->patterns),
		.conds = (const void *)(at + head->conds),
		.paths = (const void *)(at + head->paths),
		.strings = (const char *)at + head->strings,
	};
	if (to->strings[0] || to->strings[head->strings_size - 1])
		return false;
	for (__u32 i = 0; i < head->n_compounds; i++)
		if (!compound_fits(to, &to->compounds[i]) || !compound_valid(to, &to->compounds[i]))
			return false;
	return names_differ(to);
}
