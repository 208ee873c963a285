// SPDX-License-Identifier: MIT
/*
 * The thread that reads directories ahead: depth first, in the order of the program's walk. It holds
 * a descriptor of each directory on the way down, in a table of its own.
 */
#include "ahead_shared.h"

#include <asm/unistd_64.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/futex.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <sys/stat.h>

#include "fence.h"

#define DEPTH 128u
#define KIDS 65536u /* child directories, of all on the way down */
#define TEXT (1u << 20) /* bytes of their names */
#define INODES 8192u /* a power of two */
#define MOST_RUNS 64 /* over one directory */
#define SPINS 400 /* some 20 us */
#define LEAP 3u /* children that are left to the program where it came first */
#define NO_SUBDIRECTORIES                                                                          \
	2 /* links: its name and its "."; file systems that do not count so say 1 */
#define MUCH 10000000u /* ticks: some 4 ms, a few times what the largest directory takes */
#define SELDOM 2u /* times that this happens */
#define IDLE_NS 100000000
#define DT_DIR 4

// A child directory.
struct kid {
	u64 ino, changed;
	u32 text, hash; // where its name is
	bool stable; // reading it changes nothing, not even its access time, unless it changed since
	bool leaf; // it has no child directories
};

// What the executor tells of a directory among the records, by its inode.
struct known_inode {
	u64 ino, changed; // ns, as ctime
	u32 listing; // of which this is true
	bool leaf;
};

// A directory on the way down.
struct frame {
	int fd;
	u32 node;
	bool listed;
	u32 after; // then: go on behind the kid of this hash
	u32 first, next, end; // of its kids
	u32 text; // used before
};

struct ahead_walk {
	struct ahead shared;
	struct frame frames[DEPTH];
	struct kid kids[KIDS];
	char text[TEXT];
	u32 n_kids, n_text;
	u32 seen, seen_passed;
	struct ahead_passed passed;
	bool sorted;
	struct known_inode inodes[INODES]; // stable ones, of one directory at a time
	u32 n_inodes, listing;
	struct ahead_request request;
	_Alignas(PAGE_SIZE) u8 rest[LIST_BYTES];
	struct run_buffers staging;
	_Alignas(PAGE_SIZE) u8 stack[STACK_BYTES];
};

size_t ahead_walk_bytes(void)
{
	return sizeof(struct ahead_walk);
}

static u32 load(const u32 *at)
{
	return __atomic_load_n(at, __ATOMIC_ACQUIRE);
}

// --- names -----------------------------------------------------------------

static u32 hash_of(const char *s, u32 len)
{
	u64 hash = 0, word;

	for (; len >= 8; len -= 8, s += 8)
		hash = name_mix(hash, load_word(s));
	if (len) {
		word = 0;
		memcpy(&word, s, len);
		hash = name_mix(hash, word);
	}
	return name_hash_of(hash);
}

static bool comes_later(const char *a, const char *b)
{
	for (; *a && *a == *b; a++, b++)
		;
	return (u8)*a > (u8)*b;
}

// By D. L. Shell (CACM 2(7), 1959): few, or in order already.
static void sort_kids(struct ahead_walk *w, const struct frame *f)
{
	struct kid *kids = &w->kids[f->first];
	u32 n = f->end - f->first;

	for (u32 gap = n / 2; gap; gap /= 2) {
		for (u32 i = gap; i < n; i++) {
			struct kid kid = kids[i];
			u32 k = i;

			for (; k >= gap &&
			       comes_later(&w->text[kids[k - gap].text], &w->text[kid.text]);
			     k -= gap)
				kids[k] = kids[k - gap];
			kids[k] = kid;
		}
	}
}

// --- one directory ---------------------------------------------------------

static void take_kids(struct ahead_walk *w, const u8 *list, u32 bytes)
{
	const struct dirent64 *e;

	for (u32 at = 0; at < bytes; at += e->reclen) {
		u32 len;

		e = (const void *)(list + at);
		if (e->type != DT_DIR || str_equal(e->name, ".") || str_equal(e->name, ".."))
			continue;
		len = (u32)strlen(e->name) + 1;
		if (w->n_kids == KIDS || w->n_text + len > TEXT || len > 8 * NAME_WORDS)
			return;
		memcpy(&w->text[w->n_text], e->name, len);
		w->kids[w->n_kids++] = (struct kid){
			.ino = e->ino,
			.text = w->n_text,
			.hash = hash_of(e->name, len - 1),
		};
		w->n_text += len;
	}
}

