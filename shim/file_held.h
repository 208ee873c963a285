/* SPDX-License-Identifier: MIT */
/*
 * One descriptor at a time is "held": the program was told its number, and the kernel
 * knows nothing of it. All that is known is in one word, which changes by compare and exchange
 * only: a signal handler may come between any two instructions, and its calls come the same way.
 * What it did in between lets the exchange fail, and then the kernel is asked.
 */
#ifndef COSY_FILE_HELD_H
#define COSY_FILE_HELD_H

#include "file_batch.h"
#include "sys.h"

enum known_mode {
	UNKNOWN,
	TAKEN, /* all numbers up to fd are in use */
	FREE, /* fd is the lowest that is free */
	HELD, /* fd would be in use now, and all below are */
};

struct known {
	u64 word; /* all of it */
	enum known_mode mode;
	u32 fd, offset;
	bool told_stat, told_end;
};

/* The program knows more of the file than its name. */
static inline bool is_told(const struct known *k)
{
	return k->offset || k->told_stat || k->told_end;
}

#define KNOWN_MOST_FD 1023u /* of larger ones nothing is known */

HIDDEN struct known known_now(void);
/* False: something came between, and is what holds. */
HIDDEN bool change(const struct known *from, const struct known *to);
HIDDEN void know_nothing(void);
/* What a call that began at `from` tells, unless others came between. */
HIDDEN void know(const struct known *from, enum known_mode mode, u64 fd);

/* The file that is held, while one is. */
struct held {
	const struct cosy_entry *entry;
	const struct file_batch *batch;
	int dirfd;
	u64 flags;
	bool sequential; /* advice that was given */
};
extern HIDDEN struct held held;

/* May answers still come from what was read ahead? */
HIDDEN bool held_is_true(void);
/* Whatever comes may tell that there is no such descriptor: no more. */
HIDDEN COLD void held_open(void);
/* How many files had to be opened so that way, lately. */
extern HIDDEN u32 held_opened;

#endif
