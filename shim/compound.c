// SPDX-License-Identifier: MIT
/*
 * A compound's life in one process. It fires at the nth matching call within
 * a directory, and each firing in the same directory needs twice as many
 * calls as the one before. An account in ticks of the time stamp counter
 * holds what it saved against what it cost; a compound that loses is switched
 * off, for longer each time, so that the loss is bounded.
 */
#include "compound.h"

#include <asm/unistd_64.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "answer.h"
#include "dirs.h"
#include "executor.h"
#include "fence.h"
#include "stats.h"
#include "syscall_table.h"

#define MOST_DOUBLINGS 10
#define RESULTS_PER_DIR (3u << 20) // bytes: most of all there is room for
// The account's bounds, in ticks: about 0.5 ms of loss, and credit for no more than 2 ms.
#define LOSS_LIMIT (-1500 * 1000)
#define CREDIT_LIMIT (6 * 1000 * 1000)
#define FRUITLESS 2048 // calls in a row that nothing answered: time to rest
#define FIRST_REST 256 // reads of directory entries
#define LONGEST_REST (1u << 18)
#define USUAL_TICKS 3000 // of a call to the kernel, before any was timed
#define SERVED_SHIFT 24
#define SERVED_KINDS 8
#define DT_DIR 4
#define BYTES_PER_RECORD 112 // an estimate: 80 and a padded name
#define DOTS 2 // "." and ".." are no children
// A record is longer than the directory entry of the same name by so much, at most.
#define RECORD_GROWTH (sizeof(struct cosy_bpf_child) - sizeof(struct dirent64) + 8)
#define DESCENTS_SEEN 2 // subdirectories entered before results of some are asked for
// Before any was timed: ticks of a run, records of a deep one.
#define MOST_TIMES_USUAL 4
#define USUAL_SMALL_COST (30 * 1000)
#define USUAL_LARGE_COST (180 * 1000)
#define USUAL_DEEP_RECORDS 256
#define USUAL_DIR_RECORDS 8
#define USUAL_RECORDS 64
#define USUAL_ANSWERS 48
#define LATE_RECORDS 16384 // when so many have come, the older count half

struct dirent64 {
	u64 ino;
	s64 off;
	u16 reclen;
	u8 type;
	char name[];
};

struct account {
	s64 balance;
	// Running means: ticks of a run with a small and a large buffer, and the
	// records that come of one that may descend.
	s64 cost[2];
	s64 deep_records;
	s64 dir_records; // of a subdirectory that came along, in 1/16, running mean
	u32 records, answers; // of late: how many calls a record answers
	bool leaf_seen; // a matching call met something else than a directory
	bool usable;
};

static struct image image;
static struct account accounts[COSY_MAX_COMPOUNDS];
static u8 served_kind[COSY_MAX_COMPOUNDS][COSY_MAX_PATTERNS]; // by compound and serve pattern
static bool wanted[COSY_NR_MAX];
static u32 native_ticks = USUAL_TICKS; // of a matching call, running mean
static u32 descents; // directories opened whose parent had results
static u32 resting, next_rest = FIRST_REST; // reads of directories until the next look
static u32 fruitless; // calls in a row that a compound could have answered, and did not
static bool primed; // somewhere the next call could be the one that fires

// --- what the image says ---------------------------------------------------

// Calls that one record answers in the same way count as one kind.
static bool serve_kinds(u32 ci, const struct cosy_compound *c)
{
	u8 next = 1;

	for (u32 i = 0; i < c->n_serve; i++) {
		const struct cosy_pattern *p = &image.patterns[c->first_serve + i];
		u8 kind = p->string ? next : 0;

		for (u32 k = 0; p->string && k < i; k++) {
			const struct cosy_pattern *q = &image.patterns[c->first_serve + k];

			if (q->string &&
			    str_equal(image.strings + p->string, image.strings + q->string))
				kind = served_kind[ci][k];
		}
		if (kind == next && p->string)
			next++;
		if (kind >= SERVED_KINDS)
			return false;
		served_kind[ci][i] = kind;
	}
	return true;
}

