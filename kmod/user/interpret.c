// SPDX-License-Identifier: MIT
/* A program's instructions, one after the other, in this process. */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "plain.h"

#define MAX_BYTES (1u << 20) /* of one MOVE, COMPARE or STRLEN */

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static uint64_t cut(uint64_t wanted, uint64_t most)
{
	return wanted && wanted < most ? wanted : most;
}

void plain_budget_init(struct plain_budget *budget, const struct cosy_limits *limits)
{
	budget->ops = 0;
	budget->max_ops = cut(limits->ops, PLAIN_MAX_OPS);
	budget->start_ns = now_ns();
	budget->deadline_ns = budget->start_ns + cut(limits->deadline_ns, PLAIN_MAX_DEADLINE_NS);
}

int plain_tick(struct plain_budget *budget)
{
	if (budget->ops >= budget->max_ops)
		return -E2BIG;
	budget->ops++;
	return budget->ops % 16 == 0 && now_ns() >= budget->deadline_ns ? -ETIME : 0;
}

void plain_ended(const struct plain_budget *budget, struct cosy_outcome *outcome)
{
	outcome->ops = budget->ops;
	outcome->time_ns = now_ns() - budget->start_ns;
}

/* --- before it runs ------------------------------------------------------------ */

static bool is_jump(uint8_t op)
{
	return op >= COSY_I_JMP && op <= COSY_I_JSGE;
}

static enum cosy_refusal check_imm(const struct cosy_insn *x)
{
	bool good = true;

	if (x->op == COSY_I_SHLI || x->op == COSY_I_SHRI)
		good = x->imm >= 0 && x->imm < 64;
	else if (x->op == COSY_I_STRLEN || x->op == COSY_I_COMPARE)
		good = x->imm > 0 && x->imm <= (int32_t)MAX_BYTES;
	else if (x->op == COSY_I_MOVE)
		good = x->imm >= 0 && x->imm <= (int32_t)MAX_BYTES;
	return good ? COSY_REFUSED_NOT : COSY_REFUSED_IMM;
}

static enum cosy_refusal check_call(const struct cosy_insn *x, uint32_t flags)
{
	int n = x->op == COSY_I_CALL ? plain_call_args(x->imm) : COSY_FUSED_ARGS;
	bool pure = x->op == COSY_I_CALL ? plain_call_is_pure(x->imm) :
					   plain_fused_is_pure((uint64_t)x->imm);

	if (n < 0 || (x->op == COSY_I_FUSED && !plain_fused_exists((uint32_t)x->imm)))
		return COSY_REFUSED_CALL;
	if (x->a + n > COSY_N_REGS)
		return COSY_REFUSED_REGISTER;
	return (flags & COSY_LOAD_PURE) && !pure ? COSY_REFUSED_IMPURE : COSY_REFUSED_NOT;
}

static enum cosy_refusal check(const struct cosy_insn *insns, uint32_t n, uint32_t at,
			       uint32_t flags)
{
	const struct cosy_insn *x = &insns[at];

	if (x->op >= COSY_I_MAX)
		return COSY_REFUSED_OP;
	if (x->dst >= COSY_N_REGS || x->a >= COSY_N_REGS || x->b >= COSY_N_REGS)
		return COSY_REFUSED_REGISTER;
	if (is_jump(x->op) && (x->imm <= 0 || (int64_t)x->imm > (int64_t)n - 2 - at))
		return COSY_REFUSED_JUMP;
	if (x->op == COSY_I_LOOP && (x->imm >= 0 || (int64_t)at + 1 + x->imm < 0))
		return COSY_REFUSED_JUMP;
	if (x->op == COSY_I_CALL || x->op == COSY_I_FUSED)
		return check_call(x, flags);
	return check_imm(x);
}

int plain_verify(const struct cosy_program *p, uint32_t flags, struct cosy_load *refused)
{
	enum cosy_refusal why = p->n && !p->full ? COSY_REFUSED_NOT : COSY_REFUSED_LENGTH;
	uint32_t at = 0;

	while (!why && at < p->n) {
		why = check(p->insns, p->n, at, flags);
		at += !why;
	}
	if (!why && p->insns[p->n - 1].op != COSY_I_EXIT) {
		why = COSY_REFUSED_END;
		at = p->n - 1;
	}
	refused->reason = why;
	refused->error_at = why ? at : 0;
	return why ? -EINVAL : 0;
}

/* --- instructions ----------------------------------------------------------------- */

static int load(const struct cosy *c, const struct cosy_insn *x, uint64_t *regs)
{
	uint64_t at = regs[x->a] + (uint64_t)(int64_t)x->imm, value = 0;
	size_t bytes = (size_t)1 << (x->op - COSY_I_LD8);

	if (!plain_range_ok(c, at, bytes))
		return -EFAULT;
	memcpy(&value, c->buffer + at, bytes);
	regs[x->dst] = value;
	return 0;
}

static int store(const struct cosy *c, const struct cosy_insn *x, const uint64_t *regs)
{
	uint64_t at = regs[x->a] + (uint64_t)(int64_t)x->imm;
	size_t bytes = (size_t)1 << (x->op - COSY_I_ST8);

	if (!plain_range_ok(c, at, bytes))
		return -EFAULT;
	memcpy(c->buffer + at, &regs[x->b], bytes);
	return 0;
}

