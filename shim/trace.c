// SPDX-License-Identifier: MIT
/*
 * The tracing mode: every call becomes an event of its thread's raw file
 * (kmod/uapi/cosy_trace.h). The live block is a shared mapping of the file,
 * so that a killed thread loses nothing; a full one is appended with a single
 * write. No other process takes part, so nothing waits and nothing is lost
 * but for want of space, which is counted.
 *
 * Cost: one event is 60 to 100 ns. Of 100 ns of dd's, 17 are two time stamps, 6 the way here, and
 * 45 are the kernel's, for new pages of the file (bench/tracing.py, CPU time of dd). A file
 * that is mapped all along costs 62-82 ns in page faults alone.
 */
#include <asm/unistd_64.h>
#include <fcntl.h>
#include <link.h>
#include <linux/sched.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "adopt.h"
#include "mem.h"
#include "shim.h"
#include "syscall_table.h"
#include "trace_file.h"

// What a signal handler's event may need on top of the one it interrupts.
#define SPARE_EVENTS 32
#define SPARE_HEAP (2 * MAX_PAYLOAD)
#define MAX_PATH_LEN 4096
#define MAX_OUT 8192
#define MAX_PAYLOAD (2 * MAX_PATH_LEN + MAX_OUT)

struct tracer {
	struct cosy_trace_header *file; // NULL: not open yet
	int pid;
	u32 writing; // appends in progress: more than one in signal handlers
	bool failed; // no file to be had: events are lost
	bool vforking; // between vfork and the parent's first own call
};

static __thread struct tracer self;
// The parent's tracer while its vfork child borrows the thread's memory.
static __thread struct tracer parked;

// Zero in a child of fork, which must not write to its parent's files.
static u32 *alive;
static bool announced; // this process has told who it is
static bool stopped; // nobody wants to know more

// By call number: which arguments hold what is worth keeping.
struct kept {
	u8 path, path2, out; // argument index + 1; 0: none
	// COSY_ARGT_STAT_OUT, COSY_ARGT_STATX_OUT, COSY_ARGT_DIRENTS_OUT; PTR: two descriptors
	u8 out_type;
};
static struct kept kept[COSY_NR_MAX];

static void close_own(void)
{
	if (self.file)
		file_close(self.file);
	self.file = NULL;
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

// What an event carries besides its registers.
struct payload {
	const char *path, *path2;
	const void *out;
	size_t path_len, path2_len, out_len;
	bool names; // out is a getdents64 buffer: its names' hashes are kept
	bool cut;
};

static inline void payload_init(struct payload *p)
{
	p->path_len = p->path2_len = p->out_len = 0;
	p->names = p->cut = false;
}

// Unlocked: only this thread and its signal handlers count here.
static u32 take(u32 *counter, u32 n)
{
	__asm__ volatile("xaddl %0, %1" : "+r"(n), "+m"(*counter) : : "memory");
	return n;
}

static bool full(const struct cosy_trace_block *b)
{
	return b->n_events + SPARE_EVENTS > EVENTS ||
	       b->heap_bytes + MAX_PAYLOAD + SPARE_HEAP > HEAP_SIZE;
}

static bool is_dot(const char *name)
{
	return name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2]));
}

static size_t count_names(const u8 *buf, size_t len)
{
	size_t n = 0;

	for (size_t at = 0; at < len; at += ((const struct dirent64 *)(buf + at))->reclen)
		n += !is_dot(((const struct dirent64 *)(buf + at))->name);
	return n;
}

// `len` bytes of hashes, straight into the heap: stacks may be small.
static void put_names(const u8 *buf, u8 *to, size_t len)
{
	for (size_t n = 0; n < len;) {
		const struct dirent64 *d = (const void *)buf;
		u32 hash = COSY_FNV_BASIS;

		buf += d->reclen;
		if (is_dot(d->name))
			continue;
		for (const char *s = d->name; *s; s++)
			hash = (hash ^ (u8)*s) * COSY_FNV_PRIME;
		hash = (hash & ~15u) | (d->type & 15u);
		__builtin_memcpy(to + n, &hash, sizeof(hash));
		n += sizeof(hash);
	}
}

// Most payloads are a name or 32 bytes: "rep movsb" takes longer to start than these to copy.
static inline void put(u8 *to, const void *from, size_t n)
{
	const u8 *p = from;

	for (; n >= 8; n -= 8, p += 8, to += 8)
		__builtin_memcpy(to, p, 8);
	for (; n; n--)
		*to++ = *p++;
}

static struct cosy_trace_event *append(const struct call *call, const struct payload *p)
{
	struct cosy_trace_header *file = self.file;
	struct cosy_trace_block *b = file_live(file);
	u32 size = (u32)(p->path_len + p->path2_len + p->out_len);
	struct cosy_trace_event *to;
	u32 i, heap;
	u8 *at;