/*
 * All entries, the first read of them into `list`. Bytes of these if they are all, 0 if there are
 * more; -errno.
 */
static long list_entries(struct ahead_walk *w, int fd, u8 *list)
{
	long n = sys(__NR_getdents64, fd, list, w->shared.size), more;

	touch(TOUCH_DIR);
	if (n <= 0)
		return n;
	take_kids(w, list, (u32)n);
	for (;;) {
		more = sys(__NR_getdents64, fd, w->rest, sizeof(w->rest));
		if (more < 0)
			return more;
		if (!more)
			return n;
		take_kids(w, w->rest, (u32)more);
		n = 0;
	}
}

// A moment in nanoseconds.
static u64 in_ns(s64 sec, s64 nsec)
{
	return (u64)sec * 1000000000 + (u64)nsec;
}

// Its place, or the free one where it would be.
static struct known_inode *inode_place(struct ahead_walk *w, u64 ino)
{
	for (u32 at = (u32)((ino * 0x9e3779b97f4a7c15ul) >> 32);; at++) {
		struct known_inode *known = &w->inodes[at % INODES];

		if (known->listing != w->listing || known->ino == ino)
			return known;
	}
}

// The directories among the records, if reading them would not change their access times.
static void note_stable(struct ahead_walk *w, const u8 *page, u32 bytes)
{
	const struct cosy_bpf_child *c;

	for (u32 at = 0; at + sizeof(*c) <= bytes;
	     at += (u32)sizeof(*c) + name_words(c->namelen) * 8) {
		struct known_inode *known;

		c = (const void *)(page + at);
		if (!S_ISDIR(c->mode) || c->flags & COSY_BPF_DECLINE ||
		    !(c->flags & COSY_BPF_ATIME_STABLE) || w->n_inodes >= INODES / 2)
			continue;
		known = inode_place(w, c->ino);
		known->ino = c->ino;
		known->changed = in_ns(c->ctime_sec, c->ctime_nsec);
		known->listing = w->listing;
		known->leaf = c->nlink == NO_SUBDIRECTORIES;
		w->n_inodes++;
	}
}

static void copy_runs(struct run_buffers *to, const struct run_buffers *from)
{
	to->run = from->run;
	for (u32 i = 0; i < COSY_BPF_PAGES; i++)
		memcpy(to->pages[i].data, from->pages[i].data, from->run.used[i]);
}

// The executor runs over it; the first run is kept in *to. For its kids all of it must be run over.
static void run_over(struct ahead_walk *w, const struct frame *f, struct run_buffers *to)
{
	const struct cosy_bpf_run *run = &w->staging.run;
	u32 skip = 0;

	w->listing++;
	w->n_inodes = 0;
	for (int i = 0; i < MOST_RUNS; i++) {
		if (bpf_run(&w->staging, f->fd, skip) < 0)
			return;
		if (!i && to)
			copy_runs(to, &w->staging);
		if (f->first == f->end)
			return;
		for (u32 k = 0; k < COSY_BPF_PAGES; k++)
			note_stable(w, w->staging.pages[k].data, run->used[k]);
		if ((run->status != COSY_BPF_FULL && run->status != COSY_BPF_LIMIT) ||
		    run->seen <= skip)
			break;
		skip = run->seen;
	}
	for (u32 i = f->first; i < f->end; i++) {
		struct kid *kid = &w->kids[i];
		const struct known_inode *known = inode_place(w, kid->ino);

		kid->stable = known->listing == w->listing;
		kid->changed = known->changed;
		kid->leaf = kid->stable && known->leaf;
	}
}

static void forget_kids(struct ahead_walk *w, const struct frame *f)
{
	w->n_kids = f->first;
	w->n_text = f->text;
}

static void note_end(struct prepared *p, u32 bytes)
{
	const struct dirent64 *e;

	for (u32 at = 0; at < bytes; at += e->reclen) {
		e = (const void *)(p->list + at);
		p->position = e->off;
	}
	p->bytes = bytes;
}

