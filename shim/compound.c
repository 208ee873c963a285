// SPDX-License-Identifier: MIT
/*
 * A compound's life in one process. It fires at the nth matching call within
 * a directory, and each firing in the same directory needs twice as many
 * calls as the one before. Where nothing is gained (account.h) calls pass
 * without a look, for longer each time.
 */
#include "compound.h"

#include <asm/unistd_64.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "ahead.h"
#include "executor.h"
#include "fence.h"
#include "files.h"
#include "firing.h"
#include "opened.h"
#include "reference.h"
#include "serve.h"
#include "sites.h"
#include "syscall_table.h"

#define MOST_DOUBLINGS 10
#define FRUITLESS 2048 // calls in a row that nothing answered: time to rest
#define FRUITLESS_EARLY 64 // the same, where nothing could fire
#define FRUITLESS_AGAIN 32 // and after a rest
#define FRUITLESS_WASTE 7 // what a call counts more where a run would be a waste
#define FRUITLESS_HABIT 63 // and where each would be
#define FEW_LEAVES 8 // calls about files, before it is said what the program does with them
#define MOST_OPENED 16 // files that a look pays for
#define LATE_LEAVES 512 // when so many came, the older count half
#define TIMED_EVERY 64 // answers
#define FIRST_REST 256 // reads of directory entries
#define LONGEST_REST (1u << 18)
#define SAMPLE_EVERY 16 // firings
#define CONTROL_EVERY 128
#define CONTROL_MOST 256 // entries
#define LAST_POSITION 0x7fffffffffffffffl // of a directory
#define LONGEST_ENTRY (sizeof(struct dirent64) + 256) // bytes

struct image profile AT_START;
static u32 resting, next_rest = FIRST_REST; // reads of directories until the next look
static u64 asked_epoch; // of the last call that could trigger and that the kernel answered
static u64 last_key; // the child that the kernel was asked for last
static u32 last_fired; // compound
static u64 leaves; // calls about something else than a directory that the kernel answered
u32 watched_transfers;
u64 opened_files;
static bool primed; // somewhere the next call could be the one that fires

// --- what the image says ---------------------------------------------------

static bool expect(u32 first, u32 n)
{
	for (u32 i = first; i < first + n; i++)
		if (!attr_call_expect(profile.patterns[i].nr))
			return false;
	return true;
}

u32 compounds_start(void)
{
	enum cosy_native_reason why = image_open(cosy_config.image, &profile);
	u32 n = 0;

	if (why != COSY_NATIVE_REASONS) {
		stats_native(why);
		return 0;
	}
	for (u32 i = 0; i < profile.head->n_compounds; i++) {
		const struct cosy_compound *c = &profile.compounds[i];

		if (!(cosy_config.executors & (COSY_EXECUTOR_BPF | COSY_EXECUTOR_MODULE)) ||
		    !bpf_can_run(&profile, c) || !expect(c->first_trigger, c->n_triggers) ||
		    !expect(c->first_serve, c->n_serve) || !work_take(i, c)) {
			n += files_adopt(i, c) ||
			     (cosy_config.executors & COSY_EXECUTOR_REFERENCE &&
			      reference_adopt(i));
			continue;
		}
		n++;
	}
	if (!n)
		stats_native(COSY_NATIVE_NO_EXECUTOR);
	return n;
}

bool compounds_want(u32 nr)
{
	return attr_call_expected(nr);
}

bool compounds_ran(void)
{
	return sums.fired;
}

// Results that hold for calls that come this way.
static bool has_results(const struct child *child)
{
	const struct dir_slot *d = child->dir;
	const struct results *r = results_of(d->results);

	return r && (child->dirfd == AT_FDCWD ? d->by_path : d->by_fd) &&
	       results_fresh(r) == COSY_DECLINES;
}

static bool is_told(const struct child *child)
{
	struct record rec;

	return results_find(child->dir->results, &child->name, &rec) == COSY_DECLINES;
}

// --- when to fire ---------------------------------------------------------

// The first compound that this call may trigger; -1: none.
static int triggered(const struct attr_call *call)
{
	for (u32 i = 0; i < profile.head->n_compounds; i++)
		if (works[i].account.usable && work_triggers(&works[i], call))
			return (int)i;
	return -1;
}

/*
 * Nothing is gained here: let calls pass without a look for a while, longer
 * each time. Afterwards the compounds start with a clean slate.
 */
