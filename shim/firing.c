// SPDX-License-Identifier: MIT
#include "firing.h"

#include <asm/unistd_64.h>
#include <errno.h>
#include <fcntl.h>

#include "ahead.h"
#include "compound.h"
#include "executor.h"
#include "fence.h"
#include "serve.h"
#include "stats.h"

#define LONGEST_NS 20000000 // of a firing, whatever its compound allows
#define CLOCK 3 // CLOCK_THREAD_CPUTIME_ID: who waits for a processor loses nothing by it
#define ONE_RUN 256 // entries that any run gets through
#define ENTRY_BYTES 24 // of a directory's size, for each entry

bool opened_now(const struct dir_slot *d, u64 epoch, u64 tsc)
{
	return d->open_epoch == epoch && tsc - d->open_tsc < max_age_ticks;
}

int run_fd(const struct child *child, u64 epoch, u64 tsc, bool *ours)
{
	const struct dir_slot *d = child->dir;

	*ours = false;
	if (child->dirfd != AT_FDCWD)
		return child->dirfd;
	if (dir_of_fd((u32)d->fd) == d && opened_now(d, epoch, tsc))
		return d->fd;
	// Another thread's next descriptor would have another number, or be one too many.
	if (exec_shares_descriptors())
		return -EMFILE;
	*ours = true;
	return (int)open_plain(AT_FDCWD, d->path,
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
		return run->n_children || run->status != COSY_BPF_OK;
	case COSY_BPF_WATCHED:
		exec_disarm(COSY_NATIVE_WATCHED);
		return false;
	}
	d->refused = true;
	return false;
}

// More is to come, from another run.
static bool cut(const struct cosy_bpf_run *run)
{
	return run->status == COSY_BPF_FULL || run->status == COSY_BPF_LIMIT;
}

struct firing {
	const struct cosy_compound *compound;
	struct work *work;
	struct account *account; // of it
	u32 ci;
	struct dir_slot *dir;
	bool confident; // before it began: all of it, however large
	u32 reach; // else so many entries
	int fd;
	struct run_start start;
	const struct run_buffers *ahead; // what a run ahead of it told, until that is used
	u64 limit_ns, deadline_ns; // deadline_ns 0: no clock was asked yet
};

/*
 * Room for what the first run told, or, if it was cut, for what the whole
 * directory is expected to hold.
 */
static struct results *open_results(const struct firing *f, const struct cosy_bpf_run *run)
{
	struct dir_slot *d = f->dir;
	u64 records = run->n_children, bytes = 0, all = d->entries;

	for (u32 i = 0; i < COSY_BPF_PAGES; i++)
		bytes += run->used[i];
	if (d->cut && run->dir_size / ENTRY_BYTES > all)
		all = run->dir_size / ENTRY_BYTES;
	if (cut(run) && all > records && records) {
		bytes = bytes * all / records * 5 / 4; // trimmed afterwards
		records = all;
	}
	if (bytes > f->compound->limit_bytes)
		bytes = f->compound->limit_bytes;
	d->results = results_open(&f->start, (u16)f->ci, f->work, (u32)records, (u32)bytes);
	return results_of(d->results);
}

// One run, into results that the first one opens. False: there will be no more.
static bool run_once(const struct firing *f, u32 skip, u64 ns, struct results **to)
{
	const struct run_buffers *told = skip || !f->ahead ? results_staging() : f->ahead;
	const struct cosy_bpf_run *run = &told->run;
	u64 start = rdtsc();
	long ret = told == f->ahead ? 0 : executor_run(results_staging(), f->fd, skip, ns);
	u32 records = 0;
	bool more = false;

	stats_add(runs, 1);
	// Out of descriptors or memory comes and goes; the rest is for good.
	if (ret < 0 && ret != -EMFILE && ret != -ENFILE && ret != -ENOMEM && ret != -EAGAIN)
		exec_disarm(COSY_NATIVE_NO_EXECUTOR);
	if (ret < 0)
		return false;
	if (status_usable(f->dir, run)) {
		if (!*to)
			*to = open_results(f, run);
		records = (*to)->records;
		more = results_add(*to, told) && cut(run) && run->seen > skip;
		records = (*to)->records - records;
	}
	account_run(f->account, start, records);
	stats_add(records, records);
	stats_add(compound[f->ci % COSY_STATS_COMPOUNDS].records, records);
	return more;
}

