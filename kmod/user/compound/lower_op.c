// SPDX-License-Identifier: MIT
/* One call of a body: whether it is made, with what, and what is known of it afterwards. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "lower_parts.h"
#include "plain.h"
#include "syscall_table.h"

/*
 * Older calls as those that the module makes: a digit is an argument of the old one.
 * F: AT_FDCWD, Z: 0, N: AT_SYMLINK_NOFOLLOW, D: AT_REMOVEDIR, C: flags of creat.
 */
static const struct {
	short old, nr;
	const char *args;
} newer[] = {
	{ SYS_open, SYS_openat, "F012" },	  { SYS_creat, SYS_openat, "F0C1" },
	{ SYS_stat, SYS_newfstatat, "F01Z" },	  { SYS_lstat, SYS_newfstatat, "F01N" },
	{ SYS_access, SYS_faccessat, "F01" },	  { SYS_readlink, SYS_readlinkat, "F012" },
	{ SYS_unlink, SYS_unlinkat, "F0Z" },	  { SYS_rmdir, SYS_unlinkat, "F0D" },
	{ SYS_mkdir, SYS_mkdirat, "F01" },	  { SYS_rename, SYS_renameat2, "F0F1Z" },
	{ SYS_renameat, SYS_renameat2, "0123Z" }, { SYS_link, SYS_linkat, "F0F1Z" },
	{ SYS_symlink, SYS_symlinkat, "0F1" },	  { SYS_chmod, SYS_fchmodat, "F01" },
	{ SYS_chown, SYS_fchownat, "F012Z" },	  { SYS_lchown, SYS_fchownat, "F012N" },
};

// --- whether a call is made --------------------------------------------------

static void check_condition(struct lowering *l, const struct cosy_cond *cond)
{
	bool is_signed = cond->field == COSY_FIELD_RET;
	enum cosy_insn_op less = is_signed ? COSY_I_JSLT : COSY_I_JLT;

	LOAD_SLOT(l, T0, cond->index, ran);
	leave_if(l, COSY_I_JEQ, T0, ZERO);
	if (cond->field >= COSY_FIELD_TYPE) {
		LOAD_SLOT(l, T0, cond->index, has_stat);
		leave_if(l, COSY_I_JEQ, T0, ZERO);
	}
	switch (cond->field) {
	case COSY_FIELD_RET:
		LOAD_SLOT(l, T0, cond->index, ret);
		break;
	case COSY_FIELD_ERRNO:
		LOAD_SLOT(l, T1, cond->index, ret);
		set(l, T0, 0);
		unless(l, COSY_I_JSGE, T1, ZERO);
		emit(l, COSY_I_SUB, T0, ZERO, T1, 0);
		break;
	case COSY_FIELD_SIZE:
		LOAD_SLOT(l, T0, cond->index, size);
		break;
	default:
		LOAD_SLOT(l, T0, cond->index, mode);
		emit(l, COSY_I_ANDI, T0, T0, 0, cond->field == COSY_FIELD_TYPE ? S_IFMT : 07777);
	}
	set(l, T1, cond->value);
	switch (cond->relation) {
	case COSY_IS:
		leave_if(l, COSY_I_JNE, T0, T1);
		break;
	case COSY_IS_NOT:
		leave_if(l, COSY_I_JEQ, T0, T1);
		break;
	case COSY_AT_MOST:
		leave_if(l, less, T1, T0);
		break;
	default:
		leave_if(l, less, T0, T1);
	}
}

/* What an argument comes from must have run, and not failed. */
static void check_source(struct lowering *l, const struct cosy_arg *arg)
{
	if (arg->kind == COSY_ARG_RESULT) {
		LOAD_SLOT(l, T0, arg->index, ran);
		leave_if(l, COSY_I_JEQ, T0, ZERO);
		LOAD_SLOT(l, T0, arg->index, ret);
		leave_if(l, COSY_I_JSLT, T0, ZERO);
	} else if (arg->kind == COSY_ARG_FIELD) {
		LOAD_SLOT(l, T0, arg->index, has_stat);
		leave_if(l, COSY_I_JEQ, T0, ZERO);
	}
}

// --- arguments -----------------------------------------------------------------

/* The string at `from` goes where T0 points to, which then is behind it. */
static void append_string(struct lowering *l, int from)
{
	emit(l, COSY_I_STRLEN, T2, from, 0, MOST_TEXT);
	emit(l, COSY_I_MOVE, T2, T0, from, 0);
	emit(l, COSY_I_ADD, T0, T0, T2, 0);
}