static void rest(void)
{
	if (!fence_on(FENCE_ACCOUNT))
		return;
	resting = next_rest;
	exec_rest();
	if (next_rest < LONGEST_REST)
		next_rest *= 4;
	fruitless = 0;
	for (u32 i = 0; profile.head && i < profile.head->n_compounds; i++)
		account_reopen(&works[i].account);
}

// Then it is not asked for a while.
static bool losing(const struct account *a)
{
	if (!account_loses(a))
		return false;
	rest();
	return true;
}

/*
 * What the kernel takes is known only from calls that it answered: where the first would fire
 * already, leave it one now and then. And now and then all of a directory: calls of every kind, by
 * code that is warm.
 */
static bool sampled(const struct cosy_compound *c, struct dir_slot *d)
{
	static u32 n;

	if (d->runs || d->control)
		return d->control;
	if (++n % CONTROL_EVERY == 0 && d->entries <= CONTROL_MOST)
		d->control = true;
	return d->control || (c->nth == 1 && !d->matched && n % SAMPLE_EVERY == 0);
}

static s64 left(const struct dir_slot *d)
{
	return (s64)d->entries - DOTS - d->asked;
}

/*
 * Opening a file pays for the cold memory that an answer about it saves: whoever opens what it asks
 * about, as a copy or a comparison of two trees does, has no use for answers.
 */
static bool opens_what_it_asks(void)
{
	static u64 asked_before, opened_before;
	u64 all = leaves + sums.answers[0], asked, opened;

	// A child of fork has answered nothing.
	if (all < asked_before) {
		asked_before = all;
		opened_before = opened_files;
	}
	asked = all - asked_before;
	opened = opened_files - opened_before;
	if (asked > LATE_LEAVES) {
		asked_before += asked / 2;
		opened_before += opened / 2;
	}
	return asked >= FEW_LEAVES && opened * 4 > asked * 3;
}

/*
 * Whoever ends the epoch after each question, as a copy does that makes a file for each, has
 * no use for answers to the next ones.
 */
static bool pays(u32 ci, struct dir_slot *d)
{
	struct account *a = &works[ci].account;
	s64 entries = (s64)d->entries - DOTS, reach = next_reach(&profile.compounds[ci], d);
	enum expectation expected = account_expects(a, entries, left(d), waiting.records);

	if (asked_epoch != epoch_now())
		return false;
	if (expected == EXPECT_GAIN && opens_what_it_asks()) {
		fruitless += FRUITLESS_HABIT;
		return false;
	}
	if (expected == EXPECT_WASTE)
		fruitless += FRUITLESS_WASTE;
	return expected == EXPECT_GAIN && !losing(a) &&
	       account_affords(a, entries < reach ? entries : reach, d->matched) &&
	       !sampled(&profile.compounds[ci], d);
}

/*
 * The last run stopped before the end. The next tells all of that again, and is worth what it tells
 * more; by then enough calls must have gone unanswered.
 */
static bool goes_further(u32 ci, const struct dir_slot *d)
{
	const struct cosy_compound *c = &profile.compounds[ci];
	const struct results *r = results_of(d->results);
	s64 entries = (s64)d->entries - DOTS, reach = next_reach(c, d);

	if (reach > entries)
		reach = entries;
	return r && r->records < reach && (s64)d->matched * c->miss >= reach &&
	       account_worth(&works[ci].account, reach, left(d) * (reach - r->records) / entries);
}

// Of more than the limit a run would tell a part, which need not be what is asked for first.
static bool of_its_size(const struct cosy_compound *c, const struct dir_slot *d)
{
	return d->entries >= c->min_entries + DOTS && d->entries <= c->limit_ops + DOTS;
}

static bool due(u32 ci, const struct child *child)
{
	const struct cosy_compound *c = &profile.compounds[ci];
	struct dir_slot *d = child->dir;
	u32 doublings = d->runs < MOST_DOUBLINGS ? d->runs : MOST_DOUBLINGS;

	d->partial = d->partial && has_results(child);
	if (d->partial)
		return goes_further(ci, d);
	return d->scanned && !d->refused && of_its_size(c, d) &&
	       d->matched + 1 >= c->nth << doublings &&
	       (works[ci].account.leaf_seen || !(c->guards & COSY_GUARD_LEAF)) &&
	       (!fence_on(FENCE_ACCOUNT) || pays(ci, d));
}

// --- calls -----------------------------------------------------------------

// Two children may share one, rarely.
static u64 child_key(const struct child *child)
{
	return (u64)child->dir << 32 ^ (u64)child->dir >> 32 ^ child->name.hash;
}

