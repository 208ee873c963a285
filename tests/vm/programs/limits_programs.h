/* SPDX-License-Identifier: MIT */
/* Cases of kmod_limits: what programs are refused, what they compute, where they fail. */
#ifndef LIMITS_PROGRAMS_H
#define LIMITS_PROGRAMS_H

#include "limits_common.h"

static void expect_refusal(const struct context *c, const struct cosy_insn *insns, unsigned int n,
			   unsigned int flags, unsigned int reason, unsigned int at)
{
	struct cosy_load load = { .insns = (unsigned long)insns, .n_insns = n, .flags = flags };

	if (!ioctl(c->fd, COSY_IOC_LOAD, &load) || errno != EINVAL)
		fail("a program was not refused: reason %u at %u", reason, at);
	equal("reason", load.reason, reason);
	equal("error_at", load.error_at, at);
}

static void case_refusals(void)
{
	struct context c = context_open(65536);
	static struct cosy_insn many[COSY_MAX_INSNS + 1];
	const struct {
		struct cosy_insn insns[6];
		unsigned int n, flags, reason, at;
	} bad[] = {
		{ { { .op = COSY_I_MAX }, { 0 } }, 2, 0, COSY_REFUSED_OP, 0 },
		{ { { .op = 255 }, { 0 } }, 2, 0, COSY_REFUSED_OP, 0 },
		{ { { .op = COSY_I_MOV, .dst = 32 }, { 0 } }, 2, 0, COSY_REFUSED_REGISTER, 0 },
		{ { { .op = COSY_I_ADD, .a = 255 }, { 0 } }, 2, 0, COSY_REFUSED_REGISTER, 0 },
		{ { { .op = COSY_I_EXIT, .imm = 1 } }, 1, 0, COSY_REFUSED_UNUSED, 0 },
		{ { { .op = COSY_I_MOV, .b = 1 }, { 0 } }, 2, 0, COSY_REFUSED_UNUSED, 0 },
		{ { { .op = COSY_I_MOV } }, 1, 0, COSY_REFUSED_END, 0 },
		{ { { .op = COSY_I_SHLI, .imm = 64 }, { 0 } }, 2, 0, COSY_REFUSED_IMM, 0 },
		{ { { .op = COSY_I_SHRI, .imm = -1 }, { 0 } }, 2, 0, COSY_REFUSED_IMM, 0 },
		{ { { .op = COSY_I_COMPARE }, { 0 } }, 2, 0, COSY_REFUSED_IMM, 0 },
		{ { { .op = COSY_I_MOVE, .imm = (1 << 20) + 1 }, { 0 } },
		  2,
		  0,
		  COSY_REFUSED_IMM,
		  0 },
		{ { { .op = COSY_I_JMP }, { 0 } }, 2, 0, COSY_REFUSED_JUMP, 0 },
		{ { { .op = COSY_I_JMP, .imm = -1 }, { 0 } }, 2, 0, COSY_REFUSED_JUMP, 0 },
		{ { { .op = COSY_I_JMP, .imm = 1 }, { 0 } }, 2, 0, COSY_REFUSED_JUMP, 0 },
		{ { { 0 }, { .op = COSY_I_JEQ, .imm = 0x7fffffff }, { 0 } },
		  3,
		  0,
		  COSY_REFUSED_JUMP,
		  1 },
		{ { { .op = COSY_I_LOOP, .imm = 1 }, { 0 }, { 0 } }, 3, 0, COSY_REFUSED_JUMP, 0 },
		{ { { .op = COSY_I_LOOP, .imm = -2 }, { 0 } }, 2, 0, COSY_REFUSED_JUMP, 0 },
		{ { { .op = COSY_I_LOOP, .imm = -2147483647 - 1 }, { 0 } },
		  2,
		  0,
		  COSY_REFUSED_JUMP,
		  0 },
		// its own counter is set again in the loop: it would never end
		{ { { .op = COSY_I_MOVI, .dst = 1, .imm = 5 },
		    { .op = COSY_I_LOOP, .dst = 1, .imm = -2 },
		    { 0 } },
		  3,
		  0,
		  COSY_REFUSED_LOOP,
		  1 },
		// two loops that cross
		{ { { .op = COSY_I_MOV },
		    { .op = COSY_I_MOV },
		    { .op = COSY_I_LOOP, .dst = 1, .imm = -3 },
		    { .op = COSY_I_LOOP, .dst = 2, .imm = -3 },
		    { 0 } },
		  5,
		  0,
		  COSY_REFUSED_LOOP,
		  3 },
		// two that nest, with the same counter
		{ { { .op = COSY_I_MOV },
		    { .op = COSY_I_LOOP, .dst = 1, .imm = -2 },
		    { .op = COSY_I_LOOP, .dst = 1, .imm = -3 },
		    { 0 } },
		  4,
		  0,
		  COSY_REFUSED_LOOP,
		  2 },
		// a jump past a loop's start
		{ { { .op = COSY_I_JMP, .imm = 1 },
		    { .op = COSY_I_MOV },
		    { .op = COSY_I_MOV },
		    { .op = COSY_I_LOOP, .dst = 1, .imm = -3 },
		    { 0 } },
		  5,
		  0,
		  COSY_REFUSED_JUMP,
		  0 },
		{ { { .op = COSY_I_CALL, .imm = SYS_execve }, { 0 } }, 2, 0, COSY_REFUSED_CALL, 0 },
		{ { { .op = COSY_I_CALL, .imm = SYS_ptrace }, { 0 } }, 2, 0, COSY_REFUSED_CALL, 0 },
		{ { { .op = COSY_I_CALL, .imm = SYS_mmap }, { 0 } }, 2, 0, COSY_REFUSED_CALL, 0 },
		{ { { .op = COSY_I_CALL, .imm = SYS_ioctl }, { 0 } }, 2, 0, COSY_REFUSED_CALL, 0 },
		{ { { .op = COSY_I_CALL, .imm = -1 }, { 0 } }, 2, 0, COSY_REFUSED_CALL, 0 },
		{ { { .op = COSY_I_CALL, .imm = 100000 }, { 0 } }, 2, 0, COSY_REFUSED_CALL, 0 },
		{ { { .op = COSY_I_FUSED, .imm = 0 }, { 0 } }, 2, 0, COSY_REFUSED_CALL, 0 },
		{ { { .op = COSY_I_FUSED, .imm = COSY_OP_MAX }, { 0 } },
		  2,
		  0,
		  COSY_REFUSED_CALL,
		  0 },
		{ { { .op = COSY_I_CALL, .a = 30, .imm = SYS_pread64 }, { 0 } },
		  2,
		  0,
		  COSY_REFUSED_REGISTER,
		  0 },
		{ { { .op = COSY_I_FUSED, .a = 25, .imm = COSY_OP_FILES }, { 0 } },
		  2,
		  0,
		  COSY_REFUSED_REGISTER,
		  0 },
		{ { { .op = COSY_I_CALL, .imm = SYS_write }, { 0 } },
		  2,
		  COSY_LOAD_PURE,
		  COSY_REFUSED_IMPURE,
		  0 },
		{ { { .op = COSY_I_FUSED, .imm = COSY_OP_COPY }, { 0 } },
		  2,
		  COSY_LOAD_PURE,
		  COSY_REFUSED_IMPURE,
		  0 },
	};

	for (size_t i = 0; i < COUNT(bad); i++)
		expect_refusal(&c, bad[i].insns, bad[i].n, bad[i].flags, bad[i].reason, bad[i].at);
	expect_refusal(&c, many, 0, 0, COSY_REFUSED_LENGTH, 0);
	expect_refusal(&c, many, COSY_MAX_INSNS + 1, 0, COSY_REFUSED_LENGTH, 0);
	expect_refusal(&c, many, ~0u, 0, COSY_REFUSED_LENGTH, 0);
	load_flags(&c, many, COSY_MAX_INSNS, 0); // all COSY_I_EXIT
	for (size_t i = 1; i < COSY_MAX_INSNS - 1; i++)
		many[i] = (struct cosy_insn){ .op = COSY_I_LOOP, .dst = 1 + i % 31, .imm = -2 };
	many[0].op = COSY_I_MOV;
	expect_refusal(&c, many, COSY_MAX_INSNS, 0, COSY_REFUSED_LOOP, 2);
}

