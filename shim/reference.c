// SPDX-License-Identifier: MIT
#include "reference.h"

#include <asm/unistd_64.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "compound.h"
#include "fence.h"
#include "firing.h"
#include "leaf.h"
#include "mem.h"
#include "opened.h"
#include "sites.h"
#include "syscall_table.h"
#include "watch.h"

#define MOST_DOUBLINGS 10
#define LOSS_LIMIT 512 // answers that nobody asked for
#define FIRST_REST 256 // triggering calls
#define LONGEST_REST (1u << 18)

// How a compound fares in this process. A key of 0: calls from anywhere.
static struct fare {
	u64 key; // where the calls that are counted come from
	u32 matched, fired; // there
	u64 run_epoch, run_tsc; // of its last run there
	u32 asked, served; // answers, of late
	u32 resting, next_rest; // triggering calls
	bool adopted, leaf_seen;
} fares[COSY_MAX_COMPOUNDS];

static bool wanted[COSY_NR_MAX];
static bool on AT_START, looked; // looked: whether somebody watches us

bool reference_adopt(u32 ci)
{
	const struct cosy_compound *c = &profile.compounds[ci];

	if (!(c->executors & COSY_EXECUTOR_REFERENCE) || (!on && !recorded_open()))
		return false;
	on = true;
	fares[ci].adopted = true;
	fares[ci].next_rest = FIRST_REST;
	for (u32 i = 0; i < c->n_triggers; i++)
		wanted[profile.patterns[c->first_trigger + i].nr] = true;
	for (u32 i = 0; i < c->n_serve; i++)
		wanted[profile.patterns[c->first_serve + i].nr] = true;
	// Which descriptor is which file.
	wanted[__NR_open] = true;
	wanted[__NR_openat] = true;
	return true;
}

bool reference_wants(u64 nr)
{
	return on && nr < COSY_NR_MAX && wanted[nr];
}

void reference_stop(void)
{
	on = false;
}

// --- answering -----------------------------------------------------------------

// Into the program's memory, whatever it is. False: it cannot be written.
static bool put(void *to, const void *from, u64 bytes)
{
	const u64 here[2] = { (u64)from, bytes }, there[2] = { (u64)to, bytes };

	return !bytes ||
	       sys(__NR_process_vm_writev, sys(__NR_getpid), here, 1, there, 1, 0) == (long)bytes;
}

static bool atime_moved(const struct answer *a, const struct run_start *start)
{
	enum touch kind = S_ISDIR(a->inode.mode) ? TOUCH_DIR : TOUCH_FILE;

	if (a->inode.atime_stable || !fence_on(FENCE_ATIME))
		return false;
	return S_ISLNK(a->inode.mode) || touched(kind) != start->touches[kind] ||
	       (kind == TOUCH_FILE && was_read(a->inode.dev, a->inode.ino));
}

static bool serves(const struct cosy_compound *c, const struct question *q)
{
	for (u32 i = 0; i < c->n_serve; i++)
		if (question_matches(q, &profile.patterns[c->first_serve + i], profile.strings))
			return true;
	return false;
}

static bool still_true(const struct answer *a, const struct question *q)
{
	const struct recorded_run *run = recorded_run(a->run);

	if (run->start.epoch != epoch_now() ||
	    (rdtsc() - run->start.tsc > max_age_ticks && fence_on(FENCE_MAX_AGE)))
		return false;
	if (a->inode.ino && written(a->inode.dev, a->inode.ino))
		return false;
	if ((q->want == WANT_STAT || q->want == WANT_STATX) && a->ret == 0 &&
	    atime_moved(a, &run->start))
		return false;
	return serves(&profile.compounds[run->compound], q);
}

/*
 * Bytes of a file: the offset of the program's descriptor is the kernel's, and
 * moves as if the kernel had read. 1: answered; 0: not from this answer.
 */