// The kernel answered a triggering call about a child that is not answered otherwise.
static void count(const struct regs *r, const struct attr_call *call, const struct child *child,
		  u32 ci)
{
	const struct cosy_compound *c = &profile.compounds[ci];
	bool leaf = !call->xattr && !S_ISDIR(answer_mode(r));

	asked_epoch = epoch_now();
	// Walks ask for a directory once more when they enter it; that is no habit.
	leaves += leaf;
	if (leaf) {
		u64 key = child_key(child);

		account_call(&works[ci].account, key == last_key && works[ci].times == 1);
		last_key = key;
	}
	// What results could not answer, another run could not either.
	if (!has_results(child) || (child->dir->partial && !is_told(child)))
		child->dir->matched++;
	child->dir->asked++;
	if (!call->xattr)
		answer_learn(call);
	works[ci].account.leaf_seen = works[ci].account.leaf_seen || leaf;
	if (works[ci].account.leaf_seen || !(c->guards & COSY_GUARD_LEAF))
		primed = primed ||
			 (child->dir->matched + 1 >= c->nth && of_its_size(c, child->dir));
}

// Nothing answers call after call: time to rest. After a rest that is seen sooner.
static void unanswered(void)
{
	u32 most = FRUITLESS;

	if (!primed)
		most = next_rest == FIRST_REST ? FRUITLESS_EARLY : FRUITLESS_AGAIN;
	if (++fruitless > most && dirs_known())
		rest();
}

// Files that were opened since the last look: there may have been none for long.
static u32 opened_since(void)
{
	static u64 before;
	u64 n = opened_files - before;

	before = opened_files;
	return n < MOST_OPENED ? (u32)n : MOST_OPENED;
}

// The kernel's own answer, from which the next ones learn.
static long ask_kernel(struct regs *r, const struct attr_call *call, const struct child *child,
		       int ci, u32 generation)
{
	bool control = child->dir && child->dir->control;
	// Of a directory that is left to the kernel the first call is no measure: none is answered.
	bool first = control && !child->dir->asked;
	u64 tsc = rdtsc(), ticks;
	long ret = sys_regs(r);
	bool told;

	ticks = rdtsc() - tsc;
	attr_call_note(call->nr);
	if (!control)
		unanswered();
	if (call->xattr && ret == -ENODATA)
		account_native_xattr(ticks, control);
	if (ci < 0 || ret || !ground_trylock())
		return ret;
	told = has_results(child);
	if (child->dir->generation == generation)
		count(r, call, child, (u32)ci);
	// A child that was looked at already is warm: its price says nothing of the others'.
	if (!told && !first)
		account_native(ticks, control);
	if (!told && !control) {
		account_look(&works[ci].account, opened_since());
		losing(&works[ci].account);
	}
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
	bool at = r->nr == __NR_newfstatat || r->nr == __NR_statx;
	long ret = sys_regs(r);
	struct attr_call call;
	struct child child;
	int ci;

	attr_call_note((u32)r->nr);
	unanswered();
	if (ret || !dirs_known() || names_xattr((u32)r->nr) || S_ISDIR(answer_mode(r)) ||
	    !ground_trylock())
		return ret;
	// The image is not looked at before a file in a known directory was asked about.
	if (dir_child(at ? (int)r->a[0] : AT_FDCWD, (const char *)r->a[at], &child) &&
	    exec_load() && compounds_want((u32)r->nr)) {
		attr_call_take(r, &call);
		ci = triggered(&call);
		if (ci >= 0)
			count(r, &call, &child, (u32)ci);
	}
	ground_unlock();
	return ret;
}

// For --stats: where the call came from that made a compound fire.
static void count_firing(const struct attr_call *call, const struct dir_slot *d)
{
	struct results *r = results_of(d->results);
	u16 site = sites_fired(call->regs, r ? r->records : 0);

	if (r)
		r->site = site;
}

/*
 * No record of the directory `near` answers for `name`. True: *ret is the answer. Else the kernel
 * must be asked, about *child if *ci >= 0.
 */
static bool answered(const struct attr_call *call, const struct dir_slot *near, const char *name,
		     struct child *child, int *ci, long *ret)
{
	u32 runs;

