// SPDX-License-Identifier: GPL-2.0
/*
 * What can be told of a program before it runs: every instruction is known and
 * well formed, no jump leaves the program or enters a loop, and loops count
 * down. What registers hold is checked when it is used.
 */
#include <linux/slab.h>

#include "cosy.h"

#define MAX_BYTES (1 << 20) /* that one instruction may touch */

/* fields that an instruction uses */
#define D 0x1
#define A 0x2
#define B 0x4
#define I 0x8

static const u8 fields[COSY_I_MAX] = {
	[COSY_I_EXIT] = 0,
	[COSY_I_MOV] = D | A,
	[COSY_I_MOVI] = D | I,
	[COSY_I_MOVHI] = D | I,
	[COSY_I_ADD] = D | A | B,
	[COSY_I_ADDI] = D | A | I,
	[COSY_I_SUB] = D | A | B,
	[COSY_I_MUL] = D | A | B,
	[COSY_I_DIV] = D | A | B,
	[COSY_I_MOD] = D | A | B,
	[COSY_I_AND] = D | A | B,
	[COSY_I_ANDI] = D | A | I,
	[COSY_I_OR] = D | A | B,
	[COSY_I_XOR] = D | A | B,
	[COSY_I_SHLI] = D | A | I,
	[COSY_I_SHRI] = D | A | I,
	[COSY_I_LD8] = D | A | I,
	[COSY_I_LD16] = D | A | I,
	[COSY_I_LD32] = D | A | I,
	[COSY_I_LD64] = D | A | I,
	[COSY_I_ST8] = A | B | I,
	[COSY_I_ST16] = A | B | I,
	[COSY_I_ST32] = A | B | I,
	[COSY_I_ST64] = A | B | I,
	[COSY_I_JMP] = I,
	[COSY_I_JEQ] = A | B | I,
	[COSY_I_JNE] = A | B | I,
	[COSY_I_JLT] = A | B | I,
	[COSY_I_JGE] = A | B | I,
	[COSY_I_JSLT] = A | B | I,
	[COSY_I_JSGE] = A | B | I,
	[COSY_I_LOOP] = D | I,
	[COSY_I_STRLEN] = D | A | I,
	[COSY_I_MOVE] = D | A | B | I,
	[COSY_I_COMPARE] = D | A | B | I,
	[COSY_I_CALL] = D | A | I,
	[COSY_I_FUSED] = D | A | I,
};

static bool is_jump(u8 op)
{
	return op >= COSY_I_JMP && op <= COSY_I_JSGE;
}

/* Stores, jumps and a copy have no register as their result. */
static bool writes_dst(u8 op)
{
	return (fields[op] & D) && op != COSY_I_MOVE && op != COSY_I_LOOP;
}

static bool imm_ok(const struct cosy_insn *x)
{
	switch (x->op) {
	case COSY_I_SHLI:
	case COSY_I_SHRI:
		return x->imm >= 0 && x->imm < 64;
	case COSY_I_STRLEN:
	case COSY_I_COMPARE:
		return x->imm > 0 && x->imm <= MAX_BYTES;
	case COSY_I_MOVE:
		return x->imm >= 0 && x->imm <= MAX_BYTES;
	}
	return true;
}

static enum cosy_refusal check_call(const struct cosy_insn *x, u32 flags)
{
	bool pure;
	u32 n;

	if (x->op == COSY_I_CALL) {
		const struct cosy_call *call = cosy_call_find(x->imm);

		if (!call)
			return COSY_REFUSED_CALL;
		n = cosy_call_n_args(call);
		pure = cosy_call_is_pure(call);
	} else {
		if (x->imm < 0 || !cosy_fused_exists(x->imm))
			return COSY_REFUSED_CALL;
		n = COSY_FUSED_ARGS;
		pure = cosy_fused_is_pure(x->imm);
	}
	if (x->a + n > COSY_N_REGS)
		return COSY_REFUSED_REGISTER;
	return (flags & COSY_LOAD_PURE) && !pure ? COSY_REFUSED_IMPURE : COSY_REFUSED_NOT;
}

static enum cosy_refusal check_insn(const struct cosy_insn *insns, u32 n, u32 at, u32 flags)
{
	const struct cosy_insn *x = &insns[at];
	u8 uses;