static bool give_data(struct answer *a, const struct question *q, long *ret)
{
	u64 end = a->offset + a->bytes, n;
	s64 at = q->at_offset ? (s64)q->offset : sys(__NR_lseek, q->fd, 0, 1 /* SEEK_CUR */);

	if (at < (s64)a->next || (u64)at > end || (u64)at < a->offset)
		return false;
	n = end - (u64)at;
	if (n >= q->size)
		n = q->size;
	else if (!a->whole)
		return false; // the kernel would give more
	// The end is told once.
	if ((!n && a->used) || !q->size)
		return false;
	if (!put(q->out, a->data + ((u64)at - a->offset), n))
		return false;
	if (!q->at_offset && n && sys_failed(sys(__NR_lseek, q->fd, at + (s64)n, 0 /* SEEK_SET */)))
		return false;
	a->next = (u64)at + n;
	a->used = !n;
	*ret = (long)n;
	return true;
}

static bool give(struct answer *a, const struct question *q, long *ret)
{
	u64 n = a->bytes;

	if (q->want == WANT_DATA)
		return give_data(a, q, ret);
	// The program's own descriptor comes from the kernel.
	if ((a->used && fence_on(FENCE_SERVED_ONCE)) || (q->want == WANT_OPEN && a->ret >= 0))
		return false;
	*ret = a->ret;
	if (a->ret > 0 && q->want == WANT_LINK) {
		if (!q->size)
			return false;
		n = n < q->size ? n : q->size;
		*ret = (long)n;
	} else if (a->ret > 0 && q->want == WANT_XATTR) {
		if (q->size && q->size < n)
			*ret = -34; // ERANGE
		if (q->size < n)
			n = 0;
	}
	if (!put(q->out, a->data, a->ret < 0 ? 0 : n))
		return false;
	a->used = true;
	return true;
}

static bool serve_about(const struct subject *about, const struct question *q, bool by_fd,
			long *ret)
{
	for (struct answer *a = NULL; (a = recorded_find(about, q, a));) {
		const struct recorded_run *run = recorded_run(a->run);
		bool first;

		if (about->kind == ABOUT_CHILD && !(by_fd ? run->by_fd : run->by_path))
			continue;
		first = !a->used && a->next == a->offset;
		if (!still_true(a, q) || !give(a, q, ret))
			continue;
		fares[run->compound].served++;
		leaf_answered();
		if (unlikely(cosy_stats)) {
			stats_add(compound[run->compound % COSY_STATS_COMPOUNDS].served, 1);
			sites_served(q->regs, run->site, first);
		}
		return true;
	}
	return false;
}

// What the program asks about, in the two ways that it can be known by.
struct about {
	struct subject child, other;
	struct child dir;
	bool is_child, is_other;
};

static void find_about(const struct question *q, struct about *to)
{
	*to = (struct about){ 0 };
	if (q->about_fd) {
		to->other = (struct subject){ .kind = ABOUT_FILE, .id = recorded_file_of(q->fd) };
		to->is_other = to->other.id != 0;
		return;
	}
	if (dir_child(q->dirfd, q->path, &to->dir)) {
		to->is_child = true;
		to->child = (struct subject){ .kind = ABOUT_CHILD,
					      .id = dir_number(to->dir.dir),
					      .generation = to->dir.dir->generation,
					      .text = (const char *)to->dir.name.words,
					      .len = to->dir.name.len };
	}
	to->is_other = q->dirfd == AT_FDCWD || q->path[0] == '/';
	to->other = (struct subject){ .kind = ABOUT_PATH, .text = q->path, .len = q->path_len };
}

static bool serve(const struct about *about, const struct question *q, long *ret)
{
	return (about->is_child &&
		serve_about(&about->child, q, about->dir.dirfd != AT_FDCWD, ret)) ||
	       (about->is_other && serve_about(&about->other, q, false, ret));
}

// --- when to fire ----------------------------------------------------------------

