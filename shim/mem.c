// SPDX-License-Identifier: MIT
#include "mem.h"

#include <asm/unistd_64.h>

#define SIGSET_SIZE 8

u64 mem_good_read[MEM_WAYS], mem_good_write[MEM_WAYS];

u64 mem_age;

static struct {
	u64 from, to; // pages that brk() added while we looked
	u64 brk; // its last answer; 0: none
	u32 calls;
} heap;

#define FEW_PAGES 64 // beyond, it is cheaper to look at them all again

void mem_forget_all(void)
{
	heap.to = 0;
	// Once in 2^19 times it begins anew.
	if (likely(__atomic_add_fetch(&mem_age, MEM_AGE_STEP, __ATOMIC_RELAXED)))
		return;
	memset(mem_good_read, 0, sizeof(mem_good_read));
	memset(mem_good_write, 0, sizeof(mem_good_write));
}

/*
 * A program that copies files maps and unmaps a buffer for each, while it asks again and
 * again from the same few pages.
 */
void mem_forget(u64 at, u64 len)
{
	u64 first = at / PAGE_SIZE, pages = PAGE_UP(len + at % PAGE_SIZE) / PAGE_SIZE;

	if (pages > FEW_PAGES || len > PAGE_SIZE * FEW_PAGES) {
		mem_forget_all();
		return;
	}
	if (first < heap.to && first + pages > heap.from)
		heap.to = 0;
	for (u64 page = first; page < first + pages; page++) {
		__atomic_store_n(&mem_good_read[page % MEM_WAYS], 0, __ATOMIC_RELAXED);
		__atomic_store_n(&mem_good_write[page % MEM_WAYS], 0, __ATOMIC_RELAXED);
	}
}

u32 mem_brk_begins(u64 to)
{
	// Zero, the usual question, is below any heap.
	if (to && to < heap.brk)
		mem_forget(to, heap.brk - to);
	return ++heap.calls;
}

void mem_brk_ended(u32 number, u64 now)
{
	u64 was = heap.brk;

	heap.brk = now;
	// Another one in between, of a signal handler: nothing is certain.
	if (number != heap.calls || !was || now < was) {
		mem_forget_all();
		return;
	}
	if (heap.to != PAGE_UP(was) / PAGE_SIZE)
		heap.from = PAGE_UP(was) / PAGE_SIZE;
	heap.to = PAGE_UP(now) / PAGE_SIZE;
}

static bool is_heap(u64 page)
{
	return page >= heap.from && page < heap.to;
}

bool mem_probe_read(u64 page)
{
	u64 known = mem_known(page); // before: what is forgotten meanwhile stays forgotten

	if (is_heap(page)) {
		__atomic_store_n(&mem_good_read[page % MEM_WAYS], known, __ATOMIC_RELAXED);
		return true;
	}
	// No such `how`: the set is read, then the call fails. NULL would mean none.
	if (!page ||
	    sys(__NR_rt_sigprocmask, -1, page * PAGE_SIZE, 0, SIGSET_SIZE) == -14 /* EFAULT */)
		return false;
	__atomic_store_n(&mem_good_read[page % MEM_WAYS], known, __ATOMIC_RELAXED);
	return true;
}

bool mem_probe_write(u64 page, u64 at)
{
	u64 known = mem_known(page);

	// Stores the signal mask there; the caller overwrites it at once.
	if (!is_heap(page) && (!page || sys(__NR_rt_sigprocmask, 0, 0, at, SIGSET_SIZE)))
		return false;
	__atomic_store_n(&mem_good_write[page % MEM_WAYS], known, __ATOMIC_RELAXED);
	return true;
}

long mem_strlen(const char *s, size_t max)
{
	size_t n = 0;

	while (n <= max) {
		size_t end = n + PAGE_SIZE - ((u64)(s + n) & (PAGE_SIZE - 1));

		if (!mem_page_readable(s + n))
			return -1;
		// By words, which stay within the page.
		for (; n + 8 <= end; n += 8) {
			u64 word = zero_bytes(load_word(s + n));

			if (word) {
				n += (size_t)__builtin_ctzl(word) / 8;
				return n <= max ? (long)n : -1;
			}
		}
		for (; n < end; n++)
			if (!s[n])
				return n <= max ? (long)n : -1;
	}
	return -1;
}
