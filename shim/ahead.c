// SPDX-License-Identifier: MIT
/* The program's side of reading directories ahead: when the thread begins, what is taken from it. */
#include "ahead_shared.h"

#include <asm/unistd_64.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>

#include "ahead.h"
#include "compound.h"
#include "fence.h"
#include "mem.h"
#include "syscall_table.h"

#define WALK 24u /* firings */
#define MOST_THREADS 4u /* that are begun, one after the other */
#define DROPS 4u /* misses in a row: what is read ahead is behind the program */
#define MISSES 16u /* in a row: the program goes another way */
#define FEW_REQUESTS 64u
#define HITS_A_REQUEST 4u
#define FEW_UNUSED 64u
#define PATIENCE 200000u /* ticks since the thread began with what the program wants now */
#define SORTED 8 /* children in order */
#define MOST_SORTED 24
#define KEPT 2u /* directories that are taken */

bool ahead_on AT_START;
u32 ahead_size;

static struct ahead *shared; // once there was a thread
static u32 walked, threads; // firings since the last thread began or ended, threads so far
static u32 hits, requests, misses; // misses in a row
static u32 used; // hits whose records were used
static u32 first_node; // since the last request; older ones mean nothing to the thread
static s32 in_order; // children that came by name, lately

static struct {
	struct prepared *at;
	u32 node;
} kept[KEPT];
static u32 n_kept;

static u32 thread; // the last one's id

static struct prepared *taken(const struct dir_slot *d)
{
	struct prepared *p = d->prepared;

	return p && p->node == d->node && p->state == PREPARED_TAKEN ? p : NULL;
}

static bool holds(const struct run_start *start)
{
	return start->epoch == epoch_now() &&
	       (rdtsc() - start->tsc <= max_age_ticks || !fence_on(FENCE_MAX_AGE));
}

static void release(struct prepared *p)
{
	__atomic_store_n(&p->state, PREPARED_FREE, __ATOMIC_RELEASE);
}

// --- what the kernel does not know -----------------------------------------

void ahead_leave(struct dir_slot *d)
{
	enum dir_list list = __atomic_exchange_n(&d->list, LIST_NONE, __ATOMIC_ACQ_REL);
	int fd = list >= LIST_READ ? dir_descriptor(d) : -1;

	if (fd < 0)
		return;
	// A position alone is not enough: ext4 begins at the end for good if the first read is there.
	sys(__NR_getdents64, fd, shared->unused, shared->size);
	sys(__NR_lseek, fd, d->position, SEEK_SET);
}

void ahead_leave_fd(u64 fd)
{
	struct dir_slot *d = ahead_on ? dir_of_fd(fd) : NULL;

	if (d)
		ahead_leave(d);
}

bool ahead_entries(const struct regs *r, long *ret)
{
	struct dir_slot *d = dir_of_fd((u32)r->a[0]);
	struct prepared *p = d ? taken(d) : NULL;

	if (!d || d->list == LIST_NONE)
		return false;
	if (r->nr == __NR_getdents64 && d->list == LIST_READ && holds(&d->list_start)) {
		d->list = LIST_ENDED;
		*ret = 0;
		return true;
	}
	if (r->nr != __NR_getdents64 || d->list != LIST_FRESH || !p || !holds(&p->start) ||
	    (u32)r->a[2] != shared->size || !mem_all_writable((void *)r->a[1], p->bytes)) {
		ahead_leave(d);
		return false;
	}
	*ret = p->bytes;
	d->position = p->position;
	d->list_start = p->start;
	// First: a signal's handler that comes in between may have to tell the kernel.
	d->list = LIST_READ;
	memcpy((void *)r->a[1], p->list, (size_t)*ret);
	if (likely(taken(d) == p))
		return true;
	// It walked, and the entries may be others.
	d->list = LIST_NONE;
	sys(__NR_lseek, (u32)r->a[0], 0, SEEK_SET);
	return false;
}

const struct run_buffers *ahead_runs(const struct dir_slot *d, struct run_start *start)
{
	struct prepared *p = ahead_on ? taken(d) : NULL;

	if (!p || !holds(&p->start) || p->runs.run.status == COSY_BPF_NOT_RUN)
		return NULL;
	used++;
	stats_add(ahead_runs, 1);
	*start = p->start;
	return &p->runs;
}

// --- the thread ------------------------------------------------------------

static void wake(bool always)
{
	__atomic_fetch_add(&shared->wake, 1, __ATOMIC_SEQ_CST);
	if (always || __atomic_load_n(&shared->asleep, __ATOMIC_SEQ_CST))
		sys(__NR_futex, &shared->wake, FUTEX_WAKE_PRIVATE, 1);
}