static bool triggers(const struct cosy_compound *c, const struct question *q)
{
	for (u32 i = 0; i < c->n_triggers; i++)
		if (question_matches(q, &profile.patterns[c->first_trigger + i], profile.strings))
			return true;
	return false;
}

static bool listed(const struct cosy_compound *c, const struct question *q)
{
	if (q->about_fd || (q->dirfd != AT_FDCWD && q->path[0] != '/'))
		return false;
	for (u32 i = 0; i < c->n_paths; i++)
		if (str_equal(q->path, profile.strings + profile.paths[c->first_path + i]))
			return true;
	return false;
}

// The guards hold; *key: what "the nth call" is counted within.
static bool guards_hold(u32 ci, const struct question *q, const struct about *about, u64 *key)
{
	const struct cosy_compound *c = &profile.compounds[ci];

	*key = 0;
	if (c->guards & (COSY_GUARD_CHILD | COSY_GUARD_SCANNED)) {
		const struct dir_slot *d = about->dir.dir;

		if (!about->is_child || (c->guards & COSY_GUARD_SCANNED && !d->scanned) ||
		    d->entries < c->min_entries + DOTS)
			return false;
		*key = (u64)d->generation << 8 | dir_number(d);
	}
	if (c->guards & COSY_GUARD_LEAF && !fares[ci].leaf_seen)
		return false;
	if (c->guards & COSY_GUARD_LISTED && !listed(c, q))
		return false;
	if (c->guards & COSY_GUARD_REGULAR) {
		if (!q->about_fd || !about->is_other)
			return false;
		*key = about->other.id;
	}
	return true;
}

/*
 * What wastes is left alone for a while, longer each time; then it begins with
 * a clean slate.
 */
static bool rests(struct fare *f)
{
	if (f->resting) {
		f->resting--;
		return true;
	}
	if (f->asked < f->served + LOSS_LIMIT || f->served > f->asked / 2)
		return false;
	f->asked = f->served = 0;
	f->resting = f->next_rest;
	if (f->next_rest < LONGEST_REST)
		f->next_rest *= 2;
	return true;
}

static bool due(u32 ci, const struct question *q, const struct about *about)
{
	const struct cosy_compound *c = &profile.compounds[ci];
	struct fare *f = &fares[ci];
	u32 doublings;
	u64 key;

	if (!f->adopted || !triggers(c, q) || !guards_hold(ci, q, about, &key) || rests(f))
		return false;
	if (key != f->key) {
		f->key = key;
		f->matched = f->fired = 0;
		f->run_epoch = 0;
	}
	// What a run over the same could say is known already, unless news came.
	if (c->loop != COSY_LOOP_NONE && f->run_epoch == epoch_now() &&
	    rdtsc() - f->run_tsc <= max_age_ticks)
		return false;
	// Each opening of a file is another one: no habit that may end.
	doublings = !key ? 0 : f->fired < MOST_DOUBLINGS ? f->fired : MOST_DOUBLINGS;
	return ++f->matched >= c->nth << doublings;
}

static bool may_run(void)
{
	if (!looked) {
		looked = true;
		if (task_watched()) {
			stats_native(COSY_NATIVE_WATCHED);
			on = false;
		}
	}
	return on && ground_ours() && !mutation_in_flight() && exec_arm();
}