/* dst = [D/] p or e.name [/ "suffix"], in the room of that argument. */
static void join(struct lowering *l, const struct cosy_compound_ready *r,
		 const struct cosy_arg *arg, int dst)
{
	uint64_t to = l->join + (uint64_t)(dst - ARGS) * JOIN_BYTES;

	set(l, T0, to);
	if (arg->kind == COSY_ARG_PATH) {
		set(l, T1, r->prefix);
		append_string(l, T1);
	}
	append_string(l, TEXT);
	if (l->im->strings[arg->string]) {
		set(l, T1, '/');
		emit(l, COSY_I_ST8, 0, T0, T1, 0);
		emit(l, COSY_I_ADDI, T0, T0, 0, 1);
		set(l, T1, arg->string);
		append_string(l, T1);
	}
	emit(l, COSY_I_ST8, 0, T0, ZERO, 0);
	set(l, dst, to);
}

static int put_argument(struct lowering *l, const struct cosy_compound_ready *r,
			const struct cosy_arg *arg, int dst)
{
	switch (arg->kind) {
	case COSY_ARG_CONST:
		set(l, dst, arg->value);
		return 0;
	case COSY_ARG_STRING:
		set(l, dst, arg->string);
		return 0;
	case COSY_ARG_DIR:
		move(l, dst, REG_DIR);
		return 0;
	case COSY_ARG_OUT:
		move(l, dst, REG_CURSOR);
		emit(l, COSY_I_ADDI, dst, dst, 0, RECORD);
		return 0;
	case COSY_ARG_RESULT:
		LOAD_SLOT(l, dst, arg->index, ret);
		return 0;
	case COSY_ARG_FIELD:
		LOAD_SLOT(l, dst, arg->index, size);
		emit(l, COSY_I_ADDI, dst, dst, 0, (int64_t)arg->value);
		return 0;
	}
	// A name in a loop is an entry's; without one it is the triggering call's.
	if (arg->kind == COSY_ARG_TRIGGER || l->compound->loop == COSY_LOOP_NONE)
		return -EOPNOTSUPP;
	if (arg->kind == COSY_ARG_PATH || l->im->strings[arg->string])
		join(l, r, arg, dst);
	else
		move(l, dst, TEXT);
	return 0;
}

static uint64_t constant(char letter)
{
	switch (letter) {
	case 'F':
		return (uint64_t)AT_FDCWD;
	case 'N':
		return AT_SYMLINK_NOFOLLOW;
	case 'D':
		return AT_REMOVEDIR;
	case 'C':
		return O_CREAT | O_WRONLY | O_TRUNC;
	}
	return 0;
}

// --- one operation ---------------------------------------------------------------

struct call {
	int nr;
	const char *args; /* as in `newer` */
	int out; /* register of its output buffer; 0: none */
	int size; /* register of that one's size; 0: none */
	uint64_t out_bytes; /* of the buffer */
	uint8_t out_kind; /* COSY_ARGT_* */
};

/* Which argument of the operation comes there; -1: none, a constant. */
static int source(const struct call *call, const struct cosy_op *op, int position)
{
	int from = call->args[position] - '0';

	return from >= 0 && from < op->n_args ? from : -1;
}

static struct call call_of_op(const struct cosy_op *op)
{
	static const char *const same[] = { "", "0", "01", "012", "0123", "01234", "012345" };
	const struct cosy_syscall *known = &cosy_syscalls[op->nr];
	struct call call = { .nr = op->nr, .args = same[op->n_args] };

	for (size_t i = 0; i < sizeof(newer) / sizeof(newer[0]); i++) {
		if (newer[i].old == op->nr) {
			call.nr = newer[i].nr;
			call.args = newer[i].args;
		}
	}
	for (int k = 0; call.args[k]; k++) {
		int from = source(&call, op, k);

		if (from < 0 || op->args[from].kind != COSY_ARG_OUT)
			continue;
		call.out = ARGS + k;
		call.out_bytes = op->args[from].value;
		call.out_kind = known->args[from];
		if (from + 1 < op->n_args && known->args[from + 1] == COSY_ARGT_SIZE)
			call.size = ARGS + k + 1;
	}
	return call;
}