static void case_arithmetic(void)
{
	struct context c = context_open(4096);
	const struct cosy_insn insns[] = {
		{ .op = COSY_I_MOVI, .dst = 1, .imm = -7 },
		{ .op = COSY_I_MOVHI, .dst = 1, .imm = 3 }, // 0x3_fffffff9
		{ .op = COSY_I_MOVI, .dst = 2, .imm = 100 },
		{ .op = COSY_I_ST64, .a = 2, .b = 1, .imm = 3 },
		{ .op = COSY_I_LD8, .dst = 3, .a = 2, .imm = 3 },
		{ .op = COSY_I_LD16, .dst = 4, .a = 2, .imm = 3 },
		{ .op = COSY_I_LD32, .dst = 5, .a = 2, .imm = 3 },
		{ .op = COSY_I_LD64, .dst = 6, .a = 2, .imm = 3 },
		{ .op = COSY_I_MUL, .dst = 7, .a = 2, .b = 3 }, // 24900
		{ .op = COSY_I_DIV, .dst = 8, .a = 7, .b = 2 }, // 249
		{ .op = COSY_I_MOD, .dst = 9, .a = 7, .b = 4 }, // 24900 % 65529
		{ .op = COSY_I_SHLI, .dst = 10, .a = 2, .imm = 40 },
		{ .op = COSY_I_SHRI, .dst = 11, .a = 10, .imm = 38 }, // 400
		{ .op = COSY_I_ANDI, .dst = 12, .a = 3, .imm = 0xf },
		{ .op = COSY_I_XOR, .dst = 13, .a = 3, .b = 12 },
		{ .op = COSY_I_OR, .dst = 14, .a = 13, .b = 2 },
		{ .op = COSY_I_SUB, .dst = 15, .a = 2, .b = 3 }, // -149
		{ .op = COSY_I_JSLT, .a = 15, .b = 2, .imm = 1 },
		{ .op = COSY_I_MOVI, .dst = 20, .imm = 1 }, // jumped over
		{ .op = COSY_I_JLT, .a = 15, .b = 2, .imm = 1 }, // unsigned: it is large
		{ .op = COSY_I_MOVI, .dst = 21, .imm = 1 },
		{ .op = COSY_I_ST16, .a = 2, .b = 2, .imm = 20 }, // 100 = 'd', NUL
		{ .op = COSY_I_MOVI, .dst = 22, .imm = 120 },
		{ .op = COSY_I_STRLEN, .dst = 23, .a = 22, .imm = 100 },
		{ .op = COSY_I_ADDI, .dst = 24, .a = 22, .imm = 40 },
		{ .op = COSY_I_MOVE, .a = 24, .b = 22, .imm = 2 },
		{ .op = COSY_I_COMPARE, .dst = 25, .a = 24, .b = 22, .imm = 2 },
		{ .op = COSY_I_COMPARE, .dst = 26, .a = 24, .b = 2, .imm = 8 },
		{ .op = COSY_I_LD8, .dst = 27, .a = 24 },
		{ .op = COSY_I_EXIT },
	};
	const long long wanted[32] = {
		[1] = 0x3fffffff9, [2] = 100,	[3] = 0xf9,  [4] = 0xfff9, [5] = 0xfffffff9,
		[6] = 0x3fffffff9, [7] = 24900, [8] = 249,   [9] = 24900,  [10] = 100ll << 40,
		[11] = 400,	   [12] = 9,	[13] = 0xf0, [14] = 0xf4,  [15] = -149,
		[21] = 1,	   [22] = 120,	[23] = 1,    [24] = 160,   [26] = 1,
		[27] = 100,
	};
	struct cosy_run r = { .program = load(&c, insns) };

	run(&c, &r);
	equal("status", r.outcome.status, 0);
	for (int i = 0; i < 32; i++)
		if ((long long)r.regs[i] != wanted[i])
			fail("r%d is %llx, not %llx", i, r.regs[i], wanted[i]);
}

