// SPDX-License-Identifier: MIT
#include "files.h"

#include <asm/unistd_64.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "compound.h"
#include "dirs.h"
#include "fence.h"
#include "file_batch.h"
#include "file_copy.h"
#include "file_held.h"
#include "leaf.h"
#include "mem.h"
#include "results.h"
#include "shim.h"
#include "stats.h"
#include "syscall_table.h"

#define IN_A_ROW 2u // files that were opened as those that are answered
#define IN_A_ROW_FACTOR 8u // after each time that it was a waste
#define IN_A_ROW_MOST (1u << 20)
#define LARGE_FILE 0100000 // of openat()
#define READ_MOST (1u << 30) // bytes: beyond, the kernel gives less
#define MANY 64u // arguments, so that a start of ours pays
#define OPENED_MOST 8u // files that had to be opened after all, and one
#define OPENED_SHARE 4u // of so many that had not

bool files_on AT_START;

// Compounds of the image that allow all this: over the entries of a directory, over a list.
enum way { DIRECTORY, LIST, WAYS };
static struct {
	u32 compound;
	bool allowed;
} ways[WAYS];

static enum way way_of(int dirfd)
{
	return dirfd == AT_FDCWD ? LIST : DIRECTORY;
}

bool files_adopt(u32 ci, const struct cosy_compound *c)
{
	enum way way = c->loop == COSY_LOOP_ENTRIES ? DIRECTORY : LIST;

	if (!(c->executors & cosy_config.executors & COSY_EXECUTOR_MODULE) ||
	    c->flags != COSY_SPECULATIVE || ways[way].allowed)
		return false;
	ways[way].compound = ci;
	ways[way].allowed = true;
	return true;
}

static void answered(void)
{
	leaf_answered();
	stats_add(calls, 1);
	stats_add(compound[ways[way_of(held.dirfd)].compound % COSY_STATS_COMPOUNDS].served, 1);
}

static u32 closed_since; // files that were answered to the end

static inline void make_real(void)
{
	if (known_now().mode == HELD)
		held_open();
}

// --- on and off --------------------------------------------------------------------------

static struct {
	int dirfd, fd;
	u32 n;
} row; // of files opened in the same way
static u32 in_a_row = IN_A_ROW;
static bool never;
/*
 * Calls that are under way here: more than one in a signal handler that interrupted one of them. That
 * one may have looked already whether a file is held, so that none may be held behind it.
 */
static u32 depth;

static void enter(void)
{
	__atomic_fetch_add(&depth, 1, __ATOMIC_RELAXED);
}

static void leave(void)
{
	__atomic_fetch_sub(&depth, 1, __ATOMIC_RELAXED);
}

static void stop(void)
{
	files_on = false;
	file_batch_reset();
	know_nothing();
	held_opened = closed_since = 0;
	row.n = 0;
	exec_leave_files();
}

static void stop_if_it_wastes(void)
{
	if (!file_batch_wastes() && held_opened <= OPENED_MOST + closed_since / OPENED_SHARE)
		return;
	stop();
	if (in_a_row < IN_A_ROW_MOST)
		in_a_row *= IN_A_ROW_FACTOR;
}

// An open that could have been answered, by what it says.
static bool is_reading(u64 flags)
{
	return !(flags & ~(u64)(O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK | LARGE_FILE));
}

void files_opened(const struct file_open *o)
{
	if (files_on || never)
		return;
	if (o->dirfd != row.dirfd || o->fd != row.fd) {
		row.dirfd = o->dirfd;
		row.fd = o->fd;
		row.n = 1;
		return;
	}
	if (!is_reading(o->flags) || (o->dirfd == AT_FDCWD && !file_names_is_argument(o->path))) {
		row.n = 0;
		return;
	}
	if (++row.n < in_a_row || !ground_ours())
		return;
	if (o->dirfd == AT_FDCWD && !file_names_left(o->path, MANY)) {
		row.n = 0;
		return;
	}
	if (!(cosy_config.executors & COSY_EXECUTOR_MODULE) || cosy_config.strict || !exec_load() ||
	    !ways[way_of(o->dirfd)].allowed || !file_names_start() || !exec_watch_files()) {
		never = true;
		return;
	}
}

void files_before_child(bool for_good)
{
	enter();
	make_real();
	never = never || for_good;
	if (for_good)
		stop();
	else
		know_nothing();
	leave();
}

// --- calls that are answered --------------------------------------------------------------

// Faster than memcpy() for a page or more, and no slower to start.
static void copy_words(void *to, const void *from, u64 bytes)
{
	u64 words = bytes / 8;

	__asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(words) : : "memory");
	memcpy(to, from, bytes % 8);
}

// Into the program's memory, if it can be written. So few bytes cannot be probed by writing them.
static bool put(void *to, const void *from, u64 bytes)
{
	const u64 here[2] = { (u64)from, bytes }, there[2] = { (u64)to, bytes };
	u64 last = ((u64)to + bytes - 1) / PAGE_SIZE;

	if (bytes < sizeof(u64))
		return sys(__NR_process_vm_writev, sys(__NR_getpid), here, 1, there, 1, 0) ==
		       (long)bytes;
	for (u64 page = (u64)to / PAGE_SIZE + 1; page < last; page++)
		if (!mem_page_writable(page, page * PAGE_SIZE))
			return false;
	if (!mem_writable(to, bytes))
		return false;
	copy_words(to, from, bytes);
	return true;
}