// Its kids, and all that there is to know of it into *to unless NULL. False: it cannot be read.
static bool read_frame(struct ahead_walk *w, struct frame *f, struct prepared *to)
{
	long bytes;

	f->listed = true;
	f->first = w->n_kids;
	f->next = w->n_kids;
	f->text = w->n_text;
	bytes = list_entries(w, f->fd, to ? to->list : w->rest);
	f->end = w->n_kids;
	if (bytes >= 0)
		run_over(w, f, to ? &to->runs : NULL);
	if (to && bytes > 0)
		note_end(to, (u32)bytes);
	if (w->sorted)
		sort_kids(w, f);
	return bytes >= 0;
}

// The directory open at fd, which it takes over; goes down into it if it has child directories.
static void read_directory(struct ahead_walk *w, int fd, u32 node, struct prepared *to)
{
	struct frame f = { .fd = fd, .node = node };

	if (!read_frame(w, &f, to) || f.first == f.end || w->shared.depth == DEPTH) {
		forget_kids(w, &f);
		sys(__NR_close, fd);
	} else {
		w->frames[w->shared.depth++] = f;
	}
}

// --- the walk --------------------------------------------------------------

static void pop(struct ahead_walk *w)
{
	const struct frame *f = &w->frames[--w->shared.depth];

	sys(__NR_close, f->fd);
	if (f->listed)
		forget_kids(w, f);
}

// Not into another mount, nor along a link.
static int open_by_name(const struct frame *f, const char *name)
{
	struct open_how how = {
		.flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC,
		.resolve = RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH,
	};

	return (int)sys(__NR_openat2, f->fd, name, &how, sizeof(how));
}

// As it was when its directory was listed, or reading it could move its access time. -1: it is not.
static int open_child(const struct ahead_walk *w, const struct frame *f, const struct kid *kid,
		      struct inode *inode)
{
	int fd = open_by_name(f, &w->text[kid->text]);
	struct stat st;

	if (fd < 0)
		return -1;
	if (sys(__NR_fstat, fd, &st) || st.st_ino != kid->ino ||
	    in_ns(st.st_ctim.tv_sec, st.st_ctim.tv_nsec) != kid->changed) {
		sys(__NR_close, fd);
		return -1;
	}
	*inode = inode_of(&st);
	return fd;
}

static int open_place(const struct ahead_place *place)
{
	u64 flags = O_RDONLY | O_DIRECTORY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
	char path[64] = "";
	struct text text = { .at = path, .size = sizeof(path) };
	long fd;

	if (place->fd >= 0) {
		// Of the process's first thread, which is the program's.
		text_add(&text, "/proc/self/fd/");
		text_dec(&text, (u64)place->fd);
	}
	// The program may have changed it since it was read, or did not read it at all.
	fd = sys(__NR_openat, AT_FDCWD, place->fd >= 0 ? path : place->path, flags | O_NOATIME);
	if (fd == -EPERM && place->scanned)
		fd = sys(__NR_openat, AT_FDCWD, place->fd >= 0 ? path : place->path, flags);
	return (int)fd;
}

// The request, if it is there as a whole.
static bool take_request(struct ahead_walk *w)
{
	struct ahead *a = &w->shared;
	u32 n = load(&a->requested);

	w->seen = n;
	if (n & 1)
		return false;
	w->request = a->request;
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	return load(&a->requested) == n;
}

// Goes on behind this child, if it is one of the directory's.
static bool go_behind(struct ahead_walk *w, struct frame *f, u32 hash)
{
	if (!f->listed) {
		f->after = hash;
		return true;
	}
	for (u32 i = f->next; i < f->end; i++) {
		if (w->kids[i].hash == hash) {
			f->next = i + 1;
			return true;
		}
	}
	return false;
}

// Goes on behind the children that the program is in, and leaves these to it.
static void begin(struct ahead_walk *w)
{
	const struct ahead_request *request = &w->request;

	while (w->shared.depth)
		pop(w);
	if (!take_request(w))
		return;
	w->sorted = request->sorted;
	for (u32 i = request->n; i--;) {
		const struct ahead_place *place = &request->places[i];
		int fd = open_place(place);

		if (fd >= 0)
			w->frames[w->shared.depth++] = (struct frame){
				.fd = fd,
				.node = place->node,
				.after = place->after,
			};
	}
	// Had the program closed one before, this could be another directory.
	while (w->shared.depth && load(&w->shared.cancelled))
		pop(w);
}

static void list_place(struct ahead_walk *w, struct frame *f)
{
	if (!read_frame(w, f, NULL) || !go_behind(w, f, f->after))
		pop(w);
}

static void leap(struct frame *f)
{
	f->next = f->end - f->next > LEAP ? f->next + LEAP : f->end;
}

