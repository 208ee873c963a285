/* SPDX-License-Identifier: MIT */
/*
 * Does a compound pay, in this process? Its account holds what it saved
 * against what it cost, in ticks of the time stamp counter, so that a compound
 * that loses can be left alone before the loss is felt.
 */
#ifndef COSY_ACCOUNT_H
#define COSY_ACCOUNT_H

#include "cosy_runs.h"
#include "sys.h"

struct account {
	s64 balance;
	s64 unpaid; // of the last firings: their answers pay for it first
	s64 run_cost, record_cost; // running means, ticks
	u32 records, answers; // of late: how many calls a record answers
	u32 calls, repeats; // of late, of the kernel: those about the child of the call before
	bool leaf_seen; // a matching call met something else than a directory
	bool usable;
};

/* Of all compounds, for the record of the run (runs.h). */
extern HIDDEN struct cosy_sums sums;
/* A child of fork: its own begin with nothing. */
HIDDEN void account_forget(void);

/* For the record: what the kernel takes is what it took in directories left to it, if that suffices. */
HIDDEN void account_record(struct cosy_sums *to);

/* Before anything was timed or counted. */
HIDDEN void account_open(struct account *a);
/* After a rest: what went wrong before counts half at most. */
HIDDEN void account_reopen(struct account *a);
/*
 * The kernel took so long for a call about a child not looked at before. `control`: only for the
 * record, in a directory that was left to it.
 */
HIDDEN void account_native(u64 ticks, bool control);
/* The same for an xattr, which the child does not have. */
HIDDEN void account_native_xattr(u64 ticks, bool control);
/* The kernel answered a triggering call; `repeat`: about the same child as the one before. */
HIDDEN void account_call(struct account *a, bool repeat);
/*
 * A call that the compound could answer went to the kernel: it was looked at for nothing, and so
 * were `opened` files before it.
 */
HIDDEN void account_look(struct account *a, u32 opened);
/*
 * A file was opened while there are results, and so many reads and writes came before it: each has
 * to be watched, which costs most where few calls are answered for many that are not.
 */
HIDDEN void account_watch(struct account *a, u32 transfers);
/* An answer took so long. */
HIDDEN void account_timed(u64 ticks);
/* A call was answered. */
HIDDEN void account_answer(struct account *a);
/* It was asked again, and the kernel does now what it was spared before: nothing was saved. */
HIDDEN void account_take_back(struct account *a);
/*
 * The next firing begins. What those before did not pay for is lost, but for what the `waiting`
 * records will still answer, as things went of late: a walk comes back from a subdirectory.
 */
HIDDEN void account_settle(struct account *a, u32 waiting);
/* A run began at `start` and is over; it told `records`. */
HIDDEN void account_run(struct account *a, u64 start, u32 records);
/* The firing is over: all of its runs told so many. */
HIDDEN void account_told(struct account *a, u32 records);
enum expectation {
	EXPECT_GAIN,
	EXPECT_TOO_LITTLE, /* there is too little to be asked for */
	EXPECT_WASTE, /* too little of it would be asked for, as things went of late */
};
/*
 * Will runs over so many entries save more than they cost, if so many of them can still be asked
 * for? `waiting`: as above.
 */
HIDDEN enum expectation account_expects(const struct account *a, s64 entries, s64 left,
					u32 waiting);
/* Would runs over so many entries save more than they cost if so many calls were answered? */
HIDDEN bool account_worth(const struct account *a, s64 entries, s64 calls);
/*
 * May runs over so many entries be tried, though all of it may be lost? It is what went well so far
 * that allows it, or what is left of the bound, or that so many calls could not be answered.
 */
HIDDEN bool account_affords(const struct account *a, s64 entries, s64 missed);
/* Of late, nearly everything was asked for. */
HIDDEN bool account_confident(const struct account *a);
HIDDEN bool account_loses(const struct account *a);

#endif
