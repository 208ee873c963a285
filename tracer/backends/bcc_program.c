// SPDX-License-Identifier: MIT
/*
 * Compiled by bcc at run time (tracer/backends/bcc.py). Needs no kernel structure: registers come
 * from the raw tracepoints of system calls, whose layout is the ABI's, the rest from the fields
 * that tracefs describes.
 *
 * Followed are the tasks in `threads`. Each call becomes one record of the ring buffer
 * (tracer/stream.py), written at its end.
 */
struct registers { // struct pt_regs of x86-64
	u64 r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs;
};

// A task is WAITING for its exec (nothing is recorded yet), NEW (made by a followed one, it has not
// done anything), or FOLLOWED, and in no call: NO_CALL.
#define NEW 1
#define USER_CS 0x33 // 64-bit code

struct thread {
	u64 start_ns;
	u64 args[6];
	u64 site;
	u32 ppid;
	u16 nr;
	u16 state;
};

struct record {
	u32 pid, tid;
	u64 start_ns, dur_ns, ret;
	u64 args[6];
	u64 site;
	u16 nr, flags;
	u32 heap;
	u16 path_len, path2_len;
	u32 out_len;
	u8 payload[2 * MAX_PATH_LEN + MAX_OUT];
};
#define FIXED 104

BPF_HASH(threads, u32, struct thread, MAX_THREADS);
BPF_ARRAY(kept, u32, 512); // path, path2, out: argument + 1; kind of out
BPF_ARRAY(scratch, struct record, CPUS);
BPF_ARRAY(lost, u64, 1);
BPF_RINGBUF_OUTPUT(ring, RING_PAGES);

static inline struct record *begin(const struct thread *t)
{
	int cpu = bpf_get_smp_processor_id();
	struct record *r = scratch.lookup(&cpu);
	u64 id = bpf_get_current_pid_tgid();

	if (!r)
		return 0;
	r->pid = id >> 32;
	r->tid = (u32)id;
	r->start_ns = t->start_ns;
	r->dur_ns = 0;
	r->ret = 0;
	__builtin_memcpy(r->args, t->args, sizeof(r->args));
	r->site = t->site;
	r->nr = t->nr;
	r->flags = DONE;
	r->heap = 0;
	r->path_len = r->path2_len = 0;
	r->out_len = 0;
	return r;
}

// Keeps the compiler from proving a bound away that the verifier must see.
#define OPAQUE(x) asm volatile("" : "+r"(x))

static inline void send(struct record *r, u64 size)
{
	OPAQUE(size);
	if (size > sizeof(r->payload) || ring.ringbuf_output(r, FIXED + size, BPF_RB_NO_WAKEUP)) {
		int zero = 0;
		u64 *n = lost.lookup(&zero);

		if (n)
			__sync_fetch_and_add(n, 1);
	}
}

// Up to MAX_PATH_LEN - 1 bytes at payload[at]; returns how many.
static inline u64 string(struct record *r, u64 at, u64 from)
{
	s64 n;

	OPAQUE(at);
	at &= MAX_PATH_LEN - 1;
	n = bpf_probe_read_user_str(&r->payload[at], MAX_PATH_LEN, (void *)from);
	return n > 1 && n <= MAX_PATH_LEN ? n - 1 : 0;
}

// Argument number `which`, counted from 1.
static inline u64 argument(const struct thread *t, u64 which)
{
	which--;
	OPAQUE(which);
	return which < 6 ? t->args[which] : 0;
}

// A process says that it is there; args[1]: by an exec, of the file that is in the payload already.
static inline void announce(const struct thread *t, u64 exec, u64 path_len)
{
	struct record *r = begin(t);

	if (!r)
		return;
	r->start_ns = bpf_ktime_get_ns();
	r->nr = NR_PROCESS;
	r->args[0] = t->ppid;
	r->args[1] = exec;
	r->path_len = path_len;
	send(r, path_len);
}

// A task is seen for the first time: if it is a process, it says so.
static inline void first(struct thread *t)
{
	u64 id = bpf_get_current_pid_tgid();

	t->state = FOLLOWED;
	t->nr = NO_CALL;
	if (id >> 32 == (u32)id)
		announce(t, 0, 0);
}