// By the time that this directory is read, the program is some children further.
static void enter(struct ahead_walk *w, struct frame *f, const struct ahead_passed *passed)
{
	const struct kid *kid = &w->kids[f->next - 1];
	u32 depth = w->shared.depth;
	struct inode inode;
	int fd = kid->stable && !kid->leaf ? open_child(w, f, kid, &inode) : -1;

	if (fd >= 0 && inode_equal(inode, passed->inode))
		read_directory(w, fd, passed->node, NULL);
	else if (fd >= 0)
		sys(__NR_close, fd);
	leap(w->shared.depth > depth ? &w->frames[depth] : f);
}

// The one before the next.
static bool is_kid(const struct ahead_walk *w, const struct frame *f, const struct name *name)
{
	const char *text = &w->text[w->kids[f->next - 1].text];

	return strlen(text) == name->len && same_bytes(text, name->words, name->len);
}

/*
 * The program came to a child first: what is before that, it did itself or does not want. Into the
 * last of these the thread goes with it.
 */
static void follow(struct ahead_walk *w, const struct ahead_passed *passed, bool last)
{
	for (u32 i = w->shared.depth; i--;) {
		struct frame *f = &w->frames[i];

		if (f->node != passed->parent)
			continue;
		if (!go_behind(w, f, passed->name.hash))
			return;
		while (w->shared.depth > i + 1)
			pop(w);
		if (last && f->listed && is_kid(w, f, &passed->name))
			enter(w, f, passed);
		return;
	}
}

static void catch_up(struct ahead_walk *w)
{
	const struct ahead *a = &w->shared;
	struct ahead_passed *passed = &w->passed;
	u32 n = load(&a->n_passed);

	if (n - w->seen_passed > PASSED)
		w->seen_passed = n - PASSED;
	for (; w->seen_passed != n; w->seen_passed++) {
		*passed = a->passed[w->seen_passed % PASSED];
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
		// Or else the program may have written another over it meanwhile.
		if (load(&a->n_passed) - w->seen_passed < PASSED)
			follow(w, passed, w->seen_passed + 1 == n);
	}
}

// Places that the program still has are passed over.
static bool has_room(struct ahead *a)
{
	while (a->tail - load(&a->head) < LEAD) {
		if (load(&a->prepared[a->tail % PREPARED].state) == PREPARED_FREE)
			return true;
		__atomic_store_n(&a->tail, a->tail + 1, __ATOMIC_RELEASE);
	}
	return false;
}

// As results_begin() does, in this order. False: a run would be of no epoch.
static bool begin_run(struct run_start *start)
{
	start->epoch = epoch_now();
	for (u32 i = 0; i < TOUCHES; i++)
		start->touches[i] = touched(i);
	start->tsc = rdtsc();
	return !mutation_in_flight();
}

static void finish(struct prepared *p)
{
	u32 state = PREPARED_WORKING;

	if (!__atomic_compare_exchange_n(&p->state, &state, PREPARED_READY, false, __ATOMIC_ACQ_REL,
					 __ATOMIC_ACQUIRE))
		__atomic_store_n(&p->state, PREPARED_FREE, __ATOMIC_RELEASE);
}

// The next child directory, or the way up. False: not now.
static bool step(struct ahead_walk *w)
{
	struct ahead *a = &w->shared;
	struct frame *f;
	struct prepared *p;
	const struct kid *kid;
	int fd;

	catch_up(w);
	f = &w->frames[w->shared.depth - 1];
	if (!f->listed) {
		list_place(w, f);
		return true;
	}
	kid = &w->kids[f->next];
	if (f->next == f->end) {
		pop(w);
		return true;
	}
	if (!kid->stable) {
		f->next++;
		return true;
	}
	if (!has_room(a))
		return false;
	p = &a->prepared[a->tail % PREPARED];
	if (!begin_run(&p->start))
		return false;
	f->next++;
	p->name.len = (u32)strlen(&w->text[kid->text]);
	p->name.hash = kid->hash;
	p->name.words[p->name.len / 8] = 0;
	memcpy(p->name.words, &w->text[kid->text], p->name.len);
	p->node = new_node(a);
	p->parent = f->node;
	p->bytes = 0;
	p->inode = (struct inode){ 0 };
	p->runs.run.status = COSY_BPF_NOT_RUN;
	__atomic_store_n(&p->state, PREPARED_WORKING, __ATOMIC_RELEASE);
	__atomic_store_n(&a->tail, a->tail + 1, __ATOMIC_RELEASE);
	fd = open_child(w, f, kid, &p->inode);
	if (fd >= 0)
		read_directory(w, fd, p->node, p);
	finish(p);
	return true;
}

