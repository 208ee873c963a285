/* SPDX-License-Identifier: MIT */
/*
 * The reference executor (`cosy-auto --executor reference`): a compound's body
 * as plain calls of the thread that triggered it, made ahead. It gains nothing,
 * since every call is still a crossing, but it runs compounds of every shape and
 * so proves them right before a fast executor exists.
 */
#ifndef COSY_REFERENCE_H
#define COSY_REFERENCE_H

#include "image.h"
#include "recorded.h"

/* Let it run this compound of the profile. False: it cannot. */
HIDDEN bool reference_adopt(u32 ci);
/* Does it have to see this call? */
HIDDEN bool reference_wants(u64 nr);
/* Answered, or passed to `kernel`, whose answer may teach something. */
HIDDEN long reference_call(struct regs *r, long (*kernel)(struct regs *r));
/* A second thread: offsets of files are no longer one's own. */
HIDDEN void reference_stop(void);

/* body.c */
struct body_run {
	const struct cosy_compound *compound;
	u32 ci, number;
	const struct regs *trigger;
	const struct question *question; /* of the trigger */
	const struct subject *about; /* of the trigger */
	int dir; /* descriptor of D, opened for this run; -1: none */
	bool by_path; /* D's path leads there now */
	const struct child *child; /* NULL: the trigger is about none */
};
/* Run the body over all that the loop runs over; how many answers came. */
HIDDEN u32 body_run(const struct body_run *run);

#endif