	if (x->op >= COSY_I_MAX)
		return COSY_REFUSED_OP;
	uses = fields[x->op];
	if ((!(uses & D) && x->dst) || (!(uses & A) && x->a) || (!(uses & B) && x->b) ||
	    (!(uses & I) && x->imm))
		return COSY_REFUSED_UNUSED;
	if (x->dst >= COSY_N_REGS || x->a >= COSY_N_REGS || x->b >= COSY_N_REGS)
		return COSY_REFUSED_REGISTER;
	if (!imm_ok(x))
		return COSY_REFUSED_IMM;
	if (is_jump(x->op) && (x->imm <= 0 || (u32)x->imm > n - 2 - at))
		return COSY_REFUSED_JUMP;
	if (x->op == COSY_I_LOOP && (x->imm >= 0 || (s64)at + 1 + x->imm < 0))
		return COSY_REFUSED_JUMP;
	if (x->op == COSY_I_CALL || x->op == COSY_I_FUSED)
		return check_call(x, flags);
	return COSY_REFUSED_NOT;
}

/* A loop's body: [first, last], the COSY_I_LOOP itself included. */
struct body {
	u32 first, last;
};

/*
 * Loops nest whole: seen in the order of their ends, each contains those that
 * begin behind its own start, and overlaps no other. `open` holds the ones that
 * no later loop contains yet.
 */
static enum cosy_refusal check_nesting(const struct cosy_insn *insns, struct body *open,
				       u32 *n_open, u32 at)
{
	struct body body = { .first = at + 1 + insns[at].imm, .last = at };
	u32 i;

	while (*n_open && open[*n_open - 1].first >= body.first)
		(*n_open)--;
	if (*n_open && open[*n_open - 1].last >= body.first)
		return COSY_REFUSED_LOOP;
	open[(*n_open)++] = body;
	for (i = body.first; i < at; i++) {
		const struct cosy_insn *x = &insns[i];

		if (writes_dst(x->op) && x->dst == insns[at].dst)
			return COSY_REFUSED_LOOP;
		if (x->op == COSY_I_LOOP && x->dst == insns[at].dst)
			return COSY_REFUSED_LOOP;
	}
	return COSY_REFUSED_NOT;
}

/* No jump from outside lands behind a loop's first instruction; from before it, that is. */
static enum cosy_refusal check_entries(const struct cosy_insn *insns, u32 at, u32 *error_at)
{
	u32 first = at + 1 + insns[at].imm, i;

	for (i = 0; i < first; i++) {
		u32 target = i + 1 + insns[i].imm;

		if (is_jump(insns[i].op) && target > first && target <= at) {
			*error_at = i;
			return COSY_REFUSED_JUMP;
		}
	}
	return COSY_REFUSED_NOT;
}

/* Each loop looks at the whole program before it: at most COSY_MAX_INSNS^2 / 2 quick steps. */
static enum cosy_refusal check_loops(const struct cosy_insn *insns, u32 n, u32 *error_at)
{
	struct body *open = kmalloc_array(n, sizeof(*open), GFP_KERNEL_ACCOUNT);
	enum cosy_refusal why = COSY_REFUSED_NOT;
	u32 n_open = 0, i;

	if (!open)
		return COSY_REFUSED_LENGTH;
	for (i = 0; i < n && !why; i++) {
		if (insns[i].op != COSY_I_LOOP)
			continue;
		cond_resched();
		*error_at = i;
		why = check_nesting(insns, open, &n_open, i);
		if (!why)
			why = check_entries(insns, i, error_at);
	}
	kfree(open);
	return why;
}

enum cosy_refusal cosy_verify(const struct cosy_insn *insns, u32 n, u32 flags, u32 *error_at)
{
	u32 i;

	*error_at = 0;
	if (!n || n > COSY_MAX_INSNS)
		return COSY_REFUSED_LENGTH;
	for (i = 0; i < n; i++) {
		enum cosy_refusal why = check_insn(insns, n, i, flags);

		*error_at = i;
		if (why)
			return why;
	}
	if (insns[n - 1].op != COSY_I_EXIT)
		return COSY_REFUSED_END;
	return check_loops(insns, n, error_at);
}