static bool has_work(struct ahead_walk *w)
{
	struct ahead *a = &w->shared;

	return load(&a->stop) || load(&a->requested) != w->seen || (w->shared.depth && has_room(a));
}

// Until there is something to do. False: there was nothing for long.
static bool wait(struct ahead_walk *w)
{
	struct timespec64 {
		s64 sec, nsec;
	} idle = { .nsec = IDLE_NS };
	struct ahead *a = &w->shared;
	long ret = 0;
	u32 wake;

	for (u32 i = 0; i < SPINS; i++) {
		if (has_work(w))
			return true;
		__builtin_ia32_pause();
	}
	wake = load(&a->wake);
	__atomic_store_n(&a->asleep, 1, __ATOMIC_SEQ_CST);
	if (!has_work(w))
		ret = sys(__NR_futex, &a->wake, FUTEX_WAIT_PRIVATE, wake,
			  w->shared.depth ? &idle : NULL);
	__atomic_store_n(&a->asleep, 0, __ATOMIC_SEQ_CST);
	return ret != -ETIMEDOUT;
}

// Where the program is, it would only be in the way. What wakes a thread likes to have it there.
static void step_aside(struct ahead_walk *w)
{
	u32 cpu = load(&w->shared.cpu);
	u64 mask[CPUS / 64];

	if (likely(cpu != cpu_now()) || cpu >= CPUS)
		return;
	memcpy(mask, w->shared.cpus, sizeof(mask));
	mask[cpu / 64] &= ~(1ul << cpu % 64);
	sys(__NR_sched_setaffinity, 0, sizeof(mask), mask);
}

// What small directories need: a fault for each of these pages would make the thread late at first.
static void populate(struct ahead_walk *w)
{
	for (u32 i = 0; i < PREPARED; i++) {
		struct prepared *p = &w->shared.prepared[i];

		sys(__NR_madvise, p, PAGE_SIZE + 2 * PAGE_SIZE, 23 /* MADV_POPULATE_WRITE */);
		sys(__NR_madvise, PAGE_DOWN(&p->runs), 3 * PAGE_SIZE, 23);
	}
}

// Are there more that want a processor than there are processors, the program and this thread included?
static bool machine_is_busy(const struct ahead_walk *w)
{
	char text[64] = "", *at = text;
	u64 running = 0;
	int fd = (int)sys(__NR_openat, AT_FDCWD, "/proc/loadavg", O_RDONLY | O_CLOEXEC);

	sys(__NR_read, fd, text, sizeof(text) - 1);
	sys(__NR_close, fd);
	// Three averages, then "running/all".
	for (int i = 0; *at && i < 3; at++)
		i += *at == ' ';
	for (; *at >= '0' && *at <= '9'; at++)
		running = running * 10 + (u64)(*at - '0');
	return running > w->shared.n_cpus;
}

// One thing after the other, until the thread is told to stop or is in the way of others.
static void work(struct ahead_walk *w)
{
	u64 last = rdtsc();
	u32 late = 0;

	while (!load(&w->shared.stop)) {
		step_aside(w);
		if (load(&w->shared.requested) != w->seen) {
			begin(w);
			__atomic_store_n(&w->shared.begun, w->seen, __ATOMIC_RELEASE);
		} else if (!(w->shared.depth && step(w))) {
			if (!wait(w))
				while (w->shared.depth)
					pop(w);
			last = rdtsc();
		}
		// Others had the processor: what is half done may keep the program waiting.
		if (rdtsc() - last > MUCH && ++late > SELDOM && fence_on(FENCE_ACCOUNT))
			return;
		last = rdtsc();
	}
}

void ahead_walk(void *arg)
{
	struct ahead_walk *w = arg;

	w->shared.depth = 0;
	w->n_kids = 0;
	w->n_text = 0;
	w->seen = 0;
	// Nothing of the program's stays open because of us, and none of our numbers is one of its own.
	if (sys(__NR_close_range, 0, ~0u, CLOSE_RANGE_UNSHARE) ||
	    (fence_on(FENCE_ACCOUNT) && machine_is_busy(w)))
		return;
	populate(w);
	work(w);
}