static int strings(const struct cosy *c, const struct cosy_insn *x, uint64_t *regs)
{
	uint64_t a = regs[x->a], b = regs[x->b], bytes = (uint64_t)x->imm;

	if (x->op == COSY_I_STRLEN) {
		if (!plain_range_ok(c, a, 1))
			return -EFAULT;
		bytes = bytes < c->bytes - a ? bytes : c->bytes - a;
		regs[x->dst] = strnlen((const char *)c->buffer + a, bytes);
		return 0;
	}
	if (x->op == COSY_I_MOVE && !bytes)
		bytes = regs[x->dst];
	if (bytes > MAX_BYTES || !plain_range_ok(c, a, bytes) || !plain_range_ok(c, b, bytes))
		return -EFAULT;
	if (x->op == COSY_I_MOVE)
		memmove(c->buffer + a, c->buffer + b, bytes);
	else
		regs[x->dst] = memcmp(c->buffer + a, c->buffer + b, bytes) != 0;
	return 0;
}

static bool jumps(const struct cosy_insn *x, const uint64_t *regs)
{
	uint64_t a = regs[x->a], b = regs[x->b];

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
		return (int64_t)a < (int64_t)b;
	default:
		return (int64_t)a >= (int64_t)b;
	}
}

static int compute(const struct cosy_insn *x, uint64_t *regs)
{
	uint64_t a = regs[x->a], b = regs[x->b], imm = (uint64_t)(int64_t)x->imm,
		 *to = &regs[x->dst];

	switch (x->op) {
	case COSY_I_MOV:
		*to = a;
		return 0;
	case COSY_I_MOVI:
		*to = imm;
		return 0;
	case COSY_I_MOVHI:
		*to = (uint32_t)*to | imm << 32;
		return 0;
	case COSY_I_ADD:
		*to = a + b;
		return 0;
	case COSY_I_ADDI:
		*to = a + imm;
		return 0;
	case COSY_I_SUB:
		*to = a - b;
		return 0;
	case COSY_I_MUL:
		*to = a * b;
		return 0;
	case COSY_I_DIV:
	case COSY_I_MOD:
		if (!b)
			return -EDOM;
		*to = x->op == COSY_I_DIV ? a / b : a % b;
		return 0;
	case COSY_I_AND:
		*to = a & b;
		return 0;
	case COSY_I_ANDI:
		*to = a & imm;
		return 0;
	case COSY_I_OR:
		*to = a | b;
		return 0;
	case COSY_I_XOR:
		*to = a ^ b;
		return 0;
	case COSY_I_SHLI:
		*to = a << x->imm;
		return 0;
	default:
		*to = a >> x->imm;
		return 0;
	}
}

/* As in the module: a run that ends behind a fused operation goes on behind it. */
static int call(const struct cosy *c, const struct cosy_program *p, const struct cosy_insn *x,
		uint64_t *regs, struct plain_budget *budget, uint32_t *pc)
{
	int status = plain_tick(budget);
	uint32_t flags = p->flags & COSY_LOAD_PURE ? COSY_FUSED_PURE : 0;
	uint64_t used;

	if (status)
		return status;
	if (x->op == COSY_I_CALL) {
		regs[x->dst] = plain_call(c, x->imm, &regs[x->a]);
		return 0;
	}
	regs[x->dst] = (uint64_t)plain_fused(c, (uint32_t)x->imm, flags, &regs[x->a], budget, &used,
					     &status);
	if (status)
		++*pc;
	return status;
}

static int step(const struct cosy *c, const struct cosy_program *p, uint64_t *regs,
		struct plain_budget *budget, uint32_t *pc)
{
	const struct cosy_insn *x = &p->insns[*pc];
	int err;

	switch (x->op) {
	case COSY_I_LD8 ... COSY_I_LD64:
		return load(c, x, regs);
	case COSY_I_ST8 ... COSY_I_ST64:
		return store(c, x, regs);
	case COSY_I_JMP ... COSY_I_JSGE:
		if (jumps(x, regs))
			*pc += (uint32_t)x->imm;
		return 0;
	case COSY_I_LOOP:
		err = plain_tick(budget);
		if (err)
			return err;
		if (regs[x->dst] > 1) {
			regs[x->dst]--;
			*pc += (uint32_t)x->imm;
		} else {
			regs[x->dst] = 0;
		}
		return 0;
	case COSY_I_STRLEN ... COSY_I_COMPARE:
		err = plain_tick(budget);
		return err ? err : strings(c, x, regs);
	case COSY_I_CALL:
	case COSY_I_FUSED:
		return call(c, p, x, regs, budget, pc);
	default:
		return compute(x, regs);
	}
}

void plain_run(const struct cosy *c, const struct cosy_program *p, struct cosy_run *run)
{
	uint32_t pc = run->flags & COSY_RUN_RESUME ? run->outcome.pc : 0;
	struct plain_budget budget;
	int err = 0;

	plain_budget_init(&budget, &run->limits);
	while (!err && p->insns[pc].op != COSY_I_EXIT) {
		err = step(c, p, (uint64_t *)run->regs, &budget, &pc);
		pc += !err;
	}
	run->outcome.pc = pc;
	run->outcome.status = err;
	plain_ended(&budget, &run->outcome);
}
