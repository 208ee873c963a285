/* SPDX-License-Identifier: MIT */
/*
 * Answers from results: which compound serves a call, what one record has
 * answered already, and the way there, which most calls of a program that
 * gains take. All of it wants the lock of fence.h.
 */
#ifndef COSY_SERVE_H
#define COSY_SERVE_H

#include "account.h"
#include "answer.h"
#include "dirs.h"
#include "firing.h"

/* A compound at work. */
struct work {
	struct account account;
	u8 times; /* that the body asks for the attributes of an entry */
	/* By the call's layout: which patterns may match, a bit each; the only one, if it names nothing. */
	u32 serving[ATTR_LAYOUTS], triggering[ATTR_LAYOUTS];
	const struct attr_pattern *plain[ATTR_LAYOUTS];
	struct attr_pattern patterns[COSY_MAX_PATTERNS]; /* what it serves, then its triggers */
};

extern HIDDEN struct work works[COSY_MAX_COMPOUNDS];
/* Calls in a row that a compound could have answered, and did not. */
extern HIDDEN u32 fruitless;

/* Take a compound's patterns, whose calls are expected. False: too many kinds. */
HIDDEN bool work_take(u32 ci, const struct cosy_compound *c);
/* May this call make the compound run? */
HIDDEN bool work_triggers(const struct work *w, const struct attr_call *call);
/*
 * True: *ret is the answer to the call, which is about the child of d named at `name`. dirfd: as in
 * struct child, AT_FDCWD for an absolute path, whatever descriptor the call has.
 */
HIDDEN bool serve(const struct attr_call *call, struct dir_slot *d, int dirfd, const char *name,
		  long *ret);
/* The same for a call that nobody has looked at yet, by dir_near(): *near and *name are what that says. */
HIDDEN bool serve_near(const struct regs *r, struct dir_slot **near, const char **name, long *ret);
/*
 * The program opened this child, whose record may have answered. What is asked from now on is
 * about a file that was open meanwhile: has it changed while it was read? True: a directory.
 */
HIDDEN bool serve_opened(const struct child *child);

#endif