static void run(u32 ci, const struct regs *r, const struct question *q, const struct about *about)
{
	const struct cosy_compound *c = &profile.compounds[ci];
	struct recorded_run *recorded;
	struct body_run body = {
		.compound = c,
		.ci = ci,
		.trigger = r,
		.question = q,
		.dir = -1,
		.child = about->is_child ? &about->dir : NULL,
	};
	struct run_start start;
	bool ours = false, now = false;
	u32 answers;

	results_begin(&start);
	if (!may_run())
		return;
	if (body.child) {
		now = opened_now(about->dir.dir, start.epoch, start.tsc);
		body.dir = run_fd(&about->dir, start.epoch, start.tsc, &ours);
		if (body.dir < 0)
			return;
	}
	body.by_path = about->dir.dirfd == AT_FDCWD || now;
	recorded = recorded_run_new(&body.number);
	*recorded = (struct recorded_run){
		.start = start,
		.compound = ci,
		.by_fd = about->dir.dirfd != AT_FDCWD || now,
		.by_path = body.by_path,
	};
	answers = body_run(&body);
	if (ours)
		sys(__NR_close, body.dir);
	fares[ci].asked += answers;
	fares[ci].fired++;
	fares[ci].matched = 0;
	fares[ci].run_epoch = start.epoch;
	fares[ci].run_tsc = start.tsc;
	stats_add(runs, 1);
	stats_add(records, answers);
	stats_add(compound[ci % COSY_STATS_COMPOUNDS].fired, 1);
	stats_add(compound[ci % COSY_STATS_COMPOUNDS].records, answers);
	if (unlikely(cosy_stats))
		recorded->site = sites_fired(r, answers);
}

// --- calls -------------------------------------------------------------------------

// The program opened a file: it may be one that was read ahead.
static void opened(const struct about *about, const struct question *q, int fd)
{
	const struct subject *by[] = { about->is_child ? &about->child : NULL,
				       about->is_other ? &about->other : NULL };
	u32 file = 0;

	for (u32 i = 0; i < ARRAY_SIZE(by) && !file; i++) {
		for (struct answer *a = NULL; by[i] && (a = recorded_find(by[i], q, a));) {
			const struct recorded_run *run = recorded_run(a->run);

			if (by[i]->kind == ABOUT_CHILD &&
			    !(about->dir.dirfd == AT_FDCWD ? run->by_path : run->by_fd))
				continue;
			if (a->ret >= 0 && !a->used)
				file = a->file;
			a->used = true;
		}
	}
	for (u32 i = 0; i < ARRAY_SIZE(by); i++)
		if (by[i] && fence_on(FENCE_OPEN_FILE))
			recorded_drop_attributes(by[i]);
	recorded_bind(fd, file ?: recorded_file_new());
}

static void learn_leaf(const struct question *q)
{
	u32 mode = q->want == WANT_STATX ? ((const struct statx *)q->out)->stx_mode :
					   ((const struct stat *)q->out)->st_mode;

	for (u32 i = 0; i < profile.head->n_compounds; i++)
		if (fares[i].adopted && !S_ISDIR(mode))
			fares[i].leaf_seen = true;
}

static bool answered(const struct regs *r, const struct question *q, const struct about *about,
		     long *ret)
{
	if (serve(about, q, ret))
		return true;
	for (u32 i = 0; i < profile.head->n_compounds; i++) {
		if (!due(i, q, about))
			continue;
		run(i, r, q, about);
		return serve(about, q, ret);
	}
	return false;
}

long reference_call(struct regs *r, long (*kernel)(struct regs *))
{
	struct question q;
	struct about about;
	bool done, mine;
	u64 epoch;
	long ret;

	if (!question_take(r, &q) || !ground_ours() || !question_read(&q) || !ground_trylock())
		return kernel(r);
	stats_add(calls, 1);
	opened_settle();
	find_about(&q, &about);
	done = answered(r, &q, &about, &ret);
	epoch = epoch_now();
	ground_unlock();
	if (done)
		return ret;
	ret = kernel(r);
	mine = q.want == WANT_OPEN && ret >= 0 &&
	       !(q.said & (O_ACCMODE | O_CREAT | O_TRUNC | O_PATH));
	if (!mine && (ret || (q.want != WANT_STAT && q.want != WANT_STATX)))
		return ret;
	if (!ground_trylock())
		return ret;
	// The directory's slot may have been taken by another meanwhile.
	if (mine && epoch == epoch_now()) {
		find_about(&q, &about);
		opened(&about, &q, (int)ret);
	} else if (!mine && !q.about_fd) {
		learn_leaf(&q);
	}
	ground_unlock();
	return ret;
}