static int put_arguments(struct lowering *l, const struct cosy_compound_ready *r,
			 const struct cosy_op *op, const struct call *call)
{
	for (int k = 0; call->args[k]; k++) {
		int from = source(call, op, k), err = 0;

		if (from < 0)
			set(l, ARGS + k, constant(call->args[k]));
		else
			err = put_argument(l, r, &op->args[from], ARGS + k);
		if (err)
			return err;
	}
	if (call->size) {
		// A size that a call told may be more than the buffer.
		set(l, T0, call->out_bytes);
		unless(l, COSY_I_JGE, T0, call->size);
		move(l, call->size, T0);
	}
	return 0;
}

/* T0 = how much of its buffer a call has filled. */
static void measure_output(struct lowering *l, const struct call *call)
{
	uint64_t whole = call->out_kind == COSY_ARGT_STAT_OUT  ? 144 :
			 call->out_kind == COSY_ARGT_STATX_OUT ? 256 :
								 0;

	if (!call->out) {
		set(l, T0, 0);
	} else if (whole) {
		set(l, T0, whole);
		unless(l, COSY_I_JEQ, RET, ZERO);
		move(l, T0, ZERO);
	} else {
		move(l, T0, RET);
		unless(l, COSY_I_JSGE, RET, ZERO);
		move(l, T0, ZERO);
		// Who asks with a size of 0 is told a size.
		if (call->size) {
			unless(l, COSY_I_JGE, call->size, T0);
			move(l, T0, call->size);
		}
	}
}

/* Into the slot: what later calls of this iteration may ask for. */
static void remember(struct lowering *l, uint32_t index, const struct call *call, bool until)
{
	int64_t mode = RECORD + 24, size = RECORD + 48; // struct stat
	enum cosy_insn_op load_mode = COSY_I_LD32;

	if (call->out_kind == COSY_ARGT_STATX_OUT) {
		mode = RECORD + 28;
		size = RECORD + 40;
		load_mode = COSY_I_LD16;
	}
	if (until) {
		emit(l, COSY_I_ADD, TOTAL, TOTAL, RET, 0);
		unless(l, COSY_I_JSGE, RET, ZERO);
		move(l, TOTAL, RET);
	}
	STORE_SLOT(l, until ? TOTAL : RET, index, ret);
	set(l, T2, 1);
	STORE_SLOT(l, T2, index, ran);
	if (call->out_kind != COSY_ARGT_STAT_OUT && call->out_kind != COSY_ARGT_STATX_OUT)
		return;
	unless(l, COSY_I_JEQ, RET, ZERO);
	set(l, T2, 0);
	STORE_SLOT(l, T2, index, has_stat);
	emit(l, load_mode, T2, REG_CURSOR, 0, mode);
	STORE_SLOT(l, T2, index, mode);
	emit(l, COSY_I_LD64, T2, REG_CURSOR, 0, size);
	STORE_SLOT(l, T2, index, size);
}

int lower_op(struct lowering *l, struct cosy_compound_ready *r, uint32_t index)
{
	const struct cosy_op *op = &l->im->ops[l->compound->first_op + index];
	struct call call = call_of_op(op);
	bool until = op->flags & COSY_OP_UNTIL;
	uint32_t again, done = 0;
	int err;

	r->op = index;
	if (plain_call_args(call.nr) < 0)
		return -EOPNOTSUPP;
	if (r->most_record < RECORD + call.out_bytes + 8)
		r->most_record = (uint32_t)(RECORD + call.out_bytes + 8);
	l->n_jumps = 0;
	for (uint32_t k = 0; k < op->n_conds; k++)
		check_condition(l, &l->im->conds[op->first_cond + k]);
	for (uint32_t k = 0; k < op->n_args; k++)
		check_source(l, &op->args[k]);
	if (until) {
		set(l, TURNS, MOST_TURNS);
		set(l, TOTAL, 0);
	}
	again = cosy_loop_start(l->p);
	need_call(l);
	need_room(l, call.out_bytes);
	err = put_arguments(l, r, op, &call);
	if (err)
		return err;
	cosy_call(l->p, RET, call.nr, ARGS);
	emit(l, COSY_I_ADDI, CALLS, CALLS, 0, 1);
	measure_output(l, &call);
	remember(l, index, &call, until);
	put_record(l, index);
	if (until) {
		done = cosy_jump(l->p, COSY_I_JSGE, ZERO, RET);
		cosy_loop_end(l->p, TURNS, again);
		cosy_land(l->p, done);
	}
	for (uint32_t k = 0; k < l->n_jumps; k++)
		cosy_land(l->p, l->jumps[k]);
	return 0;
}
