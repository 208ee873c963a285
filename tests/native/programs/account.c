// SPDX-License-Identifier: MIT
/*
 * What a compound's account says of a depth-first walk: a large directory's
 * run is not paid for yet when the walk enters its first subdirectory. And of looks.
 */
#include "../../../shim/account.c"

#include <stdio.h>

#define LARGE 6000u

// The balance after the next firing, if `waiting` records may still answer.
static s64 balance_after(u32 asked, u32 waiting)
{
	struct account a;

	account_open(&a);
	account_run(&a, rdtsc() - 20000000, LARGE);
	account_told(&a, LARGE);
	for (u32 i = 0; i < asked; i++)
		account_answer(&a);
	account_settle(&a, waiting);
	return a.balance;
}

// So many calls, of which each nth is answered from what one run told.
static bool loses_after(u32 calls, u32 nth)
{
	struct account a;

	account_open(&a);
	for (u32 i = 0; i < calls; i++)
		if (i % nth == nth - 1)
			account_answer(&a);
		else
			account_look(&a, 0);
	return account_loses(&a);
}

// Of each file that is opened and read so often, one call is answered, or two.
static bool loses_by_watching(u32 transfers, u32 answers)
{
	struct account a;

	account_open(&a);
	for (u32 i = 0; i < 100000 && !account_loses(&a); i++) {
		account_watch(&a, transfers);
		for (u32 k = 0; k < answers; k++)
			account_answer(&a);
	}
	return account_loses(&a);
}

// What is expected of a directory of so many, after so many of `told` were asked for elsewhere.
static const char *expectation_of(u32 entries, u32 asked, u32 told, u32 waiting)
{
	static const char *const names[] = {
		[EXPECT_GAIN] = "gain",
		[EXPECT_TOO_LITTLE] = "too little",
		[EXPECT_WASTE] = "waste",
	};
	struct account a;

	account_open(&a);
	account_told(&a, told);
	for (u32 i = 0; i < asked; i++)
		account_answer(&a);
	return names[account_expects(&a, entries, entries, waiting)];
}

// Runs over so many entries, after so many calls in vain, and after one run over 250 with so many answers.
static bool affords(u32 entries, u32 missed, u32 answers)
{
	struct account a;

	account_open(&a);
	if (answers) {
		account_run(&a, rdtsc() - 127000, 250);
		account_told(&a, 250);
	}
	for (u32 i = 0; i < answers; i++)
		account_answer(&a);
	return account_affords(&a, entries, missed);
}

// What a record says that the kernel takes, after so many calls in directories that were left to it.
static u64 kernel_ticks(u32 left)
{
	struct cosy_sums told;

	account_forget();
	for (u32 i = 0; i < 1000; i++) {
		account_native(3000, false); // the first in a directory
		if (i < left)
			account_native(1000, true);
	}
	told = sums;
	account_record(&told);
	return told.native_ticks / told.native;
}

int main(void)
{
	printf("a third asked, the rest to come: %d\n",
	       balance_after(LARGE / 3, LARGE / 3 * 2) > -MOST_LOSS);
	printf("a third asked, nothing to come: %d\n", balance_after(LARGE / 3, 0) > -MOST_LOSS);
	printf("one asked, the rest never: %d\n", balance_after(1, 0) > -MOST_LOSS);
	printf("one look in vain: %d\n", loses_after(1, 2));
	printf("nothing but looks: %d\n", loses_after(100000, 200000));
	printf("each fourth answered: %d\n", loses_after(100000, 4));
	printf("none of a file's calls answered: %d, one: %d, one of many: %d\n",
	       loses_by_watching(2, 0), loses_by_watching(2, 1), loses_by_watching(20, 1));
	printf("everything asked: of 100 %s, of 1 %s\n", expectation_of(100, LARGE, LARGE, 0),
	       expectation_of(1, LARGE, LARGE, 0));
	printf("next to nothing asked: of 100 %s, of 1 %s\n", expectation_of(100, 10, LARGE, 0),
	       expectation_of(1, 10, LARGE, 0));
	printf("a walk that will come back: %s, from too much: %s\n",
	       expectation_of(100, 1, 240, 239), expectation_of(100, 1, LARGE, LARGE - 1));
	printf("more than may be lost: %d, after some were missed: %d, after all were answered: %d\n",
	       affords(LARGE, 0, 0), affords(LARGE, 128, 0), affords(LARGE, 0, LARGE));
	printf("as much as that: %d, while the last is not paid for: %d\n", affords(250, 0, 0),
	       affords(250, 0, 1));
	printf("a call takes %llu; if enough are left to the kernel %llu\n",
	       (unsigned long long)kernel_ticks(10), (unsigned long long)kernel_ticks(100));
	return 0;
}
