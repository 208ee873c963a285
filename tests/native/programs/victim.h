/* SPDX-License-Identifier: MIT */
/*
 * A program that scans a directory, asks for the attributes of some children,
 * lets something happen, and asks for one more: the target. What it prints
 * must be the truth of that moment.
 */
#ifndef VICTIM_H
#define VICTIM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>

#define TARGET "target"

/* Shared between the victim, its threads and its helper process. */
struct shared {
	_Atomic unsigned int word; /* futex */
	_Atomic bool go, done;
};

struct scene {
	const char *dir; /* absolute, holds the target and at least eight others */
	const char *other; /* beside it, same names, other sizes */
	char target[4096]; /* path */
	int dirfd; /* of dir, once it is scanned */
	int otherfd, targetfd; /* opened before the scan when a kind wants them */
	int news[2]; /* from the helper to the victim: of the kind's own sort */
	struct shared *shared;
	void *map;
	pid_t helper, victim;
};

struct kind {
	const char *name;
	/* Before the helper is forked and the directory is scanned. */
	void (*prepare)(struct scene *s);
	/* In the helper: before the scan, and after the target was changed. */
	void (*take)(struct scene *s);
	void (*tell)(struct scene *s);
	/* In the victim, after the compound ran: learn of the change, or make one. */
	void (*event)(struct scene *s);
	const char *last; /* what to ask for at the end; NULL: the target */
	int ask; /* so often for the target, before it is changed */
	bool late; /* the helper waits until the victim is likely to block */
};

/* By name; ended by an entry without one. */
extern const struct kind news_kinds[], own_kinds[];

/* Ends the program with a line when `failed`. */
void check(bool failed, const char *what);
/* Busy for a while without a single system call. */
void spin_ms(int ms);
void spin_until(_Atomic bool *flag);

#endif
