/* SPDX-License-Identifier: MIT */
/* Random programs: mostly such as the verifier lets pass, else one mistake away from it. */
#ifndef FUZZ_PROGRAM_H
#define FUZZ_PROGRAM_H

#include <sys/syscall.h>

#include "cosy_module.h"
#include "fuzz_random.h"

#define PROGRAM_MAX 96

/* Calls that a compound may make, and some that it must not. */
static const int program_calls[] = {
	SYS_fstat,
	SYS_newfstatat,
	SYS_statx,
	SYS_faccessat,
	SYS_readlinkat,
	SYS_pread64,
	SYS_getxattr,
	SYS_lgetxattr,
	SYS_fgetxattr,
	SYS_listxattr,
	SYS_getcwd,
	SYS_getppid,
	SYS_clock_gettime,
	SYS_read,
	SYS_write,
	SYS_pwrite64,
	SYS_openat,
	SYS_close,
	SYS_lseek,
	SYS_getdents64,
	SYS_dup,
	SYS_dup3,
	SYS_fadvise64,
	SYS_copy_file_range,
	SYS_sendfile,
	SYS_splice,
	SYS_ftruncate,
	SYS_fdatasync,
	SYS_mkdirat,
	SYS_unlinkat,
	SYS_renameat2,
	SYS_linkat,
	SYS_symlinkat,
	SYS_fchmod,
	SYS_utimensat,
	SYS_accept4,
	SYS_sendto,
	SYS_recvfrom,
	SYS_setsockopt,
	SYS_poll,
	SYS_epoll_ctl,
	SYS_epoll_wait,
	SYS_execve,
	SYS_fork,
	SYS_exit,
	SYS_ioctl,
	SYS_mmap,
	SYS_setuid,
	SYS_kill,
	SYS_rt_sigreturn,
	SYS_ptrace,
	-1,
	511,
	512,
};

/* Registers 0 to 7 hold numbers, 8 to 15 offsets, 16 to 23 arguments, 24 to 31 loop counters. */
static inline unsigned char any_register(void)
{
	return (unsigned char)below(24);
}

static inline struct cosy_insn program_insn(unsigned int at, unsigned int n)
{
	struct cosy_insn insn = { .op = (unsigned char)below(COSY_I_MAX) };
	unsigned int left = n - at - 1; // instructions behind this one

	switch (insn.op) {
	case COSY_I_MOVI:
	case COSY_I_MOVHI:
		insn.dst = any_register();
		insn.imm = one_in(3) ? (int)nasty() : (int)below(5000);
		break;
	case COSY_I_MOV:
		insn.dst = any_register();
		insn.a = any_register();
		break;
	case COSY_I_ADDI:
	case COSY_I_ANDI:
		insn.dst = any_register();
		insn.a = any_register();
		insn.imm = (int)below(4096);
		break;
	case COSY_I_SHLI:
	case COSY_I_SHRI:
		insn.dst = any_register();
		insn.a = any_register();
		insn.imm = (int)below(64);
		break;
	case COSY_I_ADD:
	case COSY_I_SUB:
	case COSY_I_MUL:
	case COSY_I_DIV:
	case COSY_I_MOD:
	case COSY_I_AND:
	case COSY_I_OR:
	case COSY_I_XOR:
		insn.dst = any_register();
		insn.a = any_register();
		insn.b = any_register();
		break;
	case COSY_I_LD8:
	case COSY_I_LD16:
	case COSY_I_LD32:
	case COSY_I_LD64:
		insn.dst = any_register();
		insn.a = (unsigned char)(one_in(8) ? any_register() : 8 + below(8));
		insn.imm = one_in(8) ? (int)nasty() : (int)below(4096);
		break;
	case COSY_I_ST8:
	case COSY_I_ST16:
	case COSY_I_ST32:
	case COSY_I_ST64:
		insn.a = (unsigned char)(one_in(8) ? any_register() : 8 + below(8));
		insn.b = any_register();
		insn.imm = one_in(8) ? (int)nasty() : (int)below(4096);
		break;
	case COSY_I_JEQ:
	case COSY_I_JNE:
	case COSY_I_JLT:
	case COSY_I_JGE:
	case COSY_I_JSLT:
	case COSY_I_JSGE:
		insn.a = any_register();
		insn.b = any_register();
		/* fall through */
	case COSY_I_JMP:
		insn.imm = 1 + (int)below(left > 1 ? left - 1 : 1);
		break;
	case COSY_I_STRLEN:
		insn.dst = any_register();
		insn.a = (unsigned char)(8 + below(8));
		insn.imm = 1 + (int)below(1u << below(21));
		break;
	case COSY_I_MOVE:
		insn.a = (unsigned char)(8 + below(8));
		insn.b = (unsigned char)(8 + below(8));
		if (one_in(3))
			insn.dst = any_register();
		else
			insn.imm = (int)below(4096);
		break;
	case COSY_I_COMPARE:
		insn.dst = any_register();
		insn.a = (unsigned char)(8 + below(8));
		insn.b = (unsigned char)(8 + below(8));
		insn.imm = (int)below(4096);
		break;
	case COSY_I_CALL:
		insn.dst = any_register();
		insn.a = 16;
		insn.imm = program_calls[below(ARRAY_SIZE(program_calls))];
		break;
	case COSY_I_FUSED:
		insn.dst = any_register();
		insn.a = 16;
		insn.imm = (int)below(COSY_OP_MAX + 1);
		break;
	default: // EXIT and LOOP stand where they belong
		insn = (struct cosy_insn){ .op = COSY_I_MOVI, .dst = any_register(), .imm = 1 };
	}
	return insn;
}

/* Closes a loop at `at` over what stands before it; its counter is set in front. */
static inline void program_loop(struct cosy_insn *insns, unsigned int at, unsigned int nth)
{
	unsigned int start = (unsigned int)below(at), counter = 24 + nth;

	insns[start] = (struct cosy_insn){ .op = COSY_I_MOVI,
					   .dst = (unsigned char)counter,
					   .imm = 1 + (int)below(one_in(4) ? 1u << 30 : 200) };
	insns[at] = (struct cosy_insn){ .op = COSY_I_LOOP,
					.dst = (unsigned char)counter,
					.imm = (int)start - (int)at };
}

/* Returns the number of instructions. */
static inline unsigned int program_make(struct cosy_insn insns[PROGRAM_MAX])
{
	unsigned int n = 1 + (unsigned int)below(one_in(4) ? PROGRAM_MAX - 1 : 12), loops = 0;

	for (unsigned int at = 0; at + 1 < n; at++) {
		insns[at] = program_insn(at, n);
		if (at > 1 && loops < 8 && one_in(6))
			program_loop(insns, at, loops++);
	}
	insns[n - 1] = (struct cosy_insn){ .op = COSY_I_EXIT };
	if (one_in(4)) { // one mistake
		unsigned char *bytes = (unsigned char *)&insns[below(n)];

		bytes[below(sizeof(*insns))] = (unsigned char)random64();
	}
	return n;
}

#endif
