// SPDX-License-Identifier: MIT
#include "firing.h"

#include <asm/unistd_64.h>
#include <fcntl.h>

#include "compound.h"
#include "executor.h"
#include "fence.h"
#include "stats.h"

#define RESULTS_PER_DIR (3u << 20) // bytes: most of all there is room for
#define BYTES_PER_RECORD 112 // an estimate: 80 and a padded name
#define DESCENTS_SEEN 2 // subdirectories entered before results of some are asked for

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

bool may_descend(const struct account *a, const struct dir_slot *d)
{
	return descents >= DESCENTS_SEEN && d->subdirs > DOTS && account_affords(a);
}

u32 buffer_size(u64 record_bytes, bool deep)
{
	const u32 room = COSY_BPF_SMALL - sizeof(struct cosy_bpf_run) - sizeof(struct cosy_bpf_dir);

	return deep || record_bytes > room ? COSY_BPF_LARGE : COSY_BPF_SMALL;
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
	account_run(f->account, start, size == COSY_BPF_LARGE);
	if (!kept)
		return false;
	account_records(f->account, run->n_children, f->depth);
	if (f->flags)
		account_below(f->account, run->n_children, run->n_dirs - 1);
	stats_add(records, run->n_children);
	stats_add(compound[f->ci % COSY_STATS_COMPOUNDS].records, run->n_children);
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
		.compound = &profile.compounds[ci],
		.account = &accounts[ci],
		.ci = ci,
		.dir = child->dir,
	};
	results_begin(&f->start);
	if (mutation_in_flight() || !exec_arm())
		return false;
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

void fire(u32 ci, const struct child *child)
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

bool fire_below(const struct child *child, const struct record *rec, struct block_ref *below)
{
	u32 ci = rec->chunk->compound;
	struct dir_slot *d = child->dir;
	struct block_ref first = { 0 };
	struct firing f;
	struct account *a = &accounts[ci];
	struct dir_key key = dir_key(rec);
	s64 records = (s64)(d->subdirs - DOTS) * a->dir_records / 16;
	u32 size = buffer_size((u64)records * BYTES_PER_RECORD, false);
	bool ours, found = false;

	if (!profile.compounds[ci].depth || d->next_below == ALL_BELOW || !may_descend(a, d) ||
	    account_expect(a, records) < a->cost[size == COSY_BPF_LARGE] ||
	    !prepare(&f, ci, child, &ours))
		return false;
	f.depth = f.compound->depth;
	f.flags = COSY_BPF_BELOW;
	do {
		bool more = run_once(&f, size, d->next_below, &first);
		const struct chunk *c = results_chunk(first);

		d->next_below = more && c ? c->run->seen : ALL_BELOW;
		found = results_below(key, below);
	} while (!found && d->next_below != ALL_BELOW && account_affords(f.account));
	finish(&f, ours);
	return found;
}
