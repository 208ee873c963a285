// SPDX-License-Identifier: MIT
#include "account.h"

// The bounds, in ticks: about 0.5 ms of loss, and credit for no more than 2 ms.
#define LOSS_LIMIT (-1500 * 1000)
#define CREDIT_LIMIT (6 * 1000 * 1000)
// Before any was timed: ticks of a call and of a run, records of a run.
#define USUAL_TICKS 3000
#define USUAL_SMALL_COST (30 * 1000)
#define USUAL_LARGE_COST (180 * 1000)
#define USUAL_DEEP_RECORDS 256
#define USUAL_DIR_RECORDS 8
#define USUAL_RECORDS 64
#define USUAL_ANSWERS 48
// Much more than usual: something else had the processor.
#define MOST_TIMES_USUAL 4
#define MOST_TICKS (16 * USUAL_TICKS)
// When so many have come, the older count half.
#define LATE_RECORDS 16384
#define LATE_CALLS 256

static u32 native_ticks = USUAL_TICKS; // running mean

static void learn(s64 *mean, s64 value)
{
	*mean += (value - *mean) / 8;
}

// Three quarters of the kernel's time: the answer is not free either.
static s64 saving(s64 calls)
{
	return calls * (s64)native_ticks * 3 / 4;
}

void account_open(struct account *a)
{
	*a = (struct account){
		.cost = { USUAL_SMALL_COST, USUAL_LARGE_COST },
		.deep_records = USUAL_DEEP_RECORDS,
		.dir_records = USUAL_DIR_RECORDS * 16,
		.records = USUAL_RECORDS,
		.answers = USUAL_ANSWERS,
		.calls = 1,
		.usable = true,
	};
}

void account_reopen(struct account *a)
{
	a->records = USUAL_RECORDS;
	a->answers = USUAL_ANSWERS;
	if (a->balance < LOSS_LIMIT / 2)
		a->balance = LOSS_LIMIT / 2;
}

void account_native(u64 ticks)
{
	if (ticks < MOST_TICKS)
		native_ticks += (u32)(((s32)ticks - (s32)native_ticks) / 8);
}

void account_call(struct account *a, bool repeat)
{
	a->calls++;
	a->repeats += repeat;
	if (a->calls > LATE_CALLS) {
		a->calls /= 2;
		a->repeats /= 2;
	}
}

void account_answer(struct account *a)
{
	a->answers++;
	a->balance += saving(1);
	if (a->balance > CREDIT_LIMIT)
		a->balance = CREDIT_LIMIT;
}

void account_take_back(struct account *a)
{
	a->balance -= saving(1);
	if (a->answers)
		a->answers--;
}

void account_run(struct account *a, u64 start, bool large)
{
	s64 ticks = (s64)(rdtsc() - start), *mean = &a->cost[large];

	if (ticks > MOST_TIMES_USUAL * *mean)
		ticks = MOST_TIMES_USUAL * *mean;
	a->balance -= ticks;
	learn(mean, ticks);
}

void account_records(struct account *a, u32 n, bool deep)
{
	a->records += n;
	if (a->records > LATE_RECORDS) {
		a->records /= 2;
		a->answers /= 2;
	}
	if (deep)
		learn(&a->deep_records, n);
}

void account_below(struct account *a, u32 n, u32 n_dirs)
{
	if (n_dirs)
		learn(&a->dir_records, (s64)n * 16 / n_dirs);
}

/*
 * A child that is asked for twice is answered once, and the second time the
 * kernel does what it was spared the first: such a pair saves nothing.
 */
s64 account_expect(const struct account *a, s64 records)
{
	s64 single = (s64)a->calls - 2 * (s64)a->repeats;

	if (single <= 0)
		return 0;
	return saving(records * a->answers / a->records) * single / a->calls;
}

bool account_affords(const struct account *a)
{
	return a->balance > a->cost[true];
}

bool account_loses(const struct account *a)
{
	return a->balance <= LOSS_LIMIT;
}
