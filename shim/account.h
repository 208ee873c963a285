/* SPDX-License-Identifier: MIT */
/*
 * Does a compound pay, in this process? Its account holds what it saved
 * against what it cost, in ticks of the time stamp counter, so that a compound
 * that loses can be left alone before the loss is felt.
 */
#ifndef COSY_ACCOUNT_H
#define COSY_ACCOUNT_H

#include "sys.h"

struct account {
	s64 balance;
	// Running means: ticks of a run with a small and with a large buffer, the records
	// of a run that may descend, those of a subdirectory that came along (in 1/16).
	s64 cost[2];
	s64 deep_records;
	s64 dir_records;
	u32 records, answers; // of late: how many calls a record answers
	u32 calls, repeats; // of late, of the kernel: those about the child of the call before
	bool leaf_seen; // a matching call met something else than a directory
	bool usable;
};

/* Before anything was timed or counted. */
HIDDEN void account_open(struct account *a);
/* After a rest: what went wrong before counts half at most. */
HIDDEN void account_reopen(struct account *a);
/* The kernel took so long for a call about a child not looked at before. */
HIDDEN void account_native(u64 ticks);
/* The kernel answered a triggering call; `repeat`: about the same child as the one before. */
HIDDEN void account_call(struct account *a, bool repeat);
/* A call was answered. */
HIDDEN void account_answer(struct account *a);
/* It was asked again, and the kernel does now what it was spared before: nothing was saved. */
HIDDEN void account_take_back(struct account *a);
/* A run began at `start` and is over; how many records came, of how many subdirectories. */
HIDDEN void account_run(struct account *a, u64 start, bool large);
HIDDEN void account_records(struct account *a, u32 n, bool deep);
HIDDEN void account_below(struct account *a, u32 n, u32 n_dirs);
/* Ticks that so many records are expected to save, as things went of late. */
HIDDEN s64 account_expect(const struct account *a, s64 records);
/* Only what was saved before may be risked on more than the directory at hand. */
HIDDEN bool account_affords(const struct account *a);
HIDDEN bool account_loses(const struct account *a);

#endif