	if (unlikely(full(b))) {
		// In a handler, over a half-written event: leave that file as it is.
		if (self.writing) {
			struct cosy_trace_header *next = file_create();

			if (next)
				self.file = file = next;
		} else {
			file_flush(file);
			stopped = stopped || adopt_stopped();
		}
		b = file_live(file);
	}
	self.writing++;
	i = take(&b->n_events, 1);
	heap = take(&b->heap_bytes, size);
	if (unlikely(i >= EVENTS || heap + size > HEAP_SIZE)) {
		file_lose(file, 1);
		self.writing--;
		return NULL;
	}
	to = (struct cosy_trace_event *)(b + 1) + i;
	to->flags = 0;
	at = (u8 *)b + LIVE_HEAP + heap;
	put(at, p->path, p->path_len);
	put(at + p->path_len, p->path2, p->path2_len);
	at += p->path_len + p->path2_len;
	if (p->names)
		put_names(p->out, at, p->out_len);
	else
		put(at, p->out, p->out_len);
	to->tsc = call->tsc;
	to->dur = call->dur;
	to->ret = call->ret;
	for (u32 k = 0; k < 6; k++)
		to->args[k] = call->args[k];
	to->site = call->site;
	to->nr = call->nr;
	to->heap = heap;
	to->path_len = (u16)p->path_len;
	to->path2_len = (u16)p->path2_len;
	to->out_len = (u32)p->out_len;
	__atomic_store_n(&to->flags, call->flags | COSY_EVENT_DONE | (p->cut ? COSY_EVENT_CUT : 0),
			 __ATOMIC_RELEASE);
	self.writing--;
	return to;
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
	struct payload p = { .path = exe, .path2 = cwd, .out = argv };
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
	*alive = 1;
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

static bool ready(void)
{
	if (unlikely(!*alive))
		child_reset();
	if (unlikely(self.vforking))
		judge_vfork();
	if (likely(self.file))
		return true;
	if (self.failed)
		return false;
	self.file = file_create();
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

// --- what to keep --------------------------------------------------------

/*
 * The kernel had read the path before it gave this answer, so it can be read.
 * Other errors may have come first, with any pointer.
 */
static bool path_was_read(long ret)
{
	switch (ret) {
	case -1: // EPERM
	case -2: // ENOENT
	case -13: // EACCES
	case -17: // EEXIST
	case -20: // ENOTDIR
	case -21: // EISDIR
	case -30: // EROFS
	case -39: // ENOTEMPTY
	case -40: // ELOOP
	case -61: // ENODATA
		return true;
	}
	return ret >= 0;
}

static void keep_string(const char *s, const char **to, size_t *len, bool *cut)
{
	size_t n = 0;

	if (!s)
		return;
	while (n < MAX_PATH_LEN && s[n])
		n++;
	*cut = *cut || n == MAX_PATH_LEN;
	*to = s;
	*len = n;
}

static size_t keep_stat(const struct kept *k, const struct regs *r, struct cosy_out_stat *out)
{
	const void *from = (const void *)r->a[k->out - 1];

	if (k->out_type == COSY_ARGT_STAT_OUT) {
		const struct stat *st = from;

		*out = (struct cosy_out_stat){ st->st_dev, st->st_ino, (u64)st->st_size,
					       st->st_mode, (u32)st->st_nlink };
	} else {
		const struct statx *st = from;
		u64 dev = (st->stx_dev_minor & 0xffu) | (st->stx_dev_major & 0xfffu) << 8 |
			  (u64)(st->stx_dev_minor & ~0xffu) << 12;

		*out = (struct cosy_out_stat){ dev, st->stx_ino, st->stx_size, st->stx_mode,
					       st->stx_nlink };
	}
	return sizeof(*out);
}

static void keep(const struct regs *r, long ret, struct payload *p, struct cosy_out_stat *st)
{
	const struct kept *k = &kept[r->nr];

	if (path_was_read(ret)) {
		if (k->path)
			keep_string((const char *)r->a[k->path - 1], &p->path, &p->path_len,
				    &p->cut);
		if (k->path2)
			keep_string((const char *)r->a[k->path2 - 1], &p->path2, &p->path2_len,
				    &p->cut);
	}
	if (!k->out || ret < 0)
		return;
	if (k->out_type == COSY_ARGT_DIRENTS_OUT) {
		p->names = true;
		p->out = (const void *)r->a[k->out - 1];
		p->out_len = count_names(p->out, (size_t)ret) * sizeof(u32);
		p->cut = p->cut || p->out_len > MAX_OUT;
		p->out_len = p->out_len > MAX_OUT ? MAX_OUT : p->out_len;
	} else if (k->out_type == COSY_ARGT_PTR) {
		p->out = (const void *)r->a[k->out - 1];
		p->out_len = 2 * sizeof(s32);
	} else {
		p->out = st;
		p->out_len = keep_stat(k, r, st);
	}
}

// --- hooks ---------------------------------------------------------------

// A call that does not come back is recorded first.
static struct cosy_trace_event *record_before(const struct regs *r)
{
	struct call call = { rdtsc(), 0, 0, r->a, regs_site(r), (u16)r->nr, COSY_EVENT_NO_RETURN };
	struct payload p = { 0 };
	u8 path = r->nr < COSY_NR_MAX ? kept[r->nr].path : 0;

	if (stopped)
		return NULL;
	if (!ready()) {
		file_lose(NULL, 1);
		return NULL;
	}
	if (path) {
		long n = mem_strlen((const char *)r->a[path - 1], MAX_PATH_LEN);

		if (n > 0) {
			p.path = (const char *)r->a[path - 1];
			p.path_len = (size_t)n;
		}
	}
	return append(&call, &p);
}

static void record(const struct regs *r, u64 tsc, long ret)
{
	struct call call = { tsc, rdtsc() - tsc, ret, r->a, regs_site(r), (u16)r->nr, 0 };
	struct cosy_out_stat st;
	struct payload p;

	if (unlikely(stopped))
		return;
	if (unlikely(!ready())) {
		file_lose(NULL, 1);
		return;
	}
	payload_init(&p);
	if (likely(r->nr < COSY_NR_MAX))
		keep(r, ret, &p, &st);
	append(&call, &p);
}

static long trace_exec(struct regs *r)
{
	struct cosy_trace_event *ev = record_before(r);
	long ret;

	mem_forget();
	ret = follow_exec(r);
	// Still here: it failed, and the event can say so.
	if (ev && ev->tsc <= rdtsc() && ev->nr == r->nr) {
		ev->ret = ret;
		ev->flags &= (u16)~COSY_EVENT_NO_RETURN;
	}
	return ret;
}

static long trace_hook(struct regs *r)
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
	case __NR_prctl:
		sandboxed = sandboxed || r->a[0] == 22 /* PR_SET_SECCOMP */;
		break;
	case __NR_seccomp:
		sandboxed = sandboxed || r->a[0] <= 1 /* SET_MODE_STRICT, _FILTER */;
		break;
	}
	tsc = rdtsc();
	ret = r->nr == __NR_mmap ? follow_mmap(r) : sys_regs(r);
	record(r, tsc, ret);
	return ret;
}

