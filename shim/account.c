// SPDX-License-Identifier: MIT
#include "account.h"

/*
 * What may be lost, in ticks: so much of the time that the process has run, but no less than about
 * 50 us (walks that gain were never 20 us behind) and no more than 0.3 ms. And credit for 1 ms.
 */
#define LOSS_SHARE 128
#define LEAST_LOSS (190 * 1000)
#define MOST_LOSS (750 * 1000)
#define CREDIT_LIMIT (2500 * 1000)
// Before any was timed: ticks of a call and of a run, records of a run. On the hopeful side,
// since what the first runs really cost is seen at once, and what they may lose is bounded.
#define USUAL_TICKS 3000
#define USUAL_RUN_COST 2000
#define USUAL_RECORD_COST 500
#define USUAL_LOOK 250 // at a call that the kernel answers after all
#define USUAL_OPENED 200 // at a file being opened and closed, without results
// To watch a file being opened, asked about and closed, and each time that it is read or written.
#define USUAL_FILE 800
#define USUAL_TRANSFER 250
#define USUAL_RECORDS 64
#define USUAL_ANSWERS 48
// Much more than usual: something else had the processor.
#define MOST_TIMES_USUAL 2
#define MOST_TICKS (16 * USUAL_TICKS)
// One entry of so many was asked for, or so many: enough to run over what costs more than may be lost.
#define ENOUGH_SHARE 32
#define ENOUGH 128
// When so many have come, the older count half.
#define LATE_RECORDS 16384
#define LATE_CALLS 256

// So many calls in directories that were left to the kernel tell what it takes.
#define ENOUGH_CONTROLS 64

struct cosy_sums sums;
/*
 * Of sums.native... what was asked in such directories. What else the kernel is asked are first calls
 * in a directory above all, and these are dearer: the directory itself is still cold.
 */
static struct {
	u64 calls, ticks;
	u64 xattrs, xattr_ticks;
} controls;

static u32 native_ticks = USUAL_TICKS; // running mean
// Of a call: three quarters of the kernel's time; the answer is not free either.
static s64 saved_ticks = USUAL_TICKS * 3 / 4;

static void learn(s64 *mean, s64 value)
{
	*mean += (value - *mean) / 8;
	if (*mean < 1)
		*mean = 1;
}

// What may be lost by now: it grows with the process's time, which is asked for when it matters.
static s64 allowance = LEAST_LOSS;

static void allow_more(void)
{
	u64 ns = now_ns(2 /* CLOCK_PROCESS_CPUTIME_ID */);
	s64 share = (s64)(ns / LOSS_SHARE * 5 / 2);

	if (share > MOST_LOSS)
		share = MOST_LOSS;
	if (share > allowance)
		allowance = share;
}

// Of what is not paid for yet nobody knows better how much will be.
static s64 may_lose(const struct account *a)
{
	s64 most = allowance + a->unpaid / 4;

	return most < MOST_LOSS ? most : MOST_LOSS;
}

// Would it have lost more than it may, if so much more were lost?
static bool beyond(const struct account *a, s64 more)
{
	if (a->balance - more > -may_lose(a))
		return false;
	if (allowance < MOST_LOSS)
		allow_more();
	return a->balance - more <= -may_lose(a);
}

static s64 saving(s64 calls)
{
	return calls * saved_ticks;
}

void account_forget(void)
{
	sums = (struct cosy_sums){ 0 };
	allowance = LEAST_LOSS;
	__builtin_memset(&controls, 0, sizeof(controls));
}

void account_record(struct cosy_sums *to)
{
	if (controls.calls >= ENOUGH_CONTROLS) {
		to->native = controls.calls;
		to->native_ticks = controls.ticks;
	}
	if (controls.xattrs >= ENOUGH_CONTROLS) {
		to->native_xattrs = controls.xattrs;
		to->native_xattr_ticks = controls.xattr_ticks;
	}
}

