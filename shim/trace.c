// SPDX-License-Identifier: MIT
/*
 * The tracing mode: every call becomes an event of its thread's raw file
 * (kmod/uapi/cosy_trace.h). The live block is a shared mapping of the file,
 * so that a killed thread loses nothing; a full one is appended with a single
 * write, or of a busy thread taken away by whoever records (trace_file.c). The
 * thread waits for nobody, and nothing is lost but for want of space, which is
 * counted.
 *
 * Cost (bench/tracing.py --part event): 191 instructions more for a call of which only registers are
 * kept, 266 with a path and a stat. Time goes into memory first: into new pages of
 * the file half of it, which is why a busy thread's blocks are used again.
 */
#include <asm/unistd_64.h>
#include <fcntl.h>
#include <link.h>
#include <linux/sched.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <ucontext.h>

#include "adopt.h"
#include "mem.h"
#include "shim.h"
#include "trace_call.h"
#include "trace_file.h"
#include "trace_keep.h"
#include "watch.h"

// What a signal handler's event may need on top of the one it interrupts.
#define SPARE_EVENTS 32
#define SPARE_HEAP 4096

// Between two looks at whether recording has ended, which take 1 us: blocks.
#define LOOKS 4

struct tracer {
	struct cosy_trace_header *file; // NULL: not open yet
	struct cosy_trace_block *live; // of the file
	int pid;
	u32 writing; // appends in progress: more than one in signal handlers
	bool failed; // no file to be had: events are lost
	bool vforking; // between vfork and the parent's first own call
};

static __thread struct tracer self;
// The parent's tracer while its vfork child borrows the thread's memory.
static __thread struct tracer parked;

/*
 * One word, so that an event needs a look at it only. A child of fork, which must not write to its parent's
 * files, finds it wiped.
 */
enum { STATE_CHILD, STATE_QUICK, STATE_SLOW };
static u32 *state;
static bool announced; // this process has told who it is
static bool stopped; // nobody wants to know more

// Slow: nobody wants to know more, or a filter may make up answers.
static void state_set(void)
{
	*state = stopped || sandboxed() ? STATE_SLOW : STATE_QUICK;
}

static void use_file(struct cosy_trace_header *file)
{
	self.file = file;
	self.live = file ? file_live(file) : NULL;
}

static void close_own(void)
{
	if (self.file && !sandboxed())
		file_close(self.file);
	use_file(NULL);
}

// --- events --------------------------------------------------------------

/*
 * A call, and where its arguments are. Of this and of a payload only what is looked at is set:
 * to clear and copy whole events took 7 ns of the 107 that one cost.
 */
struct call {
	u64 tsc, dur;
	s64 ret;
	const u64 *args;
	u64 site;
	u16 nr, flags;
};

static const u64 no_args[6];

enum { ACTION_SEEN = 1, ACTION_APART };

// What trace_apart and pass_call look at.
static const u16 apart[] = { __NR_execve, __NR_execveat,     __NR_exit,	 __NR_exit_group, __NR_mmap,
			     __NR_ptrace, __NR_rt_sigaction, __NR_prctl, __NR_seccomp };

static bool full(const struct cosy_trace_block *b, u32 size)
{
	return b->n_events + SPARE_EVENTS > EVENTS || b->heap_bytes + size + SPARE_HEAP > HEAP_SIZE;
}
_Static_assert(MAX_PAYLOAD + SPARE_HEAP <= HEAP_SIZE, "an empty block has room for any event");

// A new live block; out of the way of every event that goes into one with room.
static __attribute__((noinline)) struct cosy_trace_block *make_room(void)
{
	if (sandboxed())
		return self.live;
	// In a handler, over a half-written event or block: leave that file as it is.
	if (self.writing) {
		struct cosy_trace_header *next = file_create();

		if (next)
			use_file(next);
		return self.live;
	}
	self.writing++;
	file_flush(self.file);
	self.writing--;
	self.live = file_live(self.file);
	if (self.file->filled % LOOKS == 0)
		stopped = stopped || adopt_stopped();
	if (stopped)
		*state = STATE_SLOW;
	return self.live;
}

/*
 * A line that will be written to, from the processor that took it away, while the next call runs; where there is
 * no such line, or the processor knows no such instruction, nothing happens. 25 ns an event of du.
 */
static inline void fetch(const void *at)
{
	__asm__ volatile("prefetchw %0" : : "m"(*(const u8 *)at));
}