static void trace_before(struct regs *r)
{
	u64 flags = r->a[0];

	record_before(r);
	if (r->nr == __NR_clone3)
		flags = mem_readable((void *)r->a[0], 8) ? *(const u64 *)r->a[0] : 0;
	if (r->nr == __NR_vfork || flags & CLONE_VFORK)
		self.vforking = true;
}

static void find_kept(void)
{
	for (u32 nr = 0; nr < COSY_NR_MAX; nr++) {
		for (u32 i = 0; i < cosy_syscalls[nr].n_args; i++) {
			u8 type = cosy_syscalls[nr].args[i];

			if (type == COSY_ARGT_PATH && !kept[nr].path)
				kept[nr].path = (u8)(i + 1);
			else if ((type == COSY_ARGT_PATH2 || type == COSY_ARGT_NAME) &&
				 !kept[nr].path2)
				kept[nr].path2 = (u8)(i + 1);
			else if (type == COSY_ARGT_STAT_OUT || type == COSY_ARGT_STATX_OUT ||
				 type == COSY_ARGT_DIRENTS_OUT) {
				kept[nr].out = (u8)(i + 1);
				kept[nr].out_type = type;
			}
		}
	}
	kept[__NR_pipe] = kept[__NR_pipe2] = (struct kept){ .out = 1, .out_type = COSY_ARGT_PTR };
	kept[__NR_socketpair] = (struct kept){ .out = 4, .out_type = COSY_ARGT_PTR };
}

void trace_start(void)
{
	alive = (u32 *)sys(__NR_mmap, 0, PAGE_SIZE, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (sys_failed((long)alive))
		return;
	if (sys(__NR_madvise, alive, PAGE_SIZE, 18 /* MADV_WIPEONFORK */)) {
		sys(__NR_munmap, alive, PAGE_SIZE);
		return;
	}
	*alive = 1;
	find_kept();
	stopped = adopt_stopped();
	if (!stopped && !ready())
		return;
	if (!stopped)
		announce_modules();
	cosy_hook = trace_hook;
	cosy_hook_before = trace_before;
	memset(cosy_actions, 1, sizeof(cosy_actions));
	cosy_actions[__NR_rt_sigreturn] = 0;
}