	if (!dir_child(call->dirfd, call->path, child))
		return false;
	if ((child->dir != near || child->at != name) &&
	    serve(call, child->dir, child->dirfd, child->at, ret))
		return true;
	*ci = triggered(call);
	if (*ci < 0 || !due((u32)*ci, child))
		return false;
	runs = child->dir->runs;
	last_fired = (u32)*ci;
	fire((u32)*ci, &works[*ci], child);
	if (unlikely(cosy_stats) && child->dir->runs != runs)
		count_firing(call, child->dir);
	return serve(call, child->dir, child->dirfd, child->at, ret);
}

// With the lock, which it gives back. Apart: what few calls need is much of the stack.
static APART long look_further(struct regs *r, const struct dir_slot *near, const char *name)
{
	struct attr_call call;
	struct child child;
	u32 generation = 0;
	long ret;
	int ci = -1;
	bool done;

	child.dir = NULL;
	attr_call_take(r, &call);
	done = answered(&call, near, name, &child, &ci, &ret);
	if (ci >= 0)
		generation = child.dir->generation;
	ground_unlock();
	return done ? ret : ask_kernel(r, &call, &child, ci, generation);
}

/*
 * About a descriptor, as fstat() of today's C library asks: no run over a directory tells
 * that. Most programs ask so about each file that they read.
 */
static bool about_descriptor(const struct regs *r)
{
	return r->nr == __NR_newfstatat && r->a[3] & AT_EMPTY_PATH;
}

static long ask_about_descriptor(struct regs *r)
{
	long ret = sys_regs(r);

	// Who reads files, and asks about no names, is seen by that.
	if (!primed)
		unanswered();
	// The kernel read the path, if there is one, and wrote the answer: both are there.
	if (!ret && armed && (!r->a[1] || !*(const char *)r->a[1]))
		opened_told((u32)r->a[0], (const struct stat *)r->a[2]);
	return ret;
}

long compound_call(struct regs *r)
{
	struct dir_slot *near;
	const char *name;
	u64 start = 0;
	long ret;

	stats_add(calls, 1);
	if (about_descriptor(r))
		return ask_about_descriptor(r);
	if (unlikely(!primed)) {
		sums.calls++;
		return watch(r);
	}
	if (unlikely(++sums.calls % TIMED_EVERY == 0))
		start = rdtsc();
	if (unlikely(!ground_trylock())) {
		stats_decline(COSY_DECLINE_BUSY);
		return sys_regs(r);
	}
	opened_settle();
	if (unlikely(!serve_near(r, &near, &name, &ret)))
		return look_further(r, near, name);
	if (unlikely(start))
		account_timed(rdtsc() - start);
	ground_unlock();
	return ret;
}

void compound_opened(const struct opening *o)
{
	bool directory = o->directory, known;
	struct dir_slot *d = NULL;
	struct child child;

	if (directory)
		exec_directory();
	if (!ground_ours())
		return;
	if (!ground_trylock()) {
		// Another thread has the table: what is left of the file's answers goes with all.
		if (!directory)
			epoch_end(FENCE_OPEN_FILE);
		return;
	}
	known = armed && dir_child(o->dirfd, o->path, &child);
	if (known && has_results(&child) && serve_opened(&child))
		directory = true;
	if (directory)
		d = dir_opened(o->path, o->plain ? strlen(o->path) : 0, o->fd, o->epoch, o->tsc);
	if (known && d)
		ahead_opened(d, &child);
	// Last: who rests knows no descriptor any more.
	if (armed && !directory) {
		account_watch(&works[last_fired].account, watched_transfers);
		watched_transfers = 0;
		losing(&works[last_fired].account);
	}
	ground_unlock();
}

void compound_scanned(u64 fd, const void *buf, u64 bytes, u64 size)
{
	const struct dirent64 *e = NULL;
	struct dir_slot *d;

	exec_directory();
	if (!ground_trylock())
		return;
	if (resting) {
		if (!--resting)
			exec_wake();
		ground_unlock();
		return;
	}
	d = dir_of_fd(fd);
	// Opened like a file: the descriptor is all that is known of it.
	if (!d && ground_ours()) {
		d = dir_opened("", 0, (int)fd, epoch_now(), rdtsc());
		dir_lent(fd);
	}
	if (d) {
		d->scanned = true;
		ahead_size = (u32)size;
		d->cut = size - bytes < LONGEST_ENTRY;
		for (u64 at = 0; at < bytes; at += e->reclen) {
			e = (const void *)((const u8 *)buf + at);
			d->entries++;
		}
		if (e && e->off == LAST_POSITION)
			dir_end_reached(d);
	}
	ground_unlock();
}
