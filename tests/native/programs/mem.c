// SPDX-License-Identifier: MIT
/* What is known of the program's memory (shim/mem.c), and what is forgotten with which call. */
#include "../../../shim/mem.c"

#include <stdio.h>
#include <sys/mman.h>

#define PAGES 128u

static u8 *memory;

static bool known(u32 page)
{
	u64 number = (u64)memory / PAGE_SIZE + page;

	return mem_good_read[number % MEM_WAYS] == mem_known(number) &&
	       mem_good_write[number % MEM_WAYS] == mem_known(number);
}

static u32 count_known(void)
{
	u32 n = 0;

	for (u32 i = 0; i < PAGES; i++)
		n += known(i);
	return n;
}

static void learn_all(void)
{
	for (u32 i = 0; i < PAGES; i++) {
		mem_page_readable(memory + i * PAGE_SIZE);
		mem_writable(memory + i * PAGE_SIZE, 8);
	}
}

static void forget(const char *what, u64 at, u64 len)
{
	learn_all();
	mem_forget((u64)memory + at, len);
	printf("%s: %u of %u known\n", what, count_known(), PAGES);
}

// As the hook does it. Returns where the heap ends.
static u64 brk_to(u64 to)
{
	u32 number = mem_brk_begins(to);
	u64 now = (u64)sys(__NR_brk, to);

	mem_brk_ended(number, now);
	return now;
}

static u32 heap_pages(u64 from, u64 to)
{
	u32 n = 0;

	for (u64 page = from / PAGE_SIZE; page < to / PAGE_SIZE; page++)
		n += is_heap(page);
	return n;
}

static void heap_grows(void)
{
	u64 start = PAGE_UP(brk_to(0)), end;
	u32 number;

	start = brk_to(start);
	end = brk_to(start + 10 * PAGE_SIZE);
	printf("heap: %u", heap_pages(start, end));
	end = brk_to(end + PAGE_SIZE + 100);
	printf(", more: %u", heap_pages(start, PAGE_UP(end)));
	brk_to(0);
	printf(", asked: %u", heap_pages(start, PAGE_UP(end)));
	end = brk_to(start + PAGE_SIZE);
	printf(", less: %u", heap_pages(start, start + 20 * PAGE_SIZE));
	end = brk_to(end + 4 * PAGE_SIZE);
	printf(", again: %u", heap_pages(start, end));
	mprotect((void *)(start + 2 * PAGE_SIZE), PAGE_SIZE, PROT_NONE);
	mem_forget(start + 2 * PAGE_SIZE, PAGE_SIZE);
	printf(", cut: %u", heap_pages(start, end));
	number = mem_brk_begins(end + PAGE_SIZE);
	brk_to(end + 2 * PAGE_SIZE);
	mem_brk_ended(number, end + 2 * PAGE_SIZE);
	printf(", interrupted: %u\n", heap_pages(start, end + 2 * PAGE_SIZE));
	printf("in the heap: %d %d, no more: %d\n", mem_page_readable((void *)start),
	       mem_writable((void *)start, 8),
	       mem_page_readable((void *)(start + 2 * PAGE_SIZE)) +
		       mem_writable((void *)(start + 2 * PAGE_SIZE), 8));
}

int main(void)
{
	u64 before;

	memory = mmap(NULL, PAGES * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		      -1, 0);
	learn_all();
	printf("all: %u\n", count_known());
	forget("a page", 3 * PAGE_SIZE, PAGE_SIZE);
	forget("part of two", 3 * PAGE_SIZE + 100, PAGE_SIZE);
	forget("nothing", 3 * PAGE_SIZE, 0);
	forget("more than a few", 0, 100 * PAGE_SIZE);
	forget("more than there is", PAGE_SIZE, ~0ul);
	munmap(memory + PAGE_SIZE, PAGE_SIZE);
	mem_forget((u64)memory + PAGE_SIZE, PAGE_SIZE);
	printf("gone: %d\n",
	       mem_page_readable(memory + PAGE_SIZE) + mem_writable(memory + PAGE_SIZE, 8));
	heap_grows();
	// As often as it takes until the count begins anew: what was known then is not.
	learn_all();
	before = mem_age;
	do
		mem_forget_all();
	while (mem_age != before);
	printf("known from an age ago: %u\n", count_known());
	return 0;
}
