/* SPDX-License-Identifier: MIT */
/*
 * Looking at memory that the program passed without trusting the pointer: a
 * bad one must come out as the kernel's EFAULT, never as a crash of ours.
 * Pages are probed with a harmless system call (rt_sigprocmask copies eight
 * bytes and then refuses), and those found good are remembered until the
 * program changes its address space.
 */
#ifndef COSY_MEM_H
#define COSY_MEM_H

#include "sys.h"

/* Forget what is known: after munmap, mremap, mprotect, mmap, brk. */
HIDDEN void mem_forget(void);
/* [at, at + len) can be read / written. Writable memory may be probed by writing. */
HIDDEN bool mem_readable(const void *at, size_t len);
HIDDEN bool mem_writable(void *at, size_t len);
/* Length of the string at s, at most max; -1: not readable, or longer. */
HIDDEN long mem_strlen(const char *s, size_t max);

#endif
