/* SPDX-License-Identifier: MIT */
/* The call itself, so made that a signal handler which interrupts it can tell what it interrupts. */
#ifndef COSY_TRACE_CALL_H
#define COSY_TRACE_CALL_H

#include "sys.h"

#define ERESTARTSYS 512 // include/linux/errno.h
#define SYSCALL_SIZE 2
// Times of entry that a handler left: the kernel began the call again after that, or it came back before.
#define RESUMED (1ul << 63)
#define RECORDED (~0ul)

/*
 * The intercepted call. A signal handler that interrupts it finds its struct regs in rbx and the time of its entry
 * in r12, and changes that. Where the instructions are is in a table, however many there are.
 */
static inline __attribute__((always_inline)) long sys_traced(const struct regs *r, u64 *tsc)
{
	register u64 r10 __asm__("r10") = r->a[3];
	register u64 r8 __asm__("r8") = r->a[4];
	register u64 r9 __asm__("r9") = r->a[5];
	register const struct regs *rbx __asm__("rbx") = r;
	register u64 r12 __asm__("r12") = *tsc;
	long ret;

	__asm__ volatile("xor %%ecx, %%ecx\n"
			 "1:\tsyscall\n"
			 "\t.pushsection traced_calls, \"a\"\n"
			 "\t.long 1b - .\n"
			 "\t.popsection"
			 : "=a"(ret), "+r"(r12)
			 : "0"(r->nr), "D"(r->a[0]), "S"(r->a[1]), "d"(r->a[2]), "r"(r10), "r"(r8),
			   "r"(r9), "r"(rbx)
			 : "rcx", "r11", "memory");
	*tsc = r12;
	return ret;
}

extern HIDDEN const s32 __start_traced_calls[], __stop_traced_calls[];

static inline bool is_traced_call(u64 rip)
{
	for (const s32 *at = __start_traced_calls; at < __stop_traced_calls; at++)
		if ((u64)at + (u64)(s64)*at == rip)
			return true;
	return false;
}

#endif