static void expect_fault(const struct context *c, struct cosy_insn insn, unsigned long long address,
			 int status)
{
	struct cosy_insn insns[] = { { .op = COSY_I_MOV }, insn, { .op = COSY_I_EXIT } };
	struct cosy_run r = { .regs = { [1] = address } };
	__u32 program = load(c, insns);

	r.program = program;
	run(c, &r);
	equal("status", r.outcome.status, status);
	equal("pc", r.outcome.pc, status ? 1 : 2);
	if (ioctl(c->fd, COSY_IOC_UNLOAD, &program))
		fail("unload: %s", strerror(errno));
	if (!ioctl(c->fd, COSY_IOC_RUN, &r) || errno != ENOENT)
		fail("an unloaded program ran");
}

static void case_faults(void)
{
	struct context c = context_open(4096);

	expect_fault(&c, (struct cosy_insn){ .op = COSY_I_LD64, .a = 1 }, 4088, 0);
	expect_fault(&c, (struct cosy_insn){ .op = COSY_I_LD64, .a = 1 }, 4089, -EFAULT);
	expect_fault(&c, (struct cosy_insn){ .op = COSY_I_LD8, .a = 1 }, 4096, -EFAULT);
	expect_fault(&c, (struct cosy_insn){ .op = COSY_I_LD8, .a = 1, .imm = -1 }, 0, -EFAULT);
	expect_fault(&c, (struct cosy_insn){ .op = COSY_I_LD64, .a = 1 }, ~0ull - 3, -EFAULT);
	expect_fault(&c, (struct cosy_insn){ .op = COSY_I_ST8, .a = 1 }, 4096, -EFAULT);
	expect_fault(&c, (struct cosy_insn){ .op = COSY_I_ST32, .a = 1, .imm = 4093 }, 0, -EFAULT);
	expect_fault(&c, (struct cosy_insn){ .op = COSY_I_STRLEN, .a = 1, .imm = 1 }, 4096,
		     -EFAULT);
	expect_fault(&c, (struct cosy_insn){ .op = COSY_I_MOVE, .a = 1, .imm = 2 }, 4095, -EFAULT);
	expect_fault(&c, (struct cosy_insn){ .op = COSY_I_MOVE, .dst = 1 }, 4097, -EFAULT);
	expect_fault(&c, (struct cosy_insn){ .op = COSY_I_COMPARE, .b = 1, .imm = 9 }, 4088,
		     -EFAULT);
	expect_fault(&c, (struct cosy_insn){ .op = COSY_I_DIV, .dst = 3, .a = 1, .b = 2 }, 1,
		     -EDOM);
	expect_fault(&c, (struct cosy_insn){ .op = COSY_I_MOD, .dst = 3, .a = 1, .b = 2 }, 1,
		     -EDOM);
}

#endif