// True: *ret is the answer.
static bool answer_read(const struct regs *r, const struct known *k, long *ret)
{
	// A handler may hold another file meanwhile.
	const struct cosy_entry *e = held.entry;
	u64 left = (u32)e->data - k->offset, n = r->a[2] < left ? r->a[2] : left;
	struct known to = *k;

	if (!r->a[2] || r->a[2] > READ_MOST || k->offset > (u32)e->data || !held_is_true())
		return false;
	if (!n) {
		// The end is told once: who asks again waits for more.
		if (k->told_end)
			return false;
		to.told_end = true;
	} else if (!put((void *)r->a[1], cosy_entry_data(e) + k->offset, n)) {
		return false;
	}
	to.offset += (u32)n;
	*ret = (long)n;
	return change(k, &to);
}

static void put_stat(struct stat *st, const struct cosy_entry *e)
{
	*st = (struct stat){
		.st_dev = e->dev,
		.st_ino = e->ino,
		.st_nlink = e->nlink,
		.st_mode = e->mode,
		.st_uid = e->uid,
		.st_gid = e->gid,
		.st_size = (s64)e->size,
		.st_blksize = e->blksize,
		.st_blocks = (s64)e->blocks,
		.st_atim = { e->atime_sec, e->atime_nsec },
		.st_mtim = { e->mtime_sec, e->mtime_nsec },
		.st_ctim = { e->ctime_sec, e->ctime_nsec },
	};
}

static bool answer_stat(u64 out, const struct known *k, long *ret)
{
	struct stat *st = (void *)out;
	struct known to = *k;

	if (k->told_stat || !held_is_true() || !mem_writable(st, sizeof(*st)))
		return false;
	put_stat(st, held.entry);
	to.told_stat = true;
	*ret = 0;
	return change(k, &to);
}

static bool answer_seek(const struct regs *r, const struct known *k, long *ret)
{
	*ret = k->offset;
	return (u32)r->a[2] == SEEK_CUR && !r->a[1];
}

static bool answer_advice(const struct regs *r, const struct known *k, long *ret)
{
	(void)k;
	if (r->a[1] || r->a[2] || (u32)r->a[3] != POSIX_FADV_SEQUENTIAL)
		return false;
	held.sequential = true;
	*ret = 0;
	return true;
}

static bool answer_close(const struct known *k, long *ret)
{
	struct known to = { .mode = FREE, .fd = k->fd };

	*ret = 0;
	if (!change(k, &to))
		return false;
	closed_since++;
	return true;
}

// A call on the descriptor that is held.
static bool answer(const struct regs *r, const struct known *k, long *ret)
{
	switch (r->nr) {
	case __NR_read:
		return answer_read(r, k, ret);
	case __NR_fstat:
		return answer_stat(r->a[1], k, ret);
	case __NR_newfstatat:
		return (u32)r->a[3] == AT_EMPTY_PATH && mem_page_readable((const void *)r->a[1]) &&
		       !*(const char *)r->a[1] && answer_stat(r->a[2], k, ret);
	case __NR_lseek:
		return answer_seek(r, k, ret);
	case __NR_fadvise64:
		return answer_advice(r, k, ret);
	case __NR_copy_file_range:
		*ret = -EXDEV;
		return is_told(k) && file_copy_refused(r, held.entry->dev);
	case __NR_close:
		return answer_close(k, ret);
	}
	return false;
}

// The number is known, and so is the file. *fd is the descriptor then.
static bool hold(int dirfd, const char *path, u64 flags, long *fd)
{
	struct known k = known_now(), to = { .mode = HELD, .fd = k.fd };
	const struct cosy_entry *e;
	const struct file_batch *b;
	bool done = false;

	if (depth > 1 || k.mode != FREE || !is_reading(flags) || !ways[way_of(dirfd)].allowed ||
	    !ground_trylock())
		return false;
	e = file_batch_find(dirfd, path, &b);
	if (e) {
		held.entry = e;
		held.batch = b;
		held.dirfd = dirfd;
		held.flags = flags;
		held.sequential = false;
		done = file_batch_fresh(b) && change(&k, &to);
	}
	ground_unlock();
	*fd = k.fd;
	return done;
}

static long open_call(struct regs *r, long (*kernel)(struct regs *))
{
	bool at = r->nr == __NR_openat;
	struct opening o = {
		.dirfd = at ? (int)r->a[0] : AT_FDCWD,
		.path = (const char *)r->a[at],
		.epoch = epoch_now(),
		.tsc = rdtsc(),
	};
	u64 flags = (u32)r->a[at ? 2 : 1];
	struct known k;
	long ret;

	make_real();
	stop_if_it_wastes();
	if (files_on && hold(o.dirfd, o.path, flags, &ret)) {
		o.fd = (int)ret;
		// What is left of other answers about it is void now, as with any open.
		if (compounds_ran())
			compound_opened(&o);
		answered();
		return ret;
	}
	k = known_now();
	ret = kernel(r);
	if (ret >= 0)
		know(&k, TAKEN, (u64)ret);
	return ret;
}

