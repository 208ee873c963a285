/* SPDX-License-Identifier: MIT */
/* What the program's thread (ahead.c) and the one that reads ahead (ahead_walk.c) share. */
#ifndef COSY_AHEAD_SHARED_H
#define COSY_AHEAD_SHARED_H

#include <sys/stat.h>

#include "dirs.h"
#include "executor.h"
#include "name.h"

#define PREPARED 16u /* directories at a time */
#define LEAD 10u /* that nobody asked for yet */
#define LIST_BYTES 32768u /* of entries: what the C libraries ask for */
#define PASSED 16u
#define CPUS 1024u
#define MOST_PLACES 12u
#define STACK_BYTES 32768u

enum prepared_state {
	PREPARED_FREE,
	PREPARED_WORKING, /* the thread writes it */
	PREPARED_READY, /* the program's thread may take it */
	PREPARED_TAKEN,
	PREPARED_UNWANTED, /* the thread still writes it, and makes it free then */
};

/*
 * The same name may be another directory by the time that the program opens it, or was one when the thread
 * listed it: each knows by this that they mean the same.
 */
struct inode {
	u64 dev, ino;
};

/* A directory that was read ahead. */
struct prepared {
	u32 state;
	u32 node; /* of it: a number that no other directory has */
	u32 parent; /* node of the directory that it is in */
	u32 bytes; /* of entries; 0: they were too many */
	s64 position; /* behind them */
	struct inode inode;
	struct name name;
	struct run_start start;
	_Alignas(PAGE_SIZE) u8 list[LIST_BYTES];
	struct run_buffers runs;
};

/* Where to go on: behind a child of each of these directories, the innermost first. */
struct ahead_request {
	u32 n;
	bool sorted; /* children come by name, not as they are listed */
	struct ahead_place {
		int fd; /* the program's, of the directory; AT_FDCWD: by path */
		u32 node; /* the directory's */
		u32 after; /* hash of the name of the child that the program is in */
		bool scanned; /* the program read it by this descriptor; a walk comes back by ".." */
		char path[DIR_PATH_MAX];
	} places[MOST_PLACES];
};

struct ahead {
	u32 tid; /* the kernel clears it when the thread is gone */
	u32 stop;
	u32 asleep; /* the thread waits for `wake` to change */
	u32 wake;
	u32 requested; /* counts requests; odd while one is written */
	u32 cancelled; /* the request's descriptor was closed */
	u32 nodes; /* the last number that was given */
	/* Prepared directories [head, tail), counted; those before head are taken or free. */
	u32 head, tail;
	u32 size; /* bytes that the program asks for at a time */
	u64 cpus[CPUS / 64]; /* that the program may run on */
	u32 n_cpus;
	u32 cpu; /* that the program was on */
	u32 depth; /* directories that the thread is in; 0: it has nothing to do */
	u32 begun; /* the last request that the thread is on its way with */
	u32 n_passed; /* children that the program came to first, counted */
	struct ahead_passed {
		u32 node, parent;
		struct inode inode;
		struct name name;
	} passed[PASSED]; /* the last of them */
	struct ahead_request request;
	_Alignas(PAGE_SIZE) struct prepared prepared[PREPARED];
	u8 unused[LIST_BYTES]; /* entries that the program has already */
};

/* The processor that this is. The kernel keeps its number in a segment's limit, for the vDSO's getcpu(). */
static inline u32 cpu_now(void)
{
	u32 limit;

	__asm__ volatile("lsl %1, %0" : "=r"(limit) : "r"(0x7b));
	return limit & 0xfff;
}

static inline struct inode inode_of(const struct stat *st)
{
	return (struct inode){ st->st_dev, st->st_ino };
}

static inline bool inode_equal(struct inode a, struct inode b)
{
	return a.dev == b.dev && a.ino == b.ino;
}

static inline u32 new_node(struct ahead *a)
{
	return __atomic_add_fetch(&a->nodes, 1, __ATOMIC_RELAXED);
}

/* thread.S: a thread of this process that runs run(arg) on this stack and ends; its id or -errno. */
HIDDEN long thread_start(u64 flags, void *stack_end, u32 *tid, void (*run)(void *), void *arg);
/* ahead_walk.c: what it does. `arg`: struct ahead_walk, which begins with the shared part. */
HIDDEN void ahead_walk(void *arg);
/* Bytes of memory that it works in, which is its own; cleared. */
HIDDEN size_t ahead_walk_bytes(void);

#endif
