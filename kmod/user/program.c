// SPDX-License-Identifier: MIT
/* Writing programs: instructions one behind the other, jumps that find their ends. */
#include "cosy.h"

uint32_t cosy_emit(struct cosy_program *p, enum cosy_insn_op op, int dst, int a, int b, int32_t imm)
{
	if (p->n == COSY_MAX_INSNS) {
		p->full = true;
		return 0;
	}
	p->insns[p->n] = (struct cosy_insn){
		.op = (uint8_t)op, .dst = (uint8_t)dst, .a = (uint8_t)a, .b = (uint8_t)b, .imm = imm
	};
	return p->n++;
}

void cosy_set(struct cosy_program *p, int dst, int64_t value)
{
	cosy_emit(p, COSY_I_MOVI, dst, 0, 0, (int32_t)value);
	if (value != (int32_t)value)
		cosy_emit(p, COSY_I_MOVHI, dst, 0, 0, (int32_t)(value >> 32));
}

void cosy_call(struct cosy_program *p, int dst, long nr, int first)
{
	cosy_emit(p, COSY_I_CALL, dst, first, 0, (int32_t)nr);
}

void cosy_fused_call(struct cosy_program *p, int dst, enum cosy_fused_op op, int first)
{
	cosy_emit(p, COSY_I_FUSED, dst, first, 0, (int32_t)op);
}

uint32_t cosy_jump(struct cosy_program *p, enum cosy_insn_op op, int a, int b)
{
	return cosy_emit(p, op, 0, a, b, 0);
}

void cosy_land(struct cosy_program *p, uint32_t jump)
{
	p->insns[jump].imm = (int32_t)(p->n - jump - 1);
}

uint32_t cosy_loop_start(const struct cosy_program *p)
{
	return p->n;
}

void cosy_loop_end(struct cosy_program *p, int counter, uint32_t start)
{
	cosy_emit(p, COSY_I_LOOP, counter, 0, 0, (int32_t)start - (int32_t)p->n - 1);
}

void cosy_exit(struct cosy_program *p)
{
	cosy_emit(p, COSY_I_EXIT, 0, 0, 0, 0);
}