// The words of an exec, for processes that are gone before anybody looks into /proc.
static inline void words(struct thread *t)
{
	struct record *r = begin(t);
	u64 from = t->nr == NR_EXECVE ? t->args[1] : t->args[2];
	u64 at = 0;

	if (!r)
		return;
	r->nr = NR_ARGV;
#pragma unroll
	for (int i = 0; i < MAX_WORDS; i++) {
		u64 word = 0;
		s64 n;

		bpf_probe_read_user(&word, sizeof(word), (void *)(from + i * 8));
		if (!word)
			break;
		OPAQUE(at);
		at &= MAX_PATH_LEN - 1;
		n = bpf_probe_read_user_str(&r->payload[at], MAX_WORD, (void *)word);
		if (n > 0 && n <= MAX_WORD)
			at += n;
	}
	OPAQUE(at);
	at &= 2 * MAX_PATH_LEN - 1;
	r->out_len = at;
	send(r, at);
}

struct out_stat { // struct cosy_out_stat
	u64 dev, ino, size;
	u32 mode, nlink;
};

struct stat_head { // of struct stat
	u64 dev, ino, nlink;
	u32 mode, uid, gid, pad;
	u64 rdev, size;
};

struct statx_head { // of struct statx
	u32 mask, blksize;
	u64 attributes;
	u32 nlink, uid, gid;
	u16 mode, pad;
	u64 ino, size, more[11];
	u32 dev_major, dev_minor;
};

// What the call returned goes to payload[at]; returns how many bytes.
static inline u64 output(struct record *r, u64 at, u32 kind, u64 ret, u64 from)
{
	u64 size = 8; // two descriptors

	if (kind == OUT_STAT) {
		struct out_stat *to = (void *)&r->payload[at];
		struct stat_head st;

		if (bpf_probe_read_user(&st, sizeof(st), (void *)from))
			return 0;
		to->dev = st.dev;
		to->ino = st.ino;
		to->size = st.size;
		to->mode = st.mode;
		to->nlink = st.nlink;
		return sizeof(*to);
	}
	if (kind == OUT_STATX) {
		struct out_stat *to = (void *)&r->payload[at];
		struct statx_head st;

		if (bpf_probe_read_user(&st, sizeof(st), (void *)from))
			return 0;
		to->dev = (st.dev_minor & 0xff) | (u64)(st.dev_major & 0xfff) << 8 |
			  (u64)(st.dev_minor & ~0xff) << 12;
		to->ino = st.ino;
		to->size = st.size;
		to->mode = st.mode;
		to->nlink = st.nlink;
		return sizeof(*to);
	}
	if (kind == OUT_DIRENTS) {
		size = ret > MAX_OUT ? MAX_OUT : ret;
		r->flags |= RAW_DIRENTS;
	}
	OPAQUE(size);
	if (size > MAX_OUT || bpf_probe_read_user(&r->payload[at], size, (void *)from))
		return 0;
	return size;
}

static inline bool path_was_read(long ret)
{
	return ret >= 0 || ret == -1 || ret == -2 || ret == -13 || ret == -17 || ret == -20 ||
	       ret == -21 || ret == -30 || ret == -39 || ret == -40 || ret == -61;
}

RAW_TRACEPOINT_PROBE(sys_enter)
{
	u32 tid = (u32)bpf_get_current_pid_tgid();
	struct thread *t = threads.lookup(&tid);
	struct registers regs;
	u64 nr = ctx->args[1];
	struct record *r;

	if (!t || (t->state == WAITING && nr != NR_EXECVE && nr != NR_EXECVEAT))
		return 0;
	if (t->state == NEW)
		first(t);
	bpf_probe_read_kernel(&regs, sizeof(regs), (void *)ctx->args[0]);
	if (regs.cs != USER_CS || nr >= 512) {
		t->nr = NO_CALL;
		return 0;
	}
	t->args[0] = regs.di;
	t->args[1] = regs.si;
	t->args[2] = regs.dx;
	t->args[3] = regs.r10;
	t->args[4] = regs.r8;
	t->args[5] = regs.r9;
	t->site = regs.ip;
	t->nr = nr;
	if (nr == NR_EXECVE || nr == NR_EXECVEAT)
		words(t);
	t->start_ns = bpf_ktime_get_ns();
	if (nr == NR_EXIT || nr == NR_EXIT_GROUP) {
		r = begin(t);
		if (r) {
			r->flags = DONE | NO_RETURN;
			send(r, 0);
		}
		t->nr = NO_CALL;
	}
	return 0;
}

