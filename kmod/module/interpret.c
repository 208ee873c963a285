// SPDX-License-Identifier: GPL-2.0
/*
 * Runs a verified program. Registers are private, memory is the context's
 * buffer, which other threads of the caller may change at any moment: whatever
 * is loaded is used once, from a register.
 */
#include <linux/nospec.h>

#include "cosy.h"

#define MAX_BYTES (1u << 20) /* as the verifier allows for constants */
#define LONG_BODY 256 /* instructions of a loop after which each turn looks at the clock */

static int load(const struct cosy_context *c, const struct cosy_insn *x, u64 *regs)
{
	u32 bytes = 1u << (x->op - COSY_I_LD8);
	u64 at = regs[x->a] + x->imm;
	const u8 *from;

	if (unlikely(!cosy_range_ok(c, at, bytes)))
		return -EFAULT;
	/* what is loaded may become an address: not even speculatively out of bounds */
	from = c->buffer + array_index_nospec(at, c->bytes);
	switch (x->op) {
	case COSY_I_LD8:
		regs[x->dst] = *from;
		break;
	case COSY_I_LD16:
		regs[x->dst] = get_unaligned((const u16 *)from);
		break;
	case COSY_I_LD32:
		regs[x->dst] = get_unaligned((const u32 *)from);
		break;
	default:
		regs[x->dst] = get_unaligned((const u64 *)from);
	}
	return 0;
}

static int store(const struct cosy_context *c, const struct cosy_insn *x, const u64 *regs)
{
	u32 bytes = 1u << (x->op - COSY_I_ST8);
	u64 at = regs[x->a] + x->imm;
	u8 *to = c->buffer + at;

	if (unlikely(!cosy_range_ok(c, at, bytes)))
		return -EFAULT;
	switch (x->op) {
	case COSY_I_ST8:
		*to = regs[x->b];
		break;
	case COSY_I_ST16:
		put_unaligned((u16)regs[x->b], (u16 *)to);
		break;
	case COSY_I_ST32:
		put_unaligned((u32)regs[x->b], (u32 *)to);
		break;
	default:
		put_unaligned(regs[x->b], (u64 *)to);
	}
	return 0;
}

/* In front of strings(), by how much they have to do. */
static int strings_tick(const struct cosy_insn *x, const u64 *regs, struct cosy_budget *budget)
{
	u64 bytes = x->imm ?: regs[x->dst];

	return bytes > COSY_LONG_BYTES ? cosy_tick_long(budget) : cosy_tick(budget);
}

static int strings(const struct cosy_context *c, const struct cosy_insn *x, u64 *regs)
{
	u64 a = regs[x->a], b = regs[x->b], bytes = x->imm;

	switch (x->op) {
	case COSY_I_STRLEN:
		if (!cosy_range_ok(c, a, 1))
			return -EFAULT;
		a = array_index_nospec(a, c->bytes);
		regs[x->dst] = strnlen(c->buffer + a, min_t(u64, bytes, c->bytes - a));
		return 0;
	case COSY_I_MOVE:
		bytes = bytes ?: regs[x->dst];
		if (bytes > MAX_BYTES || !cosy_range_ok(c, a, bytes) || !cosy_range_ok(c, b, bytes))
			return -EFAULT;
		memmove(c->buffer + a, c->buffer + b, bytes);
		return 0;
	default:
		if (!cosy_range_ok(c, a, bytes) || !cosy_range_ok(c, b, bytes))
			return -EFAULT;
		a = array_index_nospec(a, c->bytes);
		b = array_index_nospec(b, c->bytes);
		regs[x->dst] = memcmp(c->buffer + a, c->buffer + b, bytes) != 0;
		return 0;
	}
}

static bool jumps(const struct cosy_insn *x, const u64 *regs)
{
	u64 a = regs[x->a], b = regs[x->b];

	switch (x->op) {
	case COSY_I_JMP:
		return true;
	case COSY_I_JEQ:
		return a == b;
	case COSY_I_JNE:
		return a != b;
	case COSY_I_JLT:
		return a < b;
	case COSY_I_JGE:
		return a >= b;
	case COSY_I_JSLT:
		return (s64)a < (s64)b;
	default:
		return (s64)a >= (s64)b;
	}
}