static void want(u32 first, u32 n)
{
	for (u32 i = first; i < first + n; i++)
		wanted[image.patterns[i].nr] = true;
}

u32 compounds_start(void)
{
	enum cosy_native_reason why = image_open(cosy_config.image, &image);
	u32 n = 0;

	if (why != COSY_NATIVE_REASONS) {
		stats_native(why);
		return 0;
	}
	for (u32 i = 0; i < image.head->n_compounds; i++) {
		const struct cosy_compound *c = &image.compounds[i];

		if (!bpf_can_run(&image, c) || !serve_kinds(i, c))
			continue;
		accounts[i].usable = true;
		accounts[i].cost[false] = USUAL_SMALL_COST;
		accounts[i].cost[true] = USUAL_LARGE_COST;
		accounts[i].deep_records = USUAL_DEEP_RECORDS;
		accounts[i].dir_records = USUAL_DIR_RECORDS * 16;
		accounts[i].records = USUAL_RECORDS;
		accounts[i].answers = USUAL_ANSWERS;
		want(c->first_trigger, c->n_triggers);
		want(c->first_serve, c->n_serve);
		n++;
	}
	if (!n)
		stats_native(COSY_NATIVE_NO_EXECUTOR);
	return n;
}

bool compounds_want(u32 nr)
{
	return wanted[nr];
}

// --- answering -------------------------------------------------------------

static void learn(s64 *mean, s64 value)
{
	*mean += (value - *mean) / 8;
}

static s64 saving(s64 calls)
{
	return calls * (s64)native_ticks * 3 / 4;
}

static void credit(struct account *a, s64 ticks)
{
	a->balance += ticks;
	if (a->balance > CREDIT_LIMIT)
		a->balance = CREDIT_LIMIT;
}

// Asked again, the kernel does now what it was spared before: nothing was saved.
static void take_back(struct account *a)
{
	a->balance -= saving(1);
	if (a->answers)
		a->answers--;
}

// The kind of answer that the compound gives to this call; -1: none.
static int kind_served(u32 ci, const struct attr_call *call)
{
	const struct cosy_compound *c = &image.compounds[ci];

	for (u32 i = 0; i < c->n_serve; i++)
		if (attr_call_matches(call, &image.patterns[c->first_serve + i], image.strings))
			return served_kind[ci][i];
	return -1;
}

// Results that hold for calls that come this way.
static bool has_results(const struct child *child)
{
	const struct dir_slot *d = child->dir;
	const struct chunk *c = results_chunk(d->results);

	return c && (child->dirfd == AT_FDCWD ? d->by_path : d->by_fd) &&
	       results_fresh(c) == COSY_DECLINES;
}

static bool serve(const struct attr_call *call, const struct child *child, long *ret)
{
	const struct dir_slot *d = child->dir;
	enum cosy_decline why;
	struct record rec;
	u32 bit;
	int kind;

	if (!results_chunk(d->results) || !(child->dirfd == AT_FDCWD ? d->by_path : d->by_fd))
		return false;
	why = results_find(d->results, child->name, child->len, &rec);
	if (why != COSY_DECLINES) {
		stats_decline(why);
		return false;
	}
	kind = kind_served(rec.chunk->compound, call);
	if (kind < 0)
		return false;
	bit = 1u << (SERVED_SHIFT + kind);
	if (*rec.served & bit && fence_on(FENCE_SERVED_ONCE)) {
		stats_decline(COSY_DECLINE_USED);
		take_back(&accounts[rec.chunk->compound]);
		return false;
	}
	why = answer(call, &rec, ret);
	if (why != COSY_DECLINES) {
		stats_decline(why);
		return false;
	}
	// A signal handler or another thread may have ended the epoch meanwhile.
	if (rec.chunk->start.epoch != epoch_now())
		return false;
	accounts[rec.chunk->compound].answers++;
	fruitless = 0;
	*rec.served |= bit;
	credit(&accounts[rec.chunk->compound], saving(1));
	stats_add(compound[rec.chunk->compound % COSY_STATS_COMPOUNDS].served, 1);
	return true;
}

// --- firing ----------------------------------------------------------------

