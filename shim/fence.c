// SPDX-License-Identifier: MIT
#include "fence.h"

#include <asm/unistd_64.h>
#include <sys/mman.h>

#include "account.h"
#include "stats.h"

#define WRITTEN 16
#define READ_BITS 16384

u64 cosy_epoch = 1;
// Until something can be protected; a page of its own is a system call or two.
static struct ground early AT_START = { .alive = 1 };
struct ground *ground AT_START = &early;
u64 touches[TOUCHES] AT_START;
bool armed AT_START;

static int owner; // process id
static bool lent; // a vfork happened: another process may run on our memory

static struct inode_key {
	u64 dev, ino;
} written_set[WRITTEN], mapped_set[WRITTEN];
u32 n_written, n_mapped;

// A Bloom filter of one hash (B. H. Bloom, CACM 13(7), 1970) of the files that were read.
static u64 read_filter[READ_BITS / 64];
static u32 n_read;

#ifdef COSY_FENCE_TESTS
static const char *const names[FENCES] = {
	[FENCE_READ_SYNC] = "read_sync",
	[FENCE_RECV] = "recv",
	[FENCE_WAIT] = "wait",
	[FENCE_FUTEX] = "futex",
	[FENCE_LOCK] = "lock",
	[FENCE_SIGNAL] = "signal",
	[FENCE_POLL] = "poll",
	[FENCE_SLEEP] = "sleep",
	[FENCE_OPEN_FIFO] = "open_fifo",
	[FENCE_PROCESS] = "process",
	[FENCE_MUTATE] = "mutate",
	[FENCE_THREAD_MUTATE] = "thread_mutate",
	[FENCE_WRITE_INODE] = "write_inode",
	[FENCE_MMAP_WRITE] = "mmap_write",
	[FENCE_ATIME] = "atime",
	[FENCE_CLOSE_FD] = "close_fd",
	[FENCE_DUP_FD] = "dup_fd",
	[FENCE_MAX_AGE] = "max_age",
	[FENCE_SERVED_ONCE] = "served_once",
	[FENCE_OPEN_FILE] = "open_file",
	[FENCE_ACCOUNT] = "account",
};

int fence_by_name(const char *name)
{
	for (int i = 0; i < FENCES; i++)
		if (str_equal(name, names[i]))
			return i;
	return -1;
}
#endif