#define WHERE(field) offsetof(struct cosy_trace_event, field)
_Static_assert(WHERE(flags) == WHERE(nr) + 2 && WHERE(heap) == WHERE(nr) + 4, "one word");
_Static_assert(WHERE(path2_len) == WHERE(path_len) + 2 && WHERE(out_len) == WHERE(path_len) + 4,
	       "one word");

/*
 * Room for the event and its payload is taken in the live block, both in one. Unlocked, since only this thread
 * and its signal handlers take; events of a handler lie behind the one that it interrupted. NULL: there
 * is none, and that is counted.
 */
static inline __attribute__((always_inline)) struct cosy_trace_event *
append_here(const struct call *call, const struct payload *p)
{
	u32 size = (u32)(p->path_len + p->path2_len + p->out_len), heap;
	struct cosy_trace_block *b = self.live;
	u64 taken = (u64)size << 32 | 1;
	struct cosy_trace_event *to;
	u8 *payload;
	u64 flags;

	if (unlikely(full(b, size)))
		b = make_room();
	self.writing++;
	__asm__ volatile("xaddq %0, %1" : "+r"(taken), "+m"(*block_used(b)) : : "memory");
	heap = (u32)(taken >> 32);
	if (unlikely((u32)taken >= EVENTS || heap + size > HEAP_SIZE)) {
		file_lose(self.file, 1);
		self.writing--;
		return NULL;
	}
	to = (struct cosy_trace_event *)(b + 1) + (u32)taken;
	payload = (u8 *)b + LIVE_HEAP + heap;
	// To the event after the next: other calls have less time than it takes.
	fetch(to + 2);
	fetch((const u8 *)(to + 3) - 1);
	to->tsc = call->tsc;
	to->dur = call->dur;
	to->ret = call->ret;
#pragma GCC unroll 6
	for (u32 k = 0; k < 6; k++)
		to->args[k] = call->args[k];
	to->site = call->site;
	*(u64_alias *)&to->path_len = p->path_len | p->path2_len << 16 | p->out_len << 32;
	if (likely(size)) {
		fetch(payload + size + 128);
		keep_put(p, payload);
	}
	// With its flags, which lie between the number and the place in the heap, it is whole.
	flags = call->flags | COSY_EVENT_DONE | (p->cut ? COSY_EVENT_CUT : 0);
	__atomic_store_n((u64_alias *)&to->nr, call->nr | flags << 16 | (u64)heap << 32,
			 __ATOMIC_RELEASE);
	self.writing--;
	return to;
}

static __attribute__((noinline)) struct cosy_trace_event *append(const struct call *call,
								 const struct payload *p)
{
	return append_here(call, p);
}

// --- who is writing ------------------------------------------------------