// Nothing that the program could see counts the time of its threads, and there is a processor more.
static bool may_have_thread(void)
{
	struct itimerval timer;
	struct rlimit limit;

	if (sys_failed(sys(__NR_sched_getaffinity, 0, sizeof(shared->cpus), shared->cpus)))
		return false;
	shared->n_cpus = 0;
	for (u32 i = 0; i < ARRAY_SIZE(shared->cpus); i++)
		for (u64 left = shared->cpus[i]; left; left &= left - 1)
			shared->n_cpus++;
	if (shared->n_cpus < 2 || sys(__NR_sched_getscheduler, 0) != SCHED_NORMAL)
		return false;
	if (sys(__NR_prlimit64, 0, RLIMIT_CPU, 0, &limit) || limit.rlim_cur != RLIM_INFINITY)
		return false;
	for (int which = ITIMER_VIRTUAL; which <= ITIMER_PROF; which++)
		if (sys(__NR_getitimer, which, &timer) || timer.it_value.tv_sec ||
		    timer.it_value.tv_usec)
			return false;
	return true;
}

static bool map_shared(void)
{
	size_t bytes = ahead_walk_bytes();
	void *at;

	if (shared)
		return true;
	at = (void *)sys(__NR_mmap, 0, bytes, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (sys_failed((long)at))
		return false;
	sys(__NR_madvise, at, bytes, MADV_NOHUGEPAGE);
	if (sys(__NR_madvise, at, bytes, 18 /* MADV_WIPEONFORK */)) {
		sys(__NR_munmap, at, bytes);
		return false;
	}
	shared = at;
	return true;
}

static bool start(void)
{
	u64 all = ~0ul, before;
	u8 *end;
	long ret;

	if (executor_used() != COSY_EXECUTOR_BPF ||
	    cosy_config.executors & COSY_EXECUTOR_REFERENCE || threads == MOST_THREADS ||
	    walked < WALK << 2 * threads || !ahead_size || ahead_size > LIST_BYTES)
		return false;
	threads++;
	walked = 0;
	if (!exec_single() || !map_shared() || !may_have_thread()) {
		threads = MOST_THREADS;
		return false;
	}
	shared->size = ahead_size;
	shared->stop = 0;
	shared->asleep = 0;
	shared->cpu = cpu_now();
	shared->requested = 0;
	shared->begun = 0;
	first_node = shared->nodes + 1;
	end = (u8 *)shared + ahead_walk_bytes();
	if (sys(__NR_rt_sigprocmask, SIG_SETMASK, &all, &before, 8))
		return false;
	shared->tid = 1; // until there is one
	ret = thread_start(CLONE_VM | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM |
				   CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID,
			   end, &shared->tid, ahead_walk, shared);
	if (ret > 0) {
		thread = (u32)ret;
		ahead_on = true;
		stats_add(ahead_threads, 1);
		exec_watch_ahead();
	} else {
		threads = MOST_THREADS;
	}
	sys(__NR_rt_sigprocmask, SIG_SETMASK, &before, 0, 8);
	return ahead_on;
}

static void forget(struct dir_slot *d)
{
	ahead_leave(d);
	d->node = 0; // a child of fork counts them anew
	d->end_epoch = 0; // nobody may look at what brings news any more
}

void ahead_stop(void)
{
	u32 tid;

	if (!ahead_on)
		return;
	dirs_each(forget);
	// Each time: a signal's handler may have begun another.
	while ((tid = __atomic_load_n(&shared->tid, __ATOMIC_ACQUIRE))) {
		__atomic_store_n(&shared->stop, 1, __ATOMIC_SEQ_CST);
		wake(true);
		sys(__NR_futex, &shared->tid, FUTEX_WAIT, tid, 0);
	}
	// The kernel says so a moment before it counts one thread less.
	while (!sys(__NR_tgkill, sys(__NR_getpid), thread, 0))
		__builtin_ia32_pause();
	ahead_on = false;
	for (u32 i = 0; i < PREPARED; i++)
		release(&shared->prepared[i]);
	shared->head = shared->tail;
	exec_watch_ahead();
}

static void give_up(void)
{
	threads = MOST_THREADS;
	ahead_stop();
}

// --- the program's walk ----------------------------------------------------

void ahead_walked(void)
{
	walked++;
}

// The program's thread goes another way, or came first.
static void drop_before(u32 n)
{
	for (u32 i = shared->head; i != n; i++) {
		struct prepared *p = &shared->prepared[i % PREPARED];
		u32 state = PREPARED_WORKING;

		if (!__atomic_compare_exchange_n(&p->state, &state, PREPARED_UNWANTED, false,
						 __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE) &&
		    state == PREPARED_READY)
			release(p);
	}
	__atomic_store_n(&shared->head, n, __ATOMIC_RELEASE);
}

// The thread works on it. False: for too long, or with no success.
static bool await(const struct prepared *p)
{
	while (__atomic_load_n(&p->state, __ATOMIC_ACQUIRE) == PREPARED_WORKING) {
		if (rdtsc() - p->start.tsc > PATIENCE)
			return false;
		__builtin_ia32_pause();
	}
	return true;
}

// Not one that the thread passed over, since the program had it.
static bool is_offered(const struct prepared *p)
{
	u32 state = __atomic_load_n(&p->state, __ATOMIC_ACQUIRE);

	return state == PREPARED_WORKING || state == PREPARED_READY;
}

// The place of a child that was read ahead. False: there is none.
static bool find(u32 parent, const struct name *name, struct inode inode, u32 *at)
{
	u32 tail = __atomic_load_n(&shared->tail, __ATOMIC_ACQUIRE);
	struct name_at wanted = name_in(name);

	for (u32 i = shared->head; i != tail; i++) {
		const struct prepared *p = &shared->prepared[i % PREPARED];

		if (is_offered(p) && p->parent == parent && p->name.hash == name->hash &&
		    p->name.len == name->len && name_equal(&wanted, p->name.words)) {
			*at = i;
			return await(p) && inode_equal(p->inode, inode);
		}
	}
	return false;
}

static void let_go(u32 place)
{
	struct prepared *p = kept[place].at;

	if (p && p->node == kept[place].node && p->state == PREPARED_TAKEN)
		release(p);
	kept[place].at = NULL;
}

static void take(struct dir_slot *d, u32 at)
{
	struct prepared *p = &shared->prepared[at % PREPARED];
	u32 place = n_kept++ % KEPT;

	drop_before(at);
	__atomic_store_n(&shared->head, at + 1, __ATOMIC_RELEASE);
	let_go(place);
	kept[place].at = p;
	kept[place].node = p->node;
	p->state = PREPARED_TAKEN;
	d->node = p->node;
	d->prepared = p;
	d->list = p->bytes ? LIST_FRESH : LIST_NONE;
	hits++;
	stats_add(ahead_taken, 1);
	misses = 0;
	if (__atomic_load_n(&shared->asleep, __ATOMIC_SEQ_CST) &&
	    __atomic_load_n(&shared->tail, __ATOMIC_ACQUIRE) - shared->head <= LEAD / 2)
		wake(false);
}

// The thread is where the program is, or was; it may leave this one out.
static void pass(u32 parent, const struct name *name, struct inode inode, u32 node)
{
	u32 n = shared->n_passed;
	struct ahead_passed *to = &shared->passed[n % PASSED];

	to->parent = parent;
	to->node = node;
	to->inode = inode;
	to->name.len = name->len;
	to->name.hash = name->hash;
	memcpy(to->name.words, name->words, name_words(name->len) * sizeof(u64));
	__atomic_store_n(&shared->n_passed, n + 1, __ATOMIC_RELEASE);
	if (misses > DROPS && shared->tail - shared->head == LEAD)
		drop_before(__atomic_load_n(&shared->tail, __ATOMIC_ACQUIRE));
}

// It is on its way with the last request.
static bool begun(void)
{
	return __atomic_load_n(&shared->begun, __ATOMIC_ACQUIRE) == shared->requested;
}

static void request(struct dir_slot *d, const struct child *as)
{
	struct ahead_request *to = &shared->request;
	struct dir_slot *dir = as->dir;
	u32 after = as->name.hash;
	int fd = dir_descriptor(dir);

	misses = 0;
	requests++;
	stats_add(ahead_begun, 1);
	d->node = new_node(shared);
	first_node = d->node;
	__atomic_fetch_add(&shared->requested, 1, __ATOMIC_SEQ_CST);
	__atomic_store_n(&shared->cancelled, 0, __ATOMIC_SEQ_CST);
	to->sorted = in_order >= SORTED;
	for (to->n = 0; dir && to->n < MOST_PLACES; to->n++) {
		struct ahead_place *place = &to->places[to->n];

		if (fd < 0 && !dir->path[0])
			break;
		place->fd = fd;
		place->scanned = dir->scanned;
		place->after = after;
		place->node = dir->node = new_node(shared);
		memcpy(place->path, dir->path, fd < 0 ? sizeof(place->path) : 1);
		after = dir->up_hash;
		dir = dir_up(dir);
		fd = dir ? dir_descriptor(dir) : -1;
	}
	__atomic_fetch_add(&shared->requested, 1, __ATOMIC_SEQ_CST);
	drop_before(__atomic_load_n(&shared->tail, __ATOMIC_ACQUIRE));
	wake(false);
}

// Do the programs' children come by name? One that does not counts as much as four that do.
static void note_order(struct dir_slot *dir, const struct name *name)
{
	u64 first = __builtin_bswap64(name->words[0]);

	if (dir->last_child)
		in_order += first >= dir->last_child ? 1 : -4;
	if (in_order < 0)
		in_order = 0;
	if (in_order > MOST_SORTED)
		in_order = MOST_SORTED;
	dir->last_child = first;
}

// Does it know its way, and is what it reads asked for?
static bool is_of_use(void)
{
	return !fence_on(FENCE_ACCOUNT) ||
	       (requests * HITS_A_REQUEST <= hits + FEW_REQUESTS * HITS_A_REQUEST &&
		hits - used <= used + FEW_UNUSED);
}

void ahead_opened(struct dir_slot *d, const struct child *as)
{
	struct stat st;
	u32 at;

	if (!(cosy_config.executors & COSY_EXECUTOR_AHEAD))
		return;
	dir_comes_from(d, as->dir, as->name.hash);
	note_order(as->dir, &as->name);
	if ((!ahead_on && !start()) || sys_failed(sys(__NR_fstat, d->fd, &st)))
		return;
	__atomic_store_n(&shared->cpu, cpu_now(), __ATOMIC_RELEASE);
	if (!__atomic_load_n(&shared->tid, __ATOMIC_ACQUIRE)) {
		give_up(); // it could not begin, or was in the way
	} else if (find(as->dir->node, &as->name, inode_of(&st), &at)) {
		take(d, at);
	} else if (!begun() ||
		   (shared->depth && as->dir->node >= first_node && misses++ < MISSES)) {
		d->node = new_node(shared);
		pass(as->dir->node, &as->name, inode_of(&st), d->node);
	} else if (is_of_use()) {
		request(d, as);
	} else {
		give_up();
	}
}

void ahead_closed(u64 first, u64 last)
{
	const struct ahead_request *r = begun() ? NULL : &shared->request;

	for (u32 i = 0; r && i < r->n; i++)
		if (r->places[i].fd >= 0 && (u64)r->places[i].fd >= first &&
		    (u64)r->places[i].fd <= last)
			__atomic_store_n(&shared->cancelled, 1, __ATOMIC_SEQ_CST);
}

// --- calls that make a difference ------------------------------------------

static bool ends_thread(const struct regs *r)
{
	switch (r->nr) {
	case __NR_exit_group: // the kernel ends it
	case __NR_arch_prctl:
		return false;
	case __NR_umount2:
	case __NR_mount:
	case __NR_move_mount:
	case __NR_open_tree:
	case __NR_inotify_add_watch:
	case __NR_fanotify_mark:
	case __NR_setitimer:
	case __NR_timer_create:
	case __NR_io_setup:
	case __NR_io_uring_setup:
	case __NR_keyctl:
	case __NR_sched_setaffinity:
	case __NR_sched_setscheduler:
	case __NR_sched_setparam:
	case __NR_sched_setattr:
	case __NR_setpriority:
	case __NR_ioprio_set:
		return true;
	case __NR_fcntl:
		return (u32)r->a[1] == F_NOTIFY || (u32)r->a[1] == F_SETLEASE;
	case __NR_prlimit64:
		return r->a[2] && r->a[1] == RLIMIT_CPU;
	case __NR_setrlimit:
		return r->a[0] == RLIMIT_CPU;
	}
	return r->nr >= COSY_NR_MAX || cosy_syscalls[r->nr].cls == COSY_CLASS_PROCESS ||
	       cosy_syscalls[r->nr].cls == COSY_CLASS_UNKNOWN;
}

bool ahead_wants(u64 nr)
{
	static const u16 calls[] = {
		__NR_lseek,
		__NR_exit,
		__NR_inotify_add_watch,
		__NR_fanotify_mark,
		__NR_setitimer,
		__NR_timer_create,
		__NR_prlimit64,
		__NR_setrlimit,
		__NR_sched_setaffinity,
		__NR_sched_setscheduler,
		__NR_sched_setparam,
		__NR_sched_setattr,
		__NR_setpriority,
		__NR_ioprio_set,
	};

	for (u32 i = 0; i < ARRAY_SIZE(calls) && ahead_on; i++)
		if (nr == calls[i])
			return true;
	return false;
}

void ahead_before(const struct regs *r)
{
	switch (r->nr) {
	case __NR_lseek:
		ahead_leave_fd((u32)r->a[0]);
		return;
	case __NR_sendmsg:
	case __NR_sendmmsg:
		dirs_each(ahead_leave);
		return;
	}
	if (ends_thread(r))
		ahead_stop();
}
