/* SPDX-License-Identifier: MIT */
/*
 * The way from a patched system call site into the shim and back.
 *
 *   site (libc)      stub (in .gates)                     here
 *   jmp stub   --->  mov $nr,%eax
 *                    cmpb $0,actions+nr; jne 1f
 *                    syscall
 *                    tail: moved instruction
 *   next insn  <---  jmp next
 *                    1: lea tail(%rip),%rcx
 *                    jmp *entry                     --->  cosy_entry
 *                    tail                           <---  jmp *%rcx
 *                    syscall                        <---  (clone and its kin)
 *
 * A system call clobbers rcx and r11, so the two are free. Nothing is pushed
 * before the red zone is skipped.
 *
 * Unwinding (cancellation with C++ destructors, back-traces from handlers)
 * goes hook -> cosy_entry -> stub -> site: the frames here keep the stub's
 * tail as their return address, and all of .gates has one FDE whose return
 * address comes from the quad at the end of the 64-byte stub. "signal_frame" keeps
 * unwinders from looking one byte before these addresses.
 */
#include "gate.h"

#include <asm/unistd_64.h>

	.text

	/* rax: call number, rcx: where to go on; arguments as for syscall. */
	.globl	cosy_entry
	.hidden	cosy_entry
	.type	cosy_entry, @function
	.p2align 6
cosy_entry:
	.cfi_startproc
	.cfi_signal_frame
	.cfi_def_cfa rsp, 0
	.cfi_register rip, rcx
	endbr64
	cmp	$COSY_ACTIONS, %rax
	jae	3f
	lea	cosy_actions(%rip), %r11
	cmpb	$0, (%r11,%rax)
	jg	3f
	jl	1f
	/* Nobody wants to see this call. */
0:
	lea	-128(%rsp), %rsp
	.cfi_def_cfa_offset 128
	push	%rcx
	.cfi_def_cfa_offset 136
	.cfi_offset rip, -136
	syscall
	pop	%rcx
	.cfi_def_cfa_offset 128
	.cfi_register rip, rcx
	lea	128(%rsp), %rsp
	.cfi_def_cfa_offset 0
	jmp	*%rcx

3:
	lea	-128(%rsp), %rsp
	.cfi_def_cfa_offset 128
	push	%rcx
	.cfi_def_cfa_offset 136
	.cfi_offset rip, -136
	push	%rbp
	.cfi_def_cfa_offset 144
	.cfi_offset rbp, -144
	mov	%rsp, %rbp
	.cfi_def_cfa_register rbp
	push	%r9
	push	%r8
	push	%r10
	push	%rdx
	push	%rsi
	push	%rdi
	push	%rax
	mov	%rsp, %rdi
	and	$-16, %rsp
	call	*cosy_hook(%rip)
	lea	-48(%rbp), %rsp
	pop	%rdi
	pop	%rsi
	pop	%rdx
	pop	%r10
	pop	%r8
	pop	%r9
	pop	%rbp
	.cfi_def_cfa rsp, 136
	.cfi_same_value rbp
	pop	%rcx
	.cfi_def_cfa_offset 128
	.cfi_register rip, rcx
	lea	128(%rsp), %rsp
	.cfi_def_cfa_offset 0
	jmp	*%rcx

1:	cmpb	$COSY_ACTION_CLONE, (%r11,%rax)
	je	2f
	/* fcntl: reading or setting flags, where only other commands matter? */
	lea	-1(%rsi), %r11d
	cmp	$3, %r11d
	jbe	0b
	jmp	3b

	/*
	 * These may return twice or on another stack: look at the registers,
	 * restore every one, and let the stub do the call by itself.
	 */
2:	lea	-128(%rsp), %rsp
	.cfi_def_cfa_offset 128
	push	%rcx
	.cfi_def_cfa_offset 136
	.cfi_offset rip, -136
	push	%rbp
	.cfi_def_cfa_offset 144
	.cfi_offset rbp, -144
	mov	%rsp, %rbp
	.cfi_def_cfa_register rbp
	push	%r9
	push	%r8
	push	%r10
	push	%rdx
	push	%rsi
	push	%rdi
	push	%rax
	mov	%rsp, %rdi
	and	$-16, %rsp
	call	*cosy_hook_before(%rip)
	lea	-56(%rbp), %rsp
	pop	%rax
	pop	%rdi
	pop	%rsi
	pop	%rdx
	pop	%r10
	pop	%r8
	pop	%r9
	pop	%rbp
	.cfi_def_cfa rsp, 136
	.cfi_same_value rbp
	pop	%rcx
	.cfi_def_cfa_offset 128
	.cfi_register rip, rcx
	lea	128(%rsp), %rsp
	.cfi_def_cfa_offset 0
	sub	$STUB_SYSCALL, %rcx
	jmp	*%rcx
	.cfi_endproc
	.size	cosy_entry, .-cosy_entry

	/*
	 * Every signal handler of the program is entered through here, so that
	 * a delivered signal ends the epoch. Registers and stack stay as the
	 * kernel made them: to the handler it looks like a direct call. Tracing looks
	 * first at what was interrupted: rdx points to that with or without SA_SIGINFO.
	 */
	.globl	cosy_signal_entry
	.hidden	cosy_signal_entry
	.type	cosy_signal_entry, @function
	.p2align 4
cosy_signal_entry:
	.cfi_startproc
	endbr64
	lock incq cosy_epoch(%rip)
	cmpq	$0, cosy_hook_signal(%rip)
	jne	1f
0:
	lea	cosy_handlers(%rip), %rax
	movslq	%edi, %rcx
	mov	(%rax,%rcx,8), %rax
	jmp	*%rax
1:
	push	%rdi
	.cfi_adjust_cfa_offset 8
	push	%rsi
	.cfi_adjust_cfa_offset 8
	push	%rdx
	.cfi_adjust_cfa_offset 8
	mov	%rdx, %rdi
	call	*cosy_hook_signal(%rip)
	pop	%rdx
	.cfi_adjust_cfa_offset -8
	pop	%rsi
	.cfi_adjust_cfa_offset -8
	pop	%rdi
	.cfi_adjust_cfa_offset -8
	jmp	0b
	.cfi_endproc
	.size	cosy_signal_entry, .-cosy_signal_entry

	/*
	 * Address space right behind the library, at a distance from libc and
	 * ld.so that fits a 32-bit jump; shim/gate.c maps the stubs into it.
	 */
	.section .gates, "a", @nobits
	.globl	cosy_gates
	.hidden	cosy_gates
	.p2align 12
cosy_gates:
	.cfi_startproc
	.cfi_signal_frame
	.cfi_def_cfa rsp, 0
	/*
	 * The caller's rip is p + *p with p = (rip & -64) + STUB_SITE:
	 * val_expression { breg16 0; const1s -64; and; plus_uconst 56; dup; deref; plus }
	 */
	.cfi_escape 0x16, 0x10, 0x0a, 0x80, 0x00, 0x09, 0xc0, 0x1a, 0x23, 0x38, 0x12, 0x06, 0x22
	.skip	GATES_SIZE
	.cfi_endproc
	.size	cosy_gates, .-cosy_gates

	.section .note.GNU-stack, "", @progbits
