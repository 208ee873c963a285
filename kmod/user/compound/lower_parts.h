/* SPDX-License-Identifier: MIT */
/* What the parts of lowering share: registers, memory, and how instructions are written. */
#ifndef COSY_LOWER_PARTS_H
#define COSY_LOWER_PARTS_H

#include "lower.h"

enum {
	RET = REG_FAILED + 1, /* of the last call */
	ZERO,
	ITERATION,
	COUNT, /* iterations that are left */
	ITEM, /* next one: of the list, or in what was read of D */
	ITEMS_END,
	READS, /* of D that are left */
	TEXT, /* p or e.name */
	TURNS, /* of an `until` that are left */
	TOTAL, /* what its calls returned */
	CALLS, /* made so far */
	T0,
	T1,
	T2,
	ARGS /* and five more */
};
_Static_assert(ARGS + 6 <= COSY_N_REGS, "registers");

/* What is known of an operation, in memory: conditions and arguments ask for it. */
struct slot {
	int64_t ret; /* `until`: of all its calls together, or the error */
	uint64_t ran, has_stat, mode, size;
};

#define JOIN_BYTES 8448 /* prefix, path, slash, path */
#define DIRENTS_BYTES 32768
#define MOST_READS (1 << 20)
#define MOST_TURNS (1 << 20)
#define MOST_TEXT 4096
#define RECORD sizeof(struct cosy_result)
#define MOST_JUMPS 32 /* over one operation */

struct lowering {
	const struct image *im;
	const struct cosy_compound *compound;
	struct cosy_program *p;
	uint32_t slots, join, dirents;
	uint32_t jumps[MOST_JUMPS], n_jumps; /* that lead behind the operation */
};

static inline uint32_t here(const struct lowering *l)
{
	return l->p->n;
}

static inline void emit(struct lowering *l, enum cosy_insn_op op, int dst, int a, int b,
			int64_t imm)
{
	cosy_emit(l->p, op, dst, a, b, (int32_t)imm);
}

static inline void set(struct lowering *l, int dst, uint64_t value)
{
	cosy_set(l->p, dst, (int64_t)value);
}

static inline void move(struct lowering *l, int dst, int a)
{
	emit(l, COSY_I_MOV, dst, a, 0, 0);
}

/* The next instruction only if not `a op b`. */
static inline void unless(struct lowering *l, enum cosy_insn_op op, int a, int b)
{
	emit(l, op, 0, a, b, 1);
}

/* No more of this operation if `a op b`. */
static inline void leave_if(struct lowering *l, enum cosy_insn_op op, int a, int b)
{
	if (l->n_jumps == MOST_JUMPS) {
		l->p->full = true;
		return;
	}
	l->jumps[l->n_jumps++] = cosy_jump(l->p, op, a, b);
}

static inline int64_t slot_at(const struct lowering *l, uint32_t op, size_t field)
{
	return (int64_t)(l->slots + op * sizeof(struct slot) + field);
}
#define LOAD_SLOT(l, dst, op, field)                                                               \
	emit(l, COSY_I_LD64, dst, ZERO, 0, slot_at(l, op, offsetof(struct slot, field)))
#define STORE_SLOT(l, from, op, field)                                                             \
	emit(l, COSY_I_ST64, 0, ZERO, from, slot_at(l, op, offsetof(struct slot, field)))

/* The program ends here for now, for the reason in REG_STOP. */
static inline void stop(struct lowering *l, int64_t why)
{
	set(l, REG_STOP, (uint64_t)why);
	cosy_exit(l->p);
}

/* Go on only with room for a record of so many bytes of data. */
static inline void need_room(struct lowering *l, uint64_t data)
{
	uint32_t at = here(l), enough;

	move(l, T0, REG_CURSOR);
	emit(l, COSY_I_ADDI, T0, T0, 0, (int64_t)(RECORD + ((data + 7) & ~7ull)));
	enough = cosy_jump(l->p, COSY_I_JGE, REG_END, T0);
	stop(l, at);
	cosy_land(l->p, enough);
}

static inline void need_call(struct lowering *l)
{
	uint32_t allowed = cosy_jump(l->p, COSY_I_JLT, CALLS, REG_MOST);

	stop(l, STOP_CALLS);
	cosy_land(l->p, allowed);
}

/* A record of T0 bytes of data, which are there already. */
static inline void put_record(struct lowering *l, uint32_t op)
{
	move(l, T1, T0);
	emit(l, COSY_I_ADDI, T1, T1, 0, RECORD + 7);
	emit(l, COSY_I_ANDI, T1, T1, 0, -8);
	set(l, T2, op);
	emit(l, COSY_I_ST32, 0, REG_CURSOR, T1, offsetof(struct cosy_result, bytes));
	emit(l, COSY_I_ST32, 0, REG_CURSOR, T2, offsetof(struct cosy_result, op));
	emit(l, COSY_I_ST32, 0, REG_CURSOR, ITERATION, offsetof(struct cosy_result, iteration));
	emit(l, COSY_I_ST32, 0, REG_CURSOR, T0, offsetof(struct cosy_result, data));
	emit(l, COSY_I_ST64, 0, REG_CURSOR, RET, offsetof(struct cosy_result, ret));
	emit(l, COSY_I_ADD, REG_CURSOR, REG_CURSOR, T1, 0);
}

/* Call number `index` of the body (lower_op.c): 0, or -EOPNOTSUPP. */
int lower_op(struct lowering *l, struct cosy_compound_ready *r, uint32_t index);

#endif
