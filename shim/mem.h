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

/* Forget what is known of [at, at + len): after munmap, mprotect, madvise. */
HIDDEN void mem_forget(u64 at, u64 len);
/* Of all memory: after mremap. */
HIDDEN void mem_forget_all(void);
/*
 * Around brk(to), of a process without threads. What it adds is private memory that can be read and
 * written: until the program does anything else to a part of it, nobody need ask.
 */
HIDDEN u32 mem_brk_begins(u64 to);
/* The number is what mem_brk_begins() said. */
HIDDEN void mem_brk_ended(u32 number, u64 now);
/* What mem_known() says of pages known to be good, by page number; races only lose. */
#define MEM_WAYS 512
extern HIDDEN u64 mem_good_read[MEM_WAYS], mem_good_write[MEM_WAYS];
/* Counts what was forgotten, above the bits of any page's number. */
extern HIDDEN u64 mem_age;
#define MEM_AGE_STEP (1ul << 45)

static inline u64 mem_known(u64 page)
{
	return __atomic_load_n(&mem_age, __ATOMIC_RELAXED) + page + 1;
}

/* Of pages that are not known. `at`: where in the page may be written. */
HIDDEN COLD bool mem_probe_read(u64 page);
HIDDEN COLD bool mem_probe_write(u64 page, u64 at);

/* The page of `at` can be read. */
static inline bool mem_page_readable(const void *at)
{
	u64 page = (u64)at / PAGE_SIZE;

	return likely(__atomic_load_n(&mem_good_read[page % MEM_WAYS], __ATOMIC_RELAXED) ==
		      mem_known(page)) ||
	       mem_probe_read(page);
}

/* [at, at + len) can be read; written, which may be probed by writing. At least a byte, eight; a page at most. */
static inline bool mem_readable(const void *at, size_t len)
{
	// Both, though the sum may wrap: nothing at the top of memory is the program's.
	return mem_page_readable(at) && mem_page_readable((const u8 *)at + len - 1);
}

static inline bool mem_page_writable(u64 page, u64 at)
{
	return likely(__atomic_load_n(&mem_good_write[page % MEM_WAYS], __ATOMIC_RELAXED) ==
		      mem_known(page)) ||
	       mem_probe_write(page, at);
}

/* The probe of each page stays inside the buffer: at its start, at its end. No more than two. */
static inline bool mem_writable(void *at, size_t len)
{
	u64 first = (u64)at / PAGE_SIZE, last = ((u64)at + len - 1) / PAGE_SIZE;

	return mem_page_writable(first, (u64)at) &&
	       (likely(first == last) || mem_page_writable(last, (u64)at + len - 8));
}

/* The same of any length; both ends in whole words. */
static inline bool mem_all_writable(void *at, size_t len)
{
	for (size_t done = 0; done < len; done += PAGE_SIZE)
		if (!mem_writable((u8 *)at + done, len - done < PAGE_SIZE ? len - done : PAGE_SIZE))
			return false;
	return true;
}

/* Length of the string at s, at most max; -1: not readable, or longer. */
HIDDEN long mem_strlen(const char *s, size_t max);

#endif
