/* SPDX-License-Identifier: MIT */
/*
 * What the program has open: which descriptor is which directory, which paths
 * it opened directories by, and what kind of file a descriptor is. Only a
 * key to results, never an answer: the kernel resolves the descriptor or the
 * path again when a compound runs.
 */
#ifndef COSY_DIRS_H
#define COSY_DIRS_H

#include <sys/stat.h>

#include "results.h"
#include "shim.h"

#define DIR_PATH_MAX 448

/* A directory that the program opened, kept while it matters. */
struct dir_slot {
	u32 generation; /* of this use of the slot */
	u32 entries; /* read so far, "." and ".." included */
	bool cut; /* the last read may have left some */
	u32 matched; /* triggering calls on children, not answered */
	u32 asked; /* children that were asked for */
	u32 runs; /* compounds fired */
	u32 reach; /* entries that the last of them could go over, see firing.c */
	int fd; /* one that was bound to it; may be stale: check */
	u64 open_epoch;
	u64 open_tsc;
	struct results_ref results; /* of the executor, if any */
	bool by_fd, by_path; /* results hold for calls that go this way */
	bool partial; /* the last run stopped before the end, see firing.c */
	bool scanned;
	bool refused; /* the executor will not do this directory */
	bool lent; /* it may have descriptors that are not followed */
	/* The program's position is at the end, as long as the results live that there are; 0: not known. */
	u64 end_epoch, end_tsc;
	bool control; /* nor shall it: what does the kernel take for all of it? */
	/* Read ahead (ahead.c), if `prepared` is still of this node. */
	u32 node;
	u64 last_child; /* the first bytes of its name */
	u32 up, up_generation,
		up_hash; /* the directory that it was opened in, its name's hash there */
	struct prepared *prepared;
	/* Its entries from there: none, not asked for yet, all told, and the end. */
	enum dir_list { LIST_NONE, LIST_FRESH, LIST_READ, LIST_ENDED } list;
	s64 position; /* behind the entries; the kernel's is before them if they were told */
	struct run_start list_start;
	char path[DIR_PATH_MAX]; /* as it was opened by; may be empty */
};

/* The child that a call names. */
struct child {
	struct dir_slot *dir;
	const char *at; /* the program's name of it */
	struct name name;
	int dirfd; /* descriptor that the call went by; AT_FDCWD: by path */
};

enum fd_kind { FD_UNKNOWN, FD_FILE, FD_NEWS, FD_QUIET };

/* Lock-free: descriptors that are about to be closed or replaced. */
HIDDEN void fd_forget(u64 first, u64 last);
/* FD_FILE: *dev and *ino are set. Asks the kernel the first time. */
HIDDEN enum fd_kind fd_kind(u64 fd, u64 *dev, u64 *ino);

/* What the kernel told of a descriptor just now, so that fd_kind() need not ask. */
HIDDEN void fd_learn(u64 fd, const struct stat *st);

/*
 * openat() of what exists, by a path through no magic link (/proc/PID/fd/N, cwd, root): what such
 * a path means changes by close, dup2 or chdir, where a name changes by a mutation only, which
 * ends the epoch. -ELOOP: it leads through one; -ENOSYS: before Linux 5.6 nobody can tell.
 */
HIDDEN long open_plain(int dirfd, const char *path, u64 flags);

/* Was there ever a directory to know? */
HIDDEN bool dirs_known(void);

/* The rest wants the lock of fence.h. */
/* `epoch` and `tsc` are of before the open. NULL: not followed. */
/* `len` 0: by no path that could be known, see open_plain(). */
HIDDEN struct dir_slot *dir_opened(const char *path, size_t len, int fd, u64 epoch, u64 tsc);
HIDDEN void dir_duplicated(u64 from, u64 to);
/* The directory of this descriptor has, or gets, others that are not followed. */
HIDDEN void dir_lent(u64 fd);
HIDDEN struct dir_slot *dir_of_fd(u64 fd);
/* It was opened as a child of `up`, by a name of this hash. */
HIDDEN void dir_comes_from(struct dir_slot *d, const struct dir_slot *up, u32 hash);
/* NULL: that is not known any more. */
HIDDEN struct dir_slot *dir_up(const struct dir_slot *d);
/* A descriptor of it; -1: none is known. */
HIDDEN int dir_descriptor(const struct dir_slot *d);
HIDDEN void dirs_each(void (*f)(struct dir_slot *d));
/* Which slot it is. */
HIDDEN u32 dir_number(const struct dir_slot *d);
/*
 * The last entry that was read says that the next is at the largest position there is, as ext4 says
 * of the end: nothing is behind that, now or later.
 */
HIDDEN void dir_end_reached(struct dir_slot *d);
/* Lock-free: is the program there, and was not told so yet? It is told only once. */
HIDDEN bool dir_ended(u64 fd);
/* Lock-free: the position of this descriptor is about to change. */
HIDDEN void dir_moves(u64 fd);
/*
 * The directory that (dirfd, path) is about, most likely, and where the path goes on from there:
 * with the name of a child, unless there are slashes. NULL: dir_child() may know better.
 */
HIDDEN struct dir_slot *dir_near(int dirfd, const char *path, const char **name);
/* What (dirfd, path) names, if it can be read and is a child of a known directory. */
HIDDEN bool dir_child(int dirfd, const char *path, struct child *to);
/* Lock-free: the working directory or the root changed: paths mean something else. */
HIDDEN void dirs_moved(void);

#endif