void account_open(struct account *a)
{
	*a = (struct account){
		.run_cost = USUAL_RUN_COST,
		.record_cost = USUAL_RECORD_COST,
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
	// Where nothing runs, no better costs are learnt either.
	if (a->run_cost > USUAL_RUN_COST)
		a->run_cost = USUAL_RUN_COST;
	if (a->record_cost > USUAL_RECORD_COST)
		a->record_cost = USUAL_RECORD_COST;
	if (a->balance < -allowance / 2)
		a->balance = -allowance / 2;
}

void account_native(u64 ticks, bool control)
{
	if (ticks >= MOST_TICKS)
		return;
	sums.native++;
	sums.native_ticks += ticks;
	if (control) {
		controls.calls++;
		controls.ticks += ticks;
		return;
	}
	native_ticks += (u32)(((s32)ticks - (s32)native_ticks) / 8);
	saved_ticks = (s64)native_ticks * 3 / 4;
}

void account_native_xattr(u64 ticks, bool control)
{
	if (ticks >= MOST_TICKS)
		return;
	sums.native_xattrs++;
	sums.native_xattr_ticks += ticks;
	controls.xattrs += control;
	controls.xattr_ticks += control ? ticks : 0;
}

void account_timed(u64 ticks)
{
	if (ticks >= MOST_TICKS)
		return;
	sums.timed++;
	sums.timed_ticks += ticks;
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

void account_look(struct account *a, u32 opened)
{
	a->balance -= USUAL_LOOK + (s64)opened * USUAL_OPENED;
}

void account_watch(struct account *a, u32 transfers)
{
	a->balance -= USUAL_FILE + (s64)transfers * USUAL_TRANSFER;
}

void account_answer(struct account *a)
{
	a->answers++;
	a->unpaid -= saved_ticks;
	if (a->unpaid >= 0)
		return;
	a->balance -= a->unpaid;
	a->unpaid = 0;
	if (a->balance > CREDIT_LIMIT)
		a->balance = CREDIT_LIMIT;
}

void account_take_back(struct account *a)
{
	sums.again++;
	a->balance -= saving(1);
	if (a->answers)
		a->answers--;
}

void account_settle(struct account *a, u32 waiting)
{
	// Of those that do not wait any more, as many were asked for.
	s64 decided = waiting < a->records ? a->records - waiting : 1;
	s64 asked = a->answers < decided ? a->answers : decided;
	s64 to_come = saving(waiting * asked / decided);
	s64 lost = a->unpaid > to_come ? a->unpaid - to_come : 0;

	a->balance -= lost;
	a->unpaid -= lost;
}

void account_run(struct account *a, u64 start, u32 records)
{
	s64 ticks = (s64)(rdtsc() - start);
	s64 usual = a->run_cost + records * a->record_cost;
	s64 more;

	if (ticks > MOST_TIMES_USUAL * usual)
		ticks = MOST_TIMES_USUAL * usual;
	sums.runs++;
	sums.run_ticks += (u64)ticks;
	sums.records += records;
	a->unpaid += ticks;
	// What the usual cost does not explain, on the larger part of it.
	more = ticks - usual < usual ? ticks - usual : usual;
	if (records * a->record_cost < a->run_cost)
		learn(&a->run_cost, a->run_cost + more);
	else
		learn(&a->record_cost, a->record_cost + more / records);
}

void account_told(struct account *a, u32 records)
{
	a->records += records;
	while (a->records > LATE_RECORDS) {
		a->records /= 2;
		a->answers /= 2;
	}
}

static s64 cost(const struct account *a, s64 entries)
{
	return a->run_cost + entries * a->record_cost;
}

bool account_worth(const struct account *a, s64 entries, s64 calls)
{
	return saving(calls) > cost(a, entries);
}

/*
 * Where a child is asked for twice and answered once, the kernel does the second time what it was
 * spared the first: such a pair saves nothing. Records that wait say nothing yet: a walk leaves a
 * directory for those in it and comes back. But no more of them than may be lost.
 */
enum expectation account_expects(const struct account *a, s64 entries, s64 left, u32 waiting)
{
	s64 single = (s64)a->calls - 2 * (s64)a->repeats;
	s64 trusted = allowance / a->record_cost, decided;

	if (trusted > waiting)
		trusted = waiting;
	decided = a->records > trusted ? a->records - trusted : 1;
	if (decided < a->answers)
		decided = a->answers;
	if (single > 0 &&
	    saving(left * a->answers / decided) * single / a->calls > cost(a, entries))
		return EXPECT_GAIN;
	return account_worth(a, entries, left) ? EXPECT_WASTE : EXPECT_TOO_LITTLE;
}

bool account_confident(const struct account *a)
{
	return (u64)a->answers * 4 > (u64)a->records * 3;
}

bool account_affords(const struct account *a, s64 entries, s64 missed)
{
	return account_confident(a) || missed >= ENOUGH || missed * ENOUGH_SHARE >= entries ||
	       !beyond(a, a->unpaid + cost(a, entries));
}

bool account_loses(const struct account *a)
{
	return beyond(a, 0);
}