RAW_TRACEPOINT_PROBE(sys_exit)
{
	u64 now = bpf_ktime_get_ns();
	u32 tid = (u32)bpf_get_current_pid_tgid();
	struct thread *t = threads.lookup(&tid);
	long ret = ctx->args[1];
	struct record *r;
	u64 at = 0;
	u32 *what;
	int nr;

	if (!t || t->state == WAITING)
		return 0;
	if (t->state == NEW)
		first(t);
	nr = t->nr;
	if (nr == NO_CALL)
		return 0;
	t->nr = NO_CALL;
	r = begin(t);
	what = kept.lookup(&nr);
	if (!r || !what)
		return 0;
	r->nr = nr;
	r->dur_ns = now - t->start_ns;
	r->ret = ret;
	if (*what) {
		u32 path = *what & 15, path2 = *what >> 4 & 15, out = *what >> 8 & 15;
		u32 kind = *what >> 12 & 15;

		if (path && path_was_read(ret))
			at = r->path_len = string(r, 0, argument(t, path));
		if (path2 && path_was_read(ret)) {
			r->path2_len = string(r, at, argument(t, path2));
			at += r->path2_len;
		}
		if (out && ret >= 0) {
			OPAQUE(at);
			at &= 2 * MAX_PATH_LEN - 1;
			r->out_len = output(r, at, kind, ret, argument(t, out));
			at += r->out_len;
		}
	}
	send(r, at);
	return 0;
}

TRACEPOINT_PROBE(sched, sched_process_fork)
{
	u64 id = bpf_get_current_pid_tgid();
	u32 tid = (u32)id, child = args->child_pid;
	struct thread *t = threads.lookup(&tid), made = {};

	if (!t || t->state == WAITING)
		return 0;
	made.ppid = id >> 32;
	made.state = NEW;
	made.nr = NO_CALL;
	if (threads.update(&child, &made)) {
		int zero = 0;
		u64 *n = lost.lookup(&zero);

		if (n)
			__sync_fetch_and_add(n, 1);
	}
	return 0;
}

TRACEPOINT_PROBE(sched, sched_process_exec)
{
	u32 tid = args->pid, old = args->old_pid;
	struct thread *t = threads.lookup(&old), now;
	struct record *r;
	u64 len = 0;
	s64 n;

	if (!t)
		return 0;
	now = *t;
	if (old != tid)
		threads.delete(&old);
	r = begin(&now);
	if (r) {
		n = bpf_probe_read_kernel_str(r->payload, MAX_PATH_LEN,
					      (void *)args + (args->data_loc_filename & 0xffff));
		len = n > 1 && n <= MAX_PATH_LEN ? n - 1 : 0;
		r->tid = old;
		r->flags = DONE | NO_RETURN;
		r->path_len = len;
		if (now.state != WAITING)
			send(r, len);
	}
	now.state = FOLLOWED;
	now.nr = NO_CALL;
	announce(&now, 1, len);
	threads.update(&tid, &now);
	return 0;
}

TRACEPOINT_PROBE(sched, sched_process_exit)
{
	u32 tid = (u32)bpf_get_current_pid_tgid();
	struct thread *t = threads.lookup(&tid);
	struct record *r;

	if (!t)
		return 0;
	r = begin(t);
	if (r && t->state != WAITING) {
		r->start_ns = bpf_ktime_get_ns();
		r->nr = EVENT_EXIT;
		r->args[3] = 0; // what else is known of it: nothing
		send(r, 0);
	}
	threads.delete(&tid);
	return 0;
}
