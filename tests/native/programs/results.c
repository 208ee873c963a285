// SPDX-License-Identifier: MIT
/*
 * Results of several directories side by side (shim/results.c), filled by hand: what each name
 * leads to must be that directory's own, also where the index or the room ran out on the way.
 */
#include "../../../shim/mem.c"
#include "../../../shim/name.c"
#include "../../../shim/results.c"

#include <stdio.h>

struct cosy_config cosy_config = { .max_age_ms = 100 };
bool ahead_on;
u64 cosy_epoch = 1, touches[TOUCHES];

/*
 * Records of 128 bytes, so that those of one directory meet those of the next where an index of
 * 32 places lies between.
 */
#define NAME_LEN 44u
#define BYTES 128u
#define FULL_PAGE (COSY_BPF_PAGE / BYTES)

static void write_name(char *to, u32 number)
{
	memset(to, '-', NAME_LEN);
	for (u32 i = 0; i < 8; i++)
		to[i] = (char)('a' + (number >> 4 * i & 15));
}

// Records of this directory, named by numbers from `first` on: so many in the first two pages.
static void stage(u32 dir, u32 first, const u32 *n)
{
	struct run_buffers *to = results_staging();

	memset(to->run.used, 0, sizeof(to->run.used));
	for (u32 page = 0; page < 2; page++) {
		to->run.used[page] = (u16)(n[page] * BYTES);
		for (u32 i = 0; i < n[page]; i++) {
			void *at = to->pages[page].data + i * BYTES;
			struct cosy_bpf_child *child = at;

			memset(child, 0, BYTES);
			write_name((char *)(child + 1), first++);
			child->namelen = NAME_LEN;
			child->ino = dir;
		}
	}
}

// How many of these names are found; -1: one leads to another directory's record.
static int found(struct results_ref ref, u32 dir, u32 first, u32 n)
{
	int ours = 0;

	for (u32 i = first; i < first + n; i++) {
		char text[NAME_LEN + 1] = "";
		struct name name;
		struct record rec;

		write_name(text, i);
		if (!name_take(&name, text) || results_find(ref, &name, &rec) != COSY_DECLINES)
			continue;
		if (rec.child->ino != dir)
			return -1;
		ours++;
	}
	return ours;
}

static struct results_ref fill(u32 dir, u32 first, const u32 *n, u32 records, u32 bytes, u32 asked)
{
	struct run_start start;
	struct results_ref ref;

	results_begin(&start);
	stage(dir, first, n);
	ref = results_open(&start, 0, NULL, records, bytes);
	results_add(results_of(ref), results_staging());
	results_close(results_of(ref), asked);
	return ref;
}

// The second directory has the names behind the 20 of the first one's first page.
static void pair(const char *what, u32 second_page, u32 records, u32 bytes)
{
	struct results_ref one = fill(1, 0, (const u32[]){ 20, second_page }, records, bytes, 0);
	struct results_ref two = fill(2, 21, (const u32[]){ 16, 0 }, 16, 16 * BYTES, 0);

	printf("%s: %d, %d\n", what, found(one, 1, 0, 64), found(two, 2, 0, 64));
}

int main(void)
{
	const u32 ten[] = { 10, 0 };
	struct results_ref one, two;
	u32 before;

	if (!results_start())
		return 1;
	pair("room for all", FULL_PAGE, 64, 2 * COSY_BPF_PAGE);
	pair("the index is full in the middle of a page", FULL_PAGE, 32, 2 * COSY_BPF_PAGE);
	pair("no room for the second page", FULL_PAGE, 64, COSY_BPF_PAGE);
	before = waiting.records;
	one = fill(3, 0, ten, 10, COSY_BPF_PAGE, 0);
	printf("waiting: %u\n", waiting.records - before);
	results_give_up(one);
	printf("waiting when given up: %u\n", waiting.records - before);
	two = fill(4, 0, ten, 10, COSY_BPF_PAGE, 0);
	printf("in its place: %d, %s\n", found(two, 4, 0, 64), results_of(one) ? "both" : "alone");
	results_give_up(two);
	one = fill(5, 0, ten, 10, COSY_BPF_PAGE, 3);
	for (u32 i = 0; i < 6; i++)
		results_asked(results_of(one));
	two = fill(6, 0, ten, 10, COSY_BPF_PAGE, 0);
	printf("three asked before, six answered: %s\n", results_of(one) ? "both" : "alone");
	results_give_up(two);
	results_asked(results_of(one));
	two = fill(7, 0, ten, 10, COSY_BPF_PAGE, 0);
	printf("seven answered: %s\n", results_of(one) ? "both" : "alone");
	cosy_epoch++;
	printf("in another epoch: %d\n", found(two, 4, 0, 64));
	return 0;
}