static int compute(const struct cosy_insn *x, u64 *regs)
{
	u64 a = regs[x->a], b = regs[x->b], r;

	switch (x->op) {
	case COSY_I_MOV:
		r = a;
		break;
	case COSY_I_MOVI:
		r = (s64)x->imm;
		break;
	case COSY_I_MOVHI:
		r = (u32)regs[x->dst] | (u64)(u32)x->imm << 32;
		break;
	case COSY_I_ADD:
		r = a + b;
		break;
	case COSY_I_ADDI:
		r = a + x->imm;
		break;
	case COSY_I_SUB:
		r = a - b;
		break;
	case COSY_I_MUL:
		r = a * b;
		break;
	case COSY_I_DIV:
		if (!b)
			return -EDOM;
		r = a / b;
		break;
	case COSY_I_MOD:
		if (!b)
			return -EDOM;
		r = a % b;
		break;
	case COSY_I_AND:
		r = a & b;
		break;
	case COSY_I_ANDI:
		r = a & (s64)x->imm;
		break;
	case COSY_I_OR:
		r = a | b;
		break;
	case COSY_I_XOR:
		r = a ^ b;
		break;
	case COSY_I_SHLI:
		r = a << x->imm;
		break;
	default:
		r = a >> x->imm;
	}
	regs[x->dst] = r;
	return 0;
}

/* A call of either kind. *done: its result is there, the run goes on behind it. */
static int call(struct cosy_context *c, const struct cosy_program *program,
		const struct cosy_insn *x, u64 *regs, struct cosy_budget *budget, bool *done)
{
	int status = cosy_tick(budget);
	u64 used;

	if (!status && x->op == COSY_I_CALL)
		status = cosy_call(c, cosy_call_find(x->imm), &regs[x->a], budget, &regs[x->dst]);
	*done = !status;
	/* it read or wrote as much as many others */
	if (!status && x->op == COSY_I_CALL && (s64)regs[x->dst] > (s64)COSY_LONG_BYTES)
		budget->look_at = 0;
	if (!status && x->op == COSY_I_FUSED)
		regs[x->dst] = cosy_fused(c, x->imm, &regs[x->a], program->flags & COSY_LOAD_PURE,
					  budget, &used, &status);
	return status;
}

void cosy_interpret(struct cosy_context *c, const struct cosy_program *program,
		    struct cosy_run *run, struct cosy_budget *budget)
{
	u64 *regs = run->regs;
	u32 pc = run->flags & COSY_RUN_RESUME ? run->outcome.pc : 0;
	bool done;
	int err = 0;

	for (;; pc++) {
		const struct cosy_insn *x = &program->insns[pc];

		switch (x->op) {
		case COSY_I_EXIT:
			goto out;
		case COSY_I_LD8 ... COSY_I_LD64:
			err = load(c, x, regs);
			break;
		case COSY_I_ST8 ... COSY_I_ST64:
			err = store(c, x, regs);
			break;
		case COSY_I_JMP ... COSY_I_JSGE:
			if (jumps(x, regs))
				pc += x->imm;
			break;
		case COSY_I_LOOP:
			err = x->imm < -LONG_BODY ? cosy_tick_long(budget) : cosy_tick(budget);
			if (err)
				break;
			if (regs[x->dst] > 1) {
				regs[x->dst]--;
				pc += x->imm;
			} else {
				regs[x->dst] = 0;
			}
			break;
		case COSY_I_STRLEN ... COSY_I_COMPARE:
			err = strings_tick(x, regs, budget) ?: strings(c, x, regs);
			break;
		case COSY_I_CALL:
		case COSY_I_FUSED:
			err = call(c, program, x, regs, budget, &done);
			if (err && done)
				pc++;
			break;
		default:
			err = compute(x, regs);
		}
		if (unlikely(err))
			break;
	}
out:
	run->outcome.pc = pc;
	run->outcome.status = err;
}
