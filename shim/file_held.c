// SPDX-License-Identifier: MIT
#include "file_held.h"

#include <asm/unistd_64.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/stat.h>
#include <signal.h>
#include <sys/stat.h>

#include "fence.h"

#define SIGSET_SIZE 8

// --- what is known of descriptors ------------------------------------------------------

#define SERIAL (1ull << 32) /* of the change that made it what it is */

static u64 word;

struct known known_now(void)
{
	u64 w = __atomic_load_n(&word, __ATOMIC_ACQUIRE);

	return (struct known){
		.word = w,
		.mode = w & 3,
		.fd = w >> 2 & KNOWN_MOST_FD,
		.offset = w >> 12 & 0x3ffff,
		.told_stat = w >> 30 & 1,
		.told_end = w >> 31 & 1,
	};
}

bool change(const struct known *from, const struct known *to)
{
	u64 was = from->word;
	u64 now = (was & ~(SERIAL - 1)) + SERIAL;

	_Static_assert(FILE_MOST <= 0x3ffff, "an offset must fit");
	now |= (u64)to->mode | (u64)to->fd << 2 | (u64)to->offset << 12 | (u64)to->told_stat << 30 |
	       (u64)to->told_end << 31;
	return __atomic_compare_exchange_n(&word, &was, now, false, __ATOMIC_ACQ_REL,
					   __ATOMIC_RELAXED);
}

void know_nothing(void)
{
	const struct known to = { .mode = UNKNOWN };
	struct known was;

	do
		was = known_now();
	while (!change(&was, &to));
}

void know(const struct known *from, enum known_mode mode, u64 fd)
{
	struct known to = { .mode = fd > KNOWN_MOST_FD ? UNKNOWN : mode,
			    .fd = (u32)fd & KNOWN_MOST_FD };

	if (!change(from, &to))
		know_nothing();
}

// --- the file that is held -----------------------------------------------------------------

struct held held;
u32 held_opened;

bool held_is_true(void)
{
	return file_batch_fresh(held.batch) && !written(held.entry->dev, held.entry->ino);
}

// Any regular file will do where the program knows nothing of the one that it opened.
static bool is_the_same(int fd, bool told)
{
	const struct cosy_entry *e = held.entry;
	struct statx st;

	if (sys_failed(sys(__NR_statx, fd, "", AT_EMPTY_PATH, STATX_TYPE | STATX_INO | STATX_BTIME,
			   &st)) ||
	    !S_ISREG(st.stx_mode))
		return false;
	return !told ||
	       (statx_dev(&st) == e->dev && st.stx_ino == e->ino &&
		(!(st.stx_mask & e->mask & STATX_BTIME) ||
		 (st.stx_btime.tv_sec == e->btime_sec && st.stx_btime.tv_nsec == e->btime_nsec)));
}

/*
 * Another process took the name away, or gave it to another file. What the program was told of the
 * old one is not to be mixed with that: it gets the rest of what was read ahead.
 */
static COLD int open_copy(void)
{
	int copy = (int)sys(__NR_memfd_create, "replaced", 0);

	if (copy >= 0)
		sys(__NR_pwrite64, copy, cosy_entry_data(held.entry), (u32)held.entry->data, 0);
	return copy;
}

// A FIFO that came in its place lets nobody wait.
static int open_same(bool told)
{
	const char *name = cosy_entry_name(held.entry);
	u64 flags = held.flags | O_NONBLOCK | O_NOCTTY;
	int fd = (int)sys(__NR_openat, held.dirfd, name, flags);

	if (fd == -EAGAIN) // a lease is to be broken
		fd = (int)sys(__NR_openat, held.dirfd, name, flags & ~(u64)O_NONBLOCK);
	if (fd < 0)
		return open_copy();
	if (!is_the_same(fd, told)) {
		sys(__NR_close, fd);
		return open_copy();
	}
	if (!(held.flags & O_NONBLOCK))
		sys(__NR_fcntl, fd, F_SETFL, held.flags);
	return fd;
}

static void open_held(const struct known *k)
{
	int fd = open_same(is_told(k));

	// The lowest that is free is its own, but for what nobody can see.
	if (fd >= 0 && (u32)fd != k->fd) {
		sys(__NR_dup2, fd, k->fd);
		sys(__NR_close, fd);
	}
	if (fd >= 0 && held.flags & O_CLOEXEC)
		sys(__NR_fcntl, k->fd, F_SETFD, FD_CLOEXEC);
	if (k->offset)
		sys(__NR_lseek, k->fd, k->offset, SEEK_SET);
	if (held.sequential)
		sys(__NR_fadvise64, k->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
}

void held_open(void)
{
	u64 all = ~0ul, mask;
	struct known k;

	// No handler comes between the open and its being known.
	sys(__NR_rt_sigprocmask, SIG_SETMASK, &all, &mask, SIGSET_SIZE);
	k = known_now();
	if (k.mode == HELD) {
		open_held(&k);
		know(&k, TAKEN, k.fd);
		held_opened++;
	}
	sys(__NR_rt_sigprocmask, SIG_SETMASK, &mask, 0, SIGSET_SIZE);
}