// --- calls that are not ---------------------------------------------------------------------

// While a descriptor is held, these tell nothing of it, and leave the others as they are.
static bool is_harmless(const struct regs *r, u32 fd)
{
	switch (r->nr) {
	case __NR_write:
	case __NR_writev:
	case __NR_pwrite64:
		return (u32)r->a[0] != fd;
	case __NR_mmap:
		return r->a[3] & MAP_ANONYMOUS;
	case __NR_munmap:
	case __NR_mremap:
	case __NR_mprotect:
	case __NR_madvise:
	case __NR_brk:
	case __NR_exit_group:
		return true;
	}
	return false;
}

static void closed(const struct known *k, u64 fd)
{
	if ((k->mode == TAKEN && fd <= k->fd) || (k->mode == FREE && fd < k->fd))
		know(k, FREE, fd);
}

static void replaced(const struct known *k, u64 fd)
{
	if (k->mode == FREE && fd == k->fd)
		know(k, TAKEN, fd);
}

// Neither takes nor frees a descriptor.
static bool keeps_descriptors(const struct regs *r)
{
	const struct cosy_syscall *call;

	switch (r->nr) {
	case __NR_read:
	case __NR_readv:
	case __NR_lseek:
	case __NR_getdents64:
	case __NR_rt_sigaction:
		return true;
	}
	if (r->nr >= COSY_NR_MAX)
		return false;
	call = &cosy_syscalls[r->nr];
	return (call->cls == COSY_CLASS_PURE || call->cls == COSY_CLASS_MUTATING) &&
	       !call->returns_fd;
}

// What the kernel did, as far as it says of descriptors.
static void learn(const struct regs *r, const struct known *k, long ret)
{
	switch (r->nr) {
	case __NR_close:
		if (ret != -EBADF)
			closed(k, (u32)r->a[0]);
		return;
	case __NR_dup:
		if (ret >= 0)
			know(k, TAKEN, (u64)ret);
		return;
	case __NR_dup2:
	case __NR_dup3:
		if (ret >= 0)
			replaced(k, (u64)ret);
		return;
	case __NR_fcntl:
		if ((u32)r->a[1] == F_DUPFD || (u32)r->a[1] == F_DUPFD_CLOEXEC) {
			if (ret >= 0)
				replaced(k, (u64)ret);
			return;
		}
		// Locks go with any descriptor of their file that is closed.
		if ((u32)r->a[1] >= F_GETLK) {
			never = true;
			stop();
		}
		return;
	case __NR_copy_file_range:
		if (ret == -EXDEV)
			file_copy_learn(r);
		return;
	case __NR_getdents64:
		if (ret > 0 && ground_trylock()) {
			file_names_scanned((u32)r->a[0], (const void *)r->a[1], (u64)ret);
			ground_unlock();
		}
		return;
	}
	if (keeps_descriptors(r) || is_harmless(r, KNOWN_MOST_FD + 1))
		return;
	know_nothing();
}

static long call(struct regs *r, long (*kernel)(struct regs *))
{
	struct known k = known_now();
	long ret;

	if (r->nr == __NR_openat || r->nr == __NR_open)
		return open_call(r, kernel);
	if (k.mode == HELD) {
		if ((u32)r->a[0] == k.fd && answer(r, &k, &ret)) {
			answered();
			return ret;
		}
		if (is_harmless(r, k.fd))
			return kernel(r);
		held_open();
		k = known_now();
	}
	ret = kernel(r);
	if (files_on)
		learn(r, &k, ret);
	return ret;
}

long files_call(struct regs *r, long (*kernel)(struct regs *))
{
	long ret;

	enter();
	ret = call(r, kernel);
	leave();
	return ret;
}

bool files_wants(u64 nr)
{
	// Of no interest whatever is open; and what must never come by a hook.
	static const u16 others[] = {
		__NR_rt_sigreturn,
		__NR_exit,
		__NR_rt_sigprocmask,
		__NR_rt_sigpending,
		__NR_sigaltstack,
		__NR_getpid,
		__NR_gettid,
		__NR_getppid,
		__NR_getuid,
		__NR_geteuid,
		__NR_getgid,
		__NR_getegid,
		__NR_clock_gettime,
		__NR_gettimeofday,
		__NR_time,
		__NR_times,
		__NR_getrusage,
		__NR_getrandom,
		__NR_uname,
		__NR_sysinfo,
		__NR_getcwd,
		__NR_umask,
		__NR_alarm,
		__NR_setitimer,
		__NR_getitimer,
		__NR_set_robust_list,
		__NR_set_tid_address,
		__NR_rseq,
		__NR_arch_prctl,
		__NR_getcpu,
		__NR_sched_getaffinity,
	};

	for (u32 i = 0; i < ARRAY_SIZE(others) && files_on; i++)
		if (nr == others[i])
			return false;
	return files_on;
}