static size_t read_file(const char *path, char *buf, size_t size)
{
	int fd = (int)sys(__NR_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
	long n;

	if (fd < 0)
		return 0;
	n = sys(__NR_read, fd, buf, size);
	sys(__NR_close, fd);
	return n > 0 ? (size_t)n : 0;
}

static void announce_process(void)
{
	struct call call = { .tsc = rdtsc(), .args = no_args, .nr = COSY_EVENT_PROCESS };
	// One thread at a time gets here: the first of a process.
	static char exe[MAX_PATH_LEN], cwd[MAX_PATH_LEN], argv[MAX_OUT];
	struct payload p = { .path = exe, .path2 = cwd, .out = argv, .how = OUT_BYTES };
	long n = sys(__NR_readlinkat, AT_FDCWD, "/proc/self/exe", exe, sizeof(exe));

	p.path_len = n > 0 ? (size_t)n : 0;
	n = sys(__NR_getcwd, cwd, sizeof(cwd));
	p.path2_len = n > 1 ? (size_t)n - 1 : 0;
	p.out_len = read_file("/proc/self/cmdline", argv, sizeof(argv));
	p.cut = p.out_len == sizeof(argv);
	append(&call, &p);
}

static void announce_modules(void)
{
	for (struct link_map *l = _r_debug.r_map; l; l = l->l_next) {
		u64 args[6] = { l->l_addr };
		struct call call = { .tsc = rdtsc(), .args = args, .nr = COSY_EVENT_MODULE };
		struct payload p = { .path = l->l_name };

		p.path_len = l->l_name ? strlen(l->l_name) : 0;
		if (p.path_len < MAX_PATH_LEN)
			append(&call, &p);
	}
}

// After fork: nothing of the parent's may be written to.
static void child_reset(void)
{
	self = (struct tracer){ 0 };
	parked = (struct tracer){ 0 };
	first_file = NULL;
	announced = false;
	state_set();
}

/*
 * The child of vfork runs on this thread's memory until it execs or exits:
 * its events go to a file of its own, the parent's waits.
 */
static void judge_vfork(void)
{
	int pid = (int)sys(__NR_getpid);

	if (parked.file && pid == parked.pid) {
		close_own();
		self = parked;
		parked = (struct tracer){ 0 };
		self.vforking = false;
	} else if (!parked.file && pid == self.pid) {
		self.vforking = false;
	} else if (!parked.file) {
		parked = self;
		self = (struct tracer){ .vforking = true };
	}
}

static __attribute__((noinline)) bool make_ready(void)
{
	if (sandboxed())
		return false;
	if (*state == STATE_CHILD)
		child_reset();
	if (self.vforking)
		judge_vfork();
	if (self.file)
		return true;
	if (self.failed)
		return false;
	use_file(file_create());
	if (!self.file) {
		self.failed = true;
		return false;
	}
	self.pid = (int)self.file->pid;
	if (!first_file)
		first_file = self.file;
	if (!announced) {
		announced = true;
		announce_process();
	}
	return true;
}

// There is a block of this thread's own.
static inline bool ready(void)
{
	return !self.vforking && self.live;
}

// --- hooks ---------------------------------------------------------------

static bool usable(void)
{
	return (*state != STATE_CHILD && ready()) || make_ready();
}

static bool wanted(void)
{
	if (stopped)
		return false;
	if (usable())
		return true;
	file_lose(NULL, 1);
	return false;
}

// When it began the last time: when the handler's last call ended, or its first had not begun.
static u64 began(u64 tsc)
{
	const struct cosy_trace_block *b = self.live;
	const struct cosy_trace_event *last;

	if (likely(!(tsc & RESUMED)))
		return tsc;
	tsc &= ~RESUMED;
	if (!b || !b->n_events || b->n_events > EVENTS)
		return tsc;
	last = (const struct cosy_trace_event *)(b + 1) + b->n_events - 1;
	return last->flags & COSY_EVENT_DONE && last->tsc + last->dur > tsc ?
		       last->tsc + last->dur :
		       tsc;
}

// A call that does not come back is recorded first.
static struct cosy_trace_event *record_before(const struct regs *r)
{
	struct call call = { rdtsc(), 0, 0, r->a, regs_site(r), (u16)r->nr, COSY_EVENT_NO_RETURN };
	struct payload p = { 0 };
	u8 path = r->nr < COSY_ACTIONS ? kept[r->nr].path : 0;

	if (!wanted())
		return NULL;
	if (path && !sandboxed()) {
		long n = mem_strlen((const char *)r->a[path - 1], MAX_PATH_LEN);

		if (n > 0) {
			p.path = (const char *)r->a[path - 1];
			p.path_len = (size_t)n;
		}
	}
	return append(&call, &p);
}

// Also where something has to be found out first, or under a filter, whose answers may be made up.
static __attribute__((noinline)) void record_apart(const struct regs *r, u64 tsc, u64 end, long ret)
{
	u64 begin = began(tsc);
	struct call call = { begin, end - begin, ret, r->a, regs_site(r), (u16)r->nr, 0 };
	struct payload p = { 0 };

	if (tsc == RECORDED || !wanted())
		return;
	if (r->nr < COSY_ACTIONS && !sandboxed())
		keep(&kept[r->nr], r, ret, &p);
	append(&call, &p);
}

static long trace_exec(struct regs *r)
{
	struct cosy_trace_event *ev = record_before(r);
	long ret;

	mem_forget_all();
	ret = follow_exec(r);
	// Still here: it failed, and the event can say so.
	if (ev && ev->tsc <= rdtsc() && ev->nr == r->nr) {
		ev->ret = ret;
		ev->flags &= (u16)~COSY_EVENT_NO_RETURN;
	}
	return ret;
}

/*
 * Before a handler, which runs before the interrupted call comes back. After one with SA_RESTART the kernel begins the
 * call again, at our instruction: then it has been there before, which leaves the address behind it in rcx.
 * Each beginning is an event, as for strace and ptrace.
 */
static void trace_signal(void *context)
{
	greg_t *was = ((ucontext_t *)context)->uc_mcontext.gregs;
	u64 rip = (u64)was[REG_RIP], begin = (u64)was[REG_R12], now = rdtsc();
	const struct regs *r = (const struct regs *)was[REG_RBX];

	if ((u64)was[REG_RCX] == rip + SYSCALL_SIZE && is_traced_call(rip)) {
		record_apart(r, begin, now, -ERESTARTSYS);
		was[REG_R12] = (greg_t)(now | RESUMED);
	} else if (is_traced_call(rip - SYSCALL_SIZE)) {
		record_apart(r, begin, now, was[REG_RAX]);
		was[REG_R12] = (greg_t)RECORDED;
	}
}

static long trace_sigaction(struct regs *r)
{
	if (sandboxed())
		return signal_action_passed(r);
	mem_forget_all();
	// A child of vfork sets its own, but has our memory.
	return signal_action(r, !stopped && usable() && !self.vforking);
}

// Calls that mean something to the shim itself.
static __attribute__((noinline)) long trace_apart(struct regs *r)
{
	u64 tsc;
	long ret;

	switch (r->nr) {
	case __NR_execve:
	case __NR_execveat:
		return trace_exec(r);
	case __NR_exit:
		record_before(r);
		close_own();
		self.failed = true;
		return sys_regs(r);
	case __NR_exit_group:
		record_before(r);
		return sys_regs(r);
	}
	if ((r->nr == __NR_prctl || r->nr == __NR_seccomp) && is_sandboxing(r))
		*state = STATE_SLOW;
	tsc = rdtsc();
	ret = r->nr == __NR_rt_sigaction ? trace_sigaction(r) : pass_call(r);
	record_apart(r, tsc, rdtsc(), ret);
	return ret;
}

/*
 * What lies between two calls has been pushed out of the processor's first caches by the kernel, so it is short
 * and straight, and nothing of it is called.
 */
static long trace_hook(struct regs *r)
{
	u64 tsc, end;
	long ret;

	if (unlikely(r->nr >= COSY_ACTIONS || cosy_actions[r->nr] == ACTION_APART))
		return trace_apart(r);
	tsc = rdtsc();
	ret = sys_traced(r, &tsc);
	end = rdtsc();
	if (likely(!(tsc & RESUMED) && *state == STATE_QUICK && ready() &&
		   keeps_little(&kept[r->nr]))) {
		struct call call = { tsc, end - tsc, ret, r->a, regs_site(r), (u16)r->nr, 0 };
		struct payload p;

		keep_little(&kept[r->nr], r, ret, &p);
		append_here(&call, &p);
	} else {
		record_apart(r, tsc, end, ret);
	}
	return ret;
}

static void trace_before(struct regs *r)
{
	u64 flags = r->a[0];

	record_before(r);
	// Under a filter nobody can tell: then it is taken for one, and what follows is lost.
	if (r->nr == __NR_clone3 && sandboxed())
		flags = CLONE_VFORK;
	else if (r->nr == __NR_clone3)
		flags = mem_readable((void *)r->a[0], 8) ? *(const u64 *)r->a[0] : 0;
	if (r->nr == __NR_vfork || flags & CLONE_VFORK)
		self.vforking = true;
}

void trace_start(void)
{
	state = (u32 *)sys(__NR_mmap, 0, PAGE_SIZE, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (sys_failed((long)state))
		return;
	if (sys(__NR_madvise, state, PAGE_SIZE, 18 /* MADV_WIPEONFORK */)) {
		sys(__NR_munmap, state, PAGE_SIZE);
		return;
	}
	keep_init();
	stopped = adopt_stopped();
	state_set();
	if (!stopped && !make_ready())
		return;
	if (!stopped)
		announce_modules();
	cosy_hook = trace_hook;
	cosy_hook_before = trace_before;
	cosy_hook_signal = trace_signal;
	memset(cosy_actions, ACTION_SEEN, sizeof(cosy_actions));
	for (u32 i = 0; i < ARRAY_SIZE(apart); i++)
		cosy_actions[apart[i]] = ACTION_APART;
	cosy_actions[__NR_clone] = cosy_actions[__NR_clone3] = cosy_actions[__NR_vfork] =
		COSY_ACTION_CLONE;
	cosy_actions[__NR_rt_sigreturn] = 0;
	actions_changed();
}