u32 next_reach(const struct cosy_compound *c, const struct dir_slot *d)
{
	u64 reach = d->partial ? (u64)d->reach * c->grow : c->chunk;

	return reach < c->limit_ops ? (u32)reach : (u32)c->limit_ops;
}

/*
 * Of a very large directory perhaps one entry is asked for. A program may ask while it is still
 * reading the names, too: as many again may follow, or thousands. All of them only if nearly all
 * was asked for elsewhere; else as far as the compound says.
 */
static bool goes_on(const struct firing *f, u32 records)
{
	struct dir_slot *d = f->dir;

	// All its names are read, and all of them are told; what is behind is older, or gone.
	if (!d->cut && records + DOTS >= d->entries)
		return false;
	d->partial = !f->confident && (records >= 2 * d->entries || records >= f->reach);
	return !d->partial;
}

/*
 * Of the compound's time. Most firings are one run over few entries, which costs less than a look
 * at the clock would be worth.
 */
static u64 time_left(struct firing *f)
{
	u64 now = now_ns(CLOCK);

	if (!f->deadline_ns)
		f->deadline_ns = now + f->limit_ns;
	return f->deadline_ns > now ? f->deadline_ns - now : 0;
}

// The whole directory, as far as that and the limits reach.
static void run_all(struct firing *f)
{
	const struct cosy_bpf_run *run = f->ahead ? &f->ahead->run : &results_staging()->run;
	struct results *to = NULL;
	u64 ns = f->dir->entries > ONE_RUN ? time_left(f) : f->limit_ns;

	for (u32 skip = 0; ns && run_once(f, skip, ns, &to) &&
			   to->records < f->compound->limit_ops && goes_on(f, to->records);
	     ns = time_left(f)) {
		skip = run->seen;
		run = &results_staging()->run;
	}
	if (to) {
		account_told(f->account, to->records);
		results_close(to, f->dir->asked);
	}
}

void fire(u32 ci, struct work *work, const struct child *child)
{
	struct dir_slot *d = child->dir;
	struct firing f = {
		.compound = &profile.compounds[ci],
		.work = work,
		.account = &work->account,
		.ci = ci,
		.dir = d,
		.confident = account_confident(&work->account),
		.reach = next_reach(&profile.compounds[ci], d),
	};
	bool ours, now;

	f.limit_ns = f.compound->limit_time_ns;
	if (f.limit_ns > LONGEST_NS)
		f.limit_ns = LONGEST_NS;
	results_begin(&f.start);
	if (mutation_in_flight() || !exec_arm())
		return;
	f.ahead = ahead_runs(d, &f.start);
	ahead_walked();
	f.fd = run_fd(child, f.start.epoch, f.start.tsc, &ours);
	if (f.fd < 0) {
		d->refused = true;
		return;
	}
	now = opened_now(d, f.start.epoch, f.start.tsc);
	results_give_up(d->results);
	// The rest of a large directory pays for its beginning, too.
	if (!d->partial)
		account_settle(f.account, waiting.records);
	d->results = (struct results_ref){ 0 };
	d->matched = 0;
	d->partial = false;
	d->reach = f.reach;
	d->runs++;
	d->by_fd = child->dirfd != AT_FDCWD || now;
	d->by_path = child->dirfd == AT_FDCWD || now;
	sums.fired++;
	stats_add(compound[ci % COSY_STATS_COMPOUNDS].fired, 1);
	run_all(&f);
	if (ours)
		sys(__NR_close, f.fd);
}