bool fence_start(void)
{
	struct ground *page;

	if (ground != &early)
		return true;
	page = (void *)sys(__NR_mmap, 0, PAGE_SIZE, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (sys_failed((long)page))
		return false;
	if (sys(__NR_madvise, page, PAGE_SIZE, 18 /* MADV_WIPEONFORK */)) {
		sys(__NR_munmap, page, PAGE_SIZE);
		return false;
	}
	// We may be a signal handler's call within a mutation.
	page->mutating = early.mutating;
	page->alive = 1;
	ground = page;
	owner = (int)sys(__NR_getpid);
	return true;
}

static bool mutation_counts(void)
{
#ifdef COSY_FENCE_TESTS
	if (!fence_on(FENCE_THREAD_MUTATE) && sys(__NR_gettid) != sys(__NR_getpid))
		return false;
#endif
	return fence_on(FENCE_MUTATE);
}

/*
 * First the counter, then the epoch; who starts a run reads the epoch first,
 * then the counter. So a run either sees this mutation or is of an epoch that
 * is over. A thread that never comes back (cancelled, longjmp) leaves the
 * counter up: nothing runs any more in this process, which is safe.
 */
long mutate(struct regs *r)
{
	long ret;

	if (!mutation_counts())
		return sys_regs(r);
	__atomic_fetch_add(&ground->mutating, 1, __ATOMIC_ACQ_REL);
	epoch_end(FENCE_MUTATE);
	ret = sys_regs(r);
	__atomic_fetch_sub(&ground->mutating, 1, __ATOMIC_ACQ_REL);
	return ret;
}

static bool in_set(const struct inode_key *set, const u32 *counter, u64 dev, u64 ino)
{
	u32 n = __atomic_load_n(counter, __ATOMIC_ACQUIRE);

	for (u32 i = 0; i < n && i < WRITTEN; i++)
		if (__atomic_load_n(&set[i].ino, __ATOMIC_RELAXED) == ino &&
		    __atomic_load_n(&set[i].dev, __ATOMIC_RELAXED) == dev)
			return true;
	return false;
}

// False: the set is full.
static bool set_add(struct inode_key *set, u32 *counter, u64 dev, u64 ino)
{
	u32 i;

	if (in_set(set, counter, dev, ino))
		return true;
	i = __atomic_fetch_add(counter, 1, __ATOMIC_ACQ_REL);
	if (i >= WRITTEN)
		return false;
	__atomic_store_n(&set[i].dev, dev, __ATOMIC_RELAXED);
	__atomic_store_n(&set[i].ino, ino, __ATOMIC_RELAXED);
	return true;
}

bool written_search(u64 dev, u64 ino)
{
	return in_set(written_set, &n_written, dev, ino) || in_set(mapped_set, &n_mapped, dev, ino);
}

bool mapped_add(u64 dev, u64 ino)
{
	return set_add(mapped_set, &n_mapped, dev, ino);
}

/*
 * Called before and after each write. When the set is full it starts anew in
 * a new epoch; a write that is in flight then comes back and adds itself again.
 */
void written_add(u64 dev, u64 ino)
{
	if (set_add(written_set, &n_written, dev, ino))
		return;
	__atomic_store_n(&n_written, 0, __ATOMIC_RELEASE);
	epoch_end(FENCE_WRITE_INODE);
}

static u64 read_bit(u64 dev, u64 ino)
{
	return (((ino ^ dev << 40) * 0x9e3779b97f4a7c15ul) >> 32) % READ_BITS;
}

/* When the filter is full of holes, everything that was not stable counts as touched. */
void read_add(u64 dev, u64 ino)
{
	u64 bit = read_bit(dev, ino), mask = 1ul << bit % 64;

	if (__atomic_fetch_or(&read_filter[bit / 64], mask, __ATOMIC_ACQ_REL) & mask)
		return;
	if (__atomic_add_fetch(&n_read, 1, __ATOMIC_RELAXED) < READ_BITS / 16)
		return;
	touch(TOUCH_FILE);
	__atomic_store_n(&n_read, 0, __ATOMIC_RELAXED);
	for (u32 i = 0; i < ARRAY_SIZE(read_filter); i++)
		__atomic_store_n(&read_filter[i], 0, __ATOMIC_RELEASE);
}

bool was_read(u64 dev, u64 ino)
{
	u64 bit = read_bit(dev, ino);

	return __atomic_load_n(&read_filter[bit / 64], __ATOMIC_ACQUIRE) >> bit % 64 & 1;
}

static COLD void child_reset(void)
{
	owner = (int)sys(__NR_getpid);
	lent = false;
	ground->alive = 1;
	account_forget();
}

bool ground_trylock(void)
{
	u32 free = 0;

	if (unlikely(!ground->alive))
		child_reset();
	// Locked in any case: a thread may have been made without the C library, unseen.
	return __atomic_compare_exchange_n(&ground->lock, &free, 1, false, __ATOMIC_ACQUIRE,
					   __ATOMIC_RELAXED);
}

void ground_unlock(void)
{
	__atomic_store_n(&ground->lock, 0, __ATOMIC_RELEASE);
}

bool ground_ours(void)
{
	if (unlikely(!ground->alive))
		child_reset();
	return likely(!lent) || sys(__NR_getpid) == owner;
}

bool ground_lend(void)
{
	if (!fence_start())
		return false;
	// Before the child could take itself for the owner.
	if (!ground->alive)
		child_reset();
	lent = true;
	return true;
}