static bool opened_now(const struct dir_slot *d, u64 epoch, u64 tsc)
{
	return d->open_epoch == epoch && tsc - d->open_tsc < max_age_ticks();
}

/*
 * A descriptor of the directory that the call means. By path it must be the
 * one the path leads to now: the program's own if that was opened in this
 * epoch, else one opened for the moment.
 */
static int run_fd(const struct child *child, u64 epoch, u64 tsc, bool *ours)
{
	const struct dir_slot *d = child->dir;

	*ours = false;
	if (child->dirfd != AT_FDCWD)
		return child->dirfd;
	if (dir_of_fd((u32)d->fd) == d && opened_now(d, epoch, tsc))
		return d->fd;
	*ours = true;
	return (int)sys(__NR_openat, AT_FDCWD, d->path,
			O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
}

// False: this directory is nothing for the executor, now or ever.
static bool status_usable(struct dir_slot *d, const struct cosy_bpf_run *run)
{
	stats_add(executor_status[run->status % 16], 1);
	switch (run->status) {
	case COSY_BPF_OK:
	case COSY_BPF_FULL:
	case COSY_BPF_LIMIT:
	case COSY_BPF_MOVED:
		return run->n_children > 0 || run->flags;
	case COSY_BPF_BUSY:
		return false;
	case COSY_BPF_WATCHED:
		exec_disarm(COSY_NATIVE_WATCHED);
		return false;
	case COSY_BPF_ABI_MISMATCH:
		exec_disarm(COSY_NATIVE_NO_EXECUTOR);
		return false;
	}
	d->refused = true;
	return false;
}

// What so many records are expected to save, as things went of late.
static s64 expected(const struct account *a, s64 records)
{
	return saving(records * a->answers / a->records);
}

struct firing {
	const struct cosy_compound *compound;
	struct account *account;
	u32 ci;
	struct dir_slot *dir;
	int fd;
	struct run_start start;
	u32 depth;
	u32 flags; // COSY_BPF_BELOW or 0
};

// What a run took goes off the account.
static void debit(struct account *a, u64 start, u32 size)
{
	s64 ticks = (s64)(rdtsc() - start), *mean = &a->cost[size == COSY_BPF_LARGE];

	// Much more than usual: something else had the processor.
	if (ticks > MOST_TIMES_USUAL * *mean)
		ticks = MOST_TIMES_USUAL * *mean;
	a->balance -= ticks;
	learn(mean, ticks);
}

// Only what was saved before may be risked on more than the directory at hand.
static bool can_afford_more(const struct account *a)
{
	return a->balance > a->cost[true];
}

// May the run take subdirectories along?
static bool may_descend(const struct account *a, const struct dir_slot *d)
{
	return descents >= DESCENTS_SEEN && d->subdirs > DOTS && can_afford_more(a);
}

static u32 buffer_size(u64 record_bytes, bool deep)
{
	const u32 room = COSY_BPF_SMALL - sizeof(struct cosy_bpf_run) - sizeof(struct cosy_bpf_dir);

	return deep || record_bytes > room ? COSY_BPF_LARGE : COSY_BPF_SMALL;
}

static void count_records(const struct firing *f, u32 n, u32 n_dirs)
{
	struct account *a = f->account;

	a->records += n;
	if (a->records > LATE_RECORDS) {
		a->records /= 2;
		a->answers /= 2;
	}
	if (f->depth)
		learn(&a->deep_records, n);
	if (f->flags && n_dirs > 1)
		learn(&a->dir_records, (s64)n * 16 / (n_dirs - 1));
	stats_add(records, n);
	stats_add(compound[f->ci % COSY_STATS_COMPOUNDS].records, n);
}

// One run; false: there will be no more.
static bool run_once(const struct firing *f, u32 size, u32 skip, struct block_ref *ref)
{
	struct cosy_bpf_run *run = results_staging();
	u64 start = rdtsc();
	long ret;
	bool kept;

	memset(run, 0, sizeof(*run));
	run->abi = COSY_BPF_ABI;
	run->dirfd = f->fd;
	run->skip = skip;
	run->depth = f->depth;
	run->flags = f->flags;
	ret = bpf_run(run, size);
	stats_add(runs, 1);
	// Out of descriptors or memory comes and goes; the rest is for good.
	if (ret < 0 && ret != -24 /* EMFILE */ && ret != -23 /* ENFILE */ &&
	    ret != -12 /* ENOMEM */)
		exec_disarm(COSY_NATIVE_NO_EXECUTOR);
	kept = ret >= 0 && status_usable(f->dir, run) &&
	       results_keep(&f->start, size, (u16)f->ci, ref);
	debit(f->account, start, size);
	if (!kept)
		return false;
	count_records(f, run->n_children, run->n_dirs);
	return run->status == COSY_BPF_FULL && run->seen > skip;
}

// The whole directory, as far as the limits reach.
static void run_all(const struct firing *f)
{
	struct dir_slot *d = f->dir;
	struct block_ref *to = &d->results;
	u32 size = buffer_size(d->record_bytes, f->depth), skip = 0, records = 0;
	u64 bytes = 0;
	bool more;

	do {
		struct chunk *c;

		more = run_once(f, size, skip, to);
		c = results_chunk(*to);
		if (!c)
			return;
		skip = c->run->seen;
		records += c->run->n_children;
		bytes += c->bytes;
		to = &c->next;
		size = COSY_BPF_LARGE;
	} while (more && records < f->compound->limit_ops && bytes < f->compound->limit_bytes &&
		 bytes < RESULTS_PER_DIR);
}

// False: it cannot be, now. `*ours`: a descriptor to close afterwards.
static bool prepare(struct firing *f, u32 ci, const struct child *child, bool *ours)
{
	*f = (struct firing){
		.compound = &image.compounds[ci],
		.account = &accounts[ci],
		.ci = ci,
		.dir = child->dir,
	};
	results_begin(&f->start);
	if (mutation_in_flight())
		return false;
	exec_arm();
	f->fd = run_fd(child, f->start.epoch, f->start.tsc, ours);
	if (f->fd < 0)
		child->dir->refused = true;
	return f->fd >= 0;
}

static void finish(const struct firing *f, bool ours)
{
	if (ours)
		sys(__NR_close, f->fd);
}

static void fire(u32 ci, const struct child *child)
{
	struct dir_slot *d = child->dir;
	struct firing f;
	bool ours, now;

	if (!prepare(&f, ci, child, &ours))
		return;
	now = opened_now(d, f.start.epoch, f.start.tsc);
	if (may_descend(f.account, d))
		f.depth = f.compound->depth;
	d->results = (struct block_ref){ 0 };
	d->matched = 0;
	d->runs++;
	d->next_below = 0;
	d->by_fd = child->dirfd != AT_FDCWD || now;
	d->by_path = child->dirfd == AT_FDCWD || now;
	stats_add(compound[ci % COSY_STATS_COMPOUNDS].fired, 1);
	run_all(&f);
	finish(&f, ours);
}

/*
 * One subdirectory after the other is entered: have the next ones' children
 * ready. True: the one that `rec` is about is among them.
 */
static bool fire_below(const struct child *child, const struct record *rec, struct block_ref *below)
{
	u32 ci = rec->chunk->compound;
	struct dir_slot *d = child->dir;
	struct block_ref first = { 0 };
	struct firing f;
	struct account *a = &accounts[ci];
	s64 records = (s64)(d->subdirs - DOTS) * a->dir_records / 16;
	u32 size = buffer_size((u64)records * BYTES_PER_RECORD, false);
	bool ours, found = false;

	if (!image.compounds[ci].depth || d->next_below == ALL_BELOW || !may_descend(a, d) ||
	    expected(a, records) < a->cost[size == COSY_BPF_LARGE] ||
	    !prepare(&f, ci, child, &ours))
		return false;
	f.depth = f.compound->depth;
	f.flags = COSY_BPF_BELOW;
	do {
		bool more = run_once(&f, size, d->next_below, &first);
		const struct chunk *c = results_chunk(first);

		d->next_below = more && c ? c->run->seen : ALL_BELOW;
		found = results_below(rec, below);
	} while (!found && d->next_below != ALL_BELOW && can_afford_more(f.account));
	finish(&f, ours);
	return found;
}

static bool triggers(const struct cosy_compound *c, const struct attr_call *call)
{
	for (u32 i = 0; i < c->n_triggers; i++)
		if (attr_call_matches(call, &image.patterns[c->first_trigger + i], image.strings))
			return true;
	return false;
}

// The first compound that this call may trigger; -1: none.
static int triggered(const struct attr_call *call)
{
	for (u32 i = 0; i < image.head->n_compounds; i++)
		if (accounts[i].usable && triggers(&image.compounds[i], call))
			return (int)i;
	return -1;
}

/*
 * Nothing is gained here: let calls pass without a look for a while, longer
 * each time. Afterwards the compounds start with a clean slate.
 */
static void rest(void)
{
	resting = next_rest;
	exec_watch_attributes(false);
	if (next_rest < LONGEST_REST)
		next_rest *= 2;
	fruitless = 0;
	for (u32 i = 0; i < image.head->n_compounds; i++) {
		accounts[i].records = USUAL_RECORDS;
		accounts[i].answers = USUAL_ANSWERS;
		if (accounts[i].balance < LOSS_LIMIT / 2)
			accounts[i].balance = LOSS_LIMIT / 2;
	}
}

static bool losing(const struct account *a)
{
	if (a->balance > LOSS_LIMIT)
		return false;
	rest();
	return true;
}

// Will it save more than it costs, as far as can be known?
static bool worth_it(const struct account *a, const struct cosy_compound *c,
		     const struct dir_slot *d)
{
	bool deep = c->depth && may_descend(a, d);
	s64 records = d->entries - DOTS, runs = 1 + d->record_bytes / COSY_BPF_LARGE;

	if (deep && records < a->deep_records)
		records = a->deep_records;
	return expected(a, records) >
	       runs * a->cost[buffer_size(d->record_bytes, deep) == COSY_BPF_LARGE];
}

static bool due(u32 ci, const struct dir_slot *d)
{
	const struct cosy_compound *c = &image.compounds[ci];
	u32 doublings = d->runs < MOST_DOUBLINGS ? d->runs : MOST_DOUBLINGS;

	return d->scanned && !d->refused && d->entries >= c->min_entries + DOTS &&
	       d->matched + 1 >= c->nth << doublings &&
	       (accounts[ci].leaf_seen || !(c->guards & COSY_GUARD_LEAF)) &&
	       worth_it(&accounts[ci], c, d) && !losing(&accounts[ci]);
}

// --- calls -----------------------------------------------------------------

// The kernel answered a triggering call about a child that is not answered otherwise.
static void count(const struct regs *r, const struct attr_call *call, const struct child *child,
		  u32 ci)
{
	const struct cosy_compound *c = &image.compounds[ci];

	// What results could not answer, another run could not either.
	if (!has_results(child))
		child->dir->matched++;
	if (!call->xattr) {
		answer_learn(call);
		accounts[ci].leaf_seen = accounts[ci].leaf_seen || !S_ISDIR(answer_mode(r));
	}
	if (accounts[ci].leaf_seen || !(c->guards & COSY_GUARD_LEAF))
		primed = primed || child->dir->matched + 1 >= c->nth;
}

// The kernel's own answer, from which the next ones learn.
static long ask_kernel(struct regs *r, const struct attr_call *call, const struct child *child,
		       int ci, u32 generation)
{
	u64 tsc = rdtsc(), ticks;
	long ret = sys_regs(r);

	ticks = rdtsc() - tsc;
	if (++fruitless > FRUITLESS)
		rest();
	if (ci < 0 || ret || !ground_trylock())
		return ret;
	// A child that was looked at already is warm: its price says nothing of the others'.
	if (ticks < 16 * USUAL_TICKS && !has_results(child))
		native_ticks += (u32)(((s32)ticks - (s32)native_ticks) / 8);
	if (child->dir->generation == generation)
		count(r, call, child, (u32)ci);
	ground_unlock();
	return ret;
}

/*
 * Before anything can fire: let the kernel answer, and look at the call only
 * if it could lead to a firing. What walks a tree without a look at its files
 * pays next to nothing.
 */
static long watch(struct regs *r)
{
	long ret = sys_regs(r);
	struct attr_call call;
	struct child child;
	int ci;

	if (ret || !dirs_known() || S_ISDIR(answer_mode(r)) || !attr_call_take(r, &call) ||
	    call.xattr || !ground_trylock())
		return ret;
	if (dir_child(call.dirfd, call.path, call.len, &child)) {
		ci = triggered(&call);
		if (ci >= 0)
			count(r, &call, &child, (u32)ci);
	}
	ground_unlock();
	return ret;
}

// True: *ret is the answer. Else the kernel must be asked, about *child if *ci >= 0.
static bool answered(const struct attr_call *call, struct child *child, int *ci, long *ret)
{
	if (!dir_child(call->dirfd, call->path, call->len, child))
		return false;
	if (serve(call, child, ret))
		return true;
	*ci = triggered(call);
	if (*ci < 0 || !due((u32)*ci, child->dir))
		return false;
	fire((u32)*ci, child);
	return serve(call, child, ret);
}

long compound_call(struct regs *r)
{
	struct attr_call call;
	struct child child;
	u32 generation = 0;
	long ret;
	int ci = -1;
	bool done;

	stats_add(calls, 1);
	if (!primed)
		return watch(r);
	if (!attr_call_take(r, &call))
		return sys_regs(r);
	if (!ground_trylock()) {
		stats_decline(COSY_DECLINE_BUSY);
		return sys_regs(r);
	}
	done = answered(&call, &child, &ci, &ret);
	if (ci >= 0)
		generation = child.dir->generation;
	ground_unlock();
	return done ? ret : ask_kernel(r, &call, &child, ci, generation);
}

/*
 * The directory that was opened is a child of one with results: if its own
 * came along, they hold for it on the way it was opened.
 */
static void adopt(struct dir_slot *d, const struct block_ref *below, bool by_path)
{
	d->results = *below;
	d->by_fd = true;
	d->by_path = by_path;
}

void compound_opened(int dirfd, const char *path, int fd, bool directory, u64 epoch, u64 tsc)
{
	size_t len = strlen(path);
	struct block_ref below = { 0 };
	struct dir_slot *d;
	struct child child;
	struct record rec;
	bool by_path = false;

	if (!ground_ours() || !ground_trylock())
		return;
	if (armed && dir_child(dirfd, path, len, &child) && child.dir->results.chunk) {
		by_path = child.dirfd == AT_FDCWD;
		if ((by_path ? child.dir->by_path : child.dir->by_fd) &&
		    results_find(child.dir->results, child.name, child.len, &rec) ==
			    COSY_DECLINES &&
		    S_ISDIR(rec.child->mode)) {
			descents++;
			directory = true;
			if (rec.chunk->start.epoch == epoch && !results_below(&rec, &below) &&
			    !fire_below(&child, &rec, &below))
				below.chunk = 0;
		}
	}
	d = directory ? dir_opened(dirfd, path, len, fd, epoch, tsc) : NULL;
	if (d && below.chunk)
		adopt(d, &below, by_path);
	ground_unlock();
}

void compound_scanned(u64 fd, const void *buf, u64 bytes)
{
	struct dir_slot *d;

	if (!ground_trylock())
		return;
	if (resting && !--resting)
		exec_watch_attributes(true);
	d = dir_of_fd(fd);
	// Opened like a file: the descriptor is all that is known of it.
	if (!d && ground_ours())
		d = dir_opened(AT_FDCWD, "", 0, (int)fd, epoch_now(), rdtsc());
	if (d) {
		d->scanned = true;
		for (u64 at = 0; at < bytes;) {
			const struct dirent64 *e = (const void *)((const u8 *)buf + at);

			d->entries++;
			d->record_bytes += RECORD_GROWTH;
			d->subdirs += e->type == DT_DIR;
			at += e->reclen;
		}
		d->record_bytes += (u32)bytes;
	}
	ground_unlock();
}
