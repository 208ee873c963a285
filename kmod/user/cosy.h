/* SPDX-License-Identifier: MIT */
/*
 * Compounds by hand: write a small program of system calls, hand it to the kernel,
 * and have it run in one crossing (/dev/cosy). Where there is no module the same
 * program runs as plain calls of this process, with the same results; only the
 * gain is gone. docs/explicit.md has worked examples.
 *
 *	struct cosy c;
 *	struct cosy_program p = { 0 };
 *
 *	cosy_open(&c, 1 << 20, 0);
 *	cosy_call(&p, 1, SYS_getppid, 0);	register 1 = getppid()
 *	cosy_exit(&p);
 *	number = cosy_load(&c, &p, 0);
 *	cosy_run(&c, &run);			run.regs[1]
 *
 * Instructions, registers, memory and limits: cosy_module.h. Functions that can
 * fail return -errno. A context may be used by one thread at a time.
 */
#ifndef COSY_USER_H
#define COSY_USER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cosy_module.h"

/* --- writing a program ------------------------------------------------------ */

struct cosy_program {
	struct cosy_insn insns[COSY_MAX_INSNS];
	uint32_t n;
	uint32_t flags; /* COSY_LOAD_*, set by cosy_load() in its copy */
	bool full; /* more instructions were added than there is room for: LOAD refuses it */
};

/* Any instruction; returns its index. */
uint32_t cosy_emit(struct cosy_program *p, enum cosy_insn_op op, int dst, int a, int b,
		   int32_t imm);

/* dst = value, any 64 bits: one instruction or two. */
void cosy_set(struct cosy_program *p, int dst, int64_t value);
/* dst = the result of system call nr, arguments in first, first + 1, ... */
void cosy_call(struct cosy_program *p, int dst, long nr, int first);
/* dst = the result of enum cosy_fused_op, arguments from register first on */
void cosy_fused_call(struct cosy_program *p, int dst, enum cosy_fused_op op, int first);
/* Forward jump, taken if `a op b`: returns what cosy_land() needs. */
uint32_t cosy_jump(struct cosy_program *p, enum cosy_insn_op op, int a, int b);
/* The jump leads here. */
void cosy_land(struct cosy_program *p, uint32_t jump);
/* What follows, up to cosy_loop_end(), runs as often as the counter says, at least once. */
uint32_t cosy_loop_start(const struct cosy_program *p);
void cosy_loop_end(struct cosy_program *p, int counter, uint32_t start);
void cosy_exit(struct cosy_program *p);

/* --- running it -------------------------------------------------------------- */

#define COSY_OPEN_PLAIN 0x1 /* plain calls even if there is a module */

struct cosy {
	int fd; /* of /dev/cosy; -1: plain calls */
	unsigned char *buffer; /* the memory of programs */
	size_t bytes; /* of the buffer */
	struct cosy_program *programs[COSY_MAX_PROGRAMS]; /* plain calls only */
};

/* A context with a buffer of at least that size. Without a module this works, too. */
int cosy_open(struct cosy *c, size_t buffer_bytes, unsigned int flags);
void cosy_close(struct cosy *c);
/* Whether compounds run in the kernel. */
static inline bool cosy_in_kernel(const struct cosy *c)
{
	return c->fd >= 0;
}

/*
 * Returns the program's number. flags: COSY_LOAD_PURE. -EINVAL: refused; with a
 * module *refused says where and why. Plain calls refuse only what they could not
 * run; what counts is the module.
 */
int cosy_load(struct cosy *c, const struct cosy_program *p, uint32_t flags,
	      struct cosy_load *refused);
int cosy_unload(struct cosy *c, uint32_t number);
/* 0: run->outcome says how it ended, run->regs holds what it left. */
int cosy_run(struct cosy *c, struct cosy_run *run);
/* 0: call->result is what the operation returned. */
int cosy_fused(struct cosy *c, struct cosy_fused *call);

/* --- walking results ----------------------------------------------------------- */

static inline const struct cosy_entry *cosy_first_entry(const struct cosy_block *block)
{
	return (const struct cosy_entry *)(block + 1);
}

static inline const struct cosy_entry *cosy_next_entry(const struct cosy_entry *e)
{
	return (const struct cosy_entry *)((const char *)e + e->bytes);
}

#endif
