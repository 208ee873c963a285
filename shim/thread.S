/* SPDX-License-Identifier: MIT */
/* A thread without a C library: nothing of the program's threads is shared but memory and handlers. */
#include <asm/unistd_64.h>

	.text
	.globl	thread_start
	.hidden	thread_start
	.type	thread_start, @function
	/* rdi: flags, rsi: end of the stack, rdx: its id, rcx: function, r8: argument */
thread_start:
	.cfi_startproc
	endbr64
	sub	$16, %rsi
	mov	%rcx, (%rsi)
	mov	%r8, 8(%rsi)
	mov	%rdx, %r10
	xor	%r8d, %r8d
	mov	$__NR_clone, %eax
	syscall
	test	%rax, %rax
	jz	1f
	ret
1:	.cfi_undefined rip
	xor	%ebp, %ebp
	pop	%rax
	pop	%rdi
	call	*%rax
	xor	%edi, %edi
	mov	$__NR_exit, %eax
	syscall
	hlt
	.cfi_endproc
	.size	thread_start, . - thread_start

	.section .note.GNU-stack, "", @progbits
