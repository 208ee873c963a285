// SPDX-License-Identifier: MIT
#include "results.h"

#include <asm/unistd_64.h>
#include <sys/mman.h>

#include "ahead.h"

#define SLOTS 512u
#define RING (4u << 20) // bytes of results and indexes; the oldest make room
#define OFFSET 0x7ffffu // of an index entry: record offset / 8 + 1
#define TAG 0xf80000u // and bits of the hash, so that few records are looked at
#define PLACES_FEWEST 16u
#define MIN_RECORD (sizeof(struct cosy_bpf_child) + 8)

// First in, first out: slots [oldest, oldest + n_live) of the array, as a circle.
static struct results slots[SLOTS];
static u32 oldest, n_live;
static struct run_buffers *staging;
static u8 *ring;
static u32 ring_head;

static u64 last_epoch, last_tsc; // of the last run
struct waiting waiting;
static u64 tsc_start, ns_start;
static bool calibrated;
#define SLOWEST_CLOCK 1000000u // ticks in a millisecond, of no such machine: a safe underestimate
u64 max_age_ticks;

bool results_start(void)
{
	size_t size = PAGE_UP(sizeof(*staging)) + RING;

	_Static_assert(RING / 8 <= OFFSET + 1, "an index entry must reach every record");
	staging = (void *)sys(__NR_mmap, 0, size, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (sys_failed((long)staging))
		return false;
	// Most use little of it: a huge page, cleared at the first touch, is 2 MiB for nothing.
	sys(__NR_madvise, staging, size, MADV_NOHUGEPAGE);
	ring = (u8 *)staging + PAGE_UP(sizeof(*staging));
	// In this order, and the other one later: what comes in between makes a tick longer.
	ns_start = now_ns(1 /* CLOCK_MONOTONIC */);
	tsc_start = rdtsc();
	max_age_ticks = cosy_config.max_age_ms * SLOWEST_CLOCK;
	return true;
}

static void calibrate(u64 tsc)
{
	u64 ns;

	if (likely(calibrated) || tsc - tsc_start < 50 * 1000000ul)
		return;
	ns = now_ns(1 /* CLOCK_MONOTONIC */) - ns_start;
	// 1/64 off, so that an error in the measurement cannot make results older.
	if (ns)
		max_age_ticks = (tsc - tsc_start) * 1000 / (ns / 1000 + 1) * 63 / 64 *
				cosy_config.max_age_ms;
	calibrated = true;
}

void results_clock(u64 *ticks, u64 *ns)
{
	*ns = now_ns(1 /* CLOCK_MONOTONIC */) - ns_start;
	*ticks = rdtsc() - tsc_start;
}

struct run_buffers *results_staging(void)
{
	return staging;
}

void results_begin(struct run_start *start)
{
	start->epoch = epoch_now();
	for (u32 i = 0; i < TOUCHES; i++)
		start->touches[i] = touched(i);
	start->tsc = rdtsc();
	calibrate(start->tsc);
	if (waiting.epoch != start->epoch) {
		waiting.epoch = start->epoch;
		waiting.records = 0;
	}
	__atomic_store_n(&last_tsc, start->tsc, __ATOMIC_RELAXED);
	__atomic_store_n(&last_epoch, start->epoch, __ATOMIC_RELEASE);
}

bool results_alive(void)
{
	// What was read ahead lives, too.
	if (unlikely(ahead_on))
		return true;
	return __atomic_load_n(&last_epoch, __ATOMIC_ACQUIRE) == epoch_now() &&
	       rdtsc() - __atomic_load_n(&last_tsc, __ATOMIC_RELAXED) <= max_age_ticks;
}

u64 results_tsc(void)
{
	return __atomic_load_n(&last_tsc, __ATOMIC_RELAXED);
}

static bool overlap(const struct results *r, const u8 *from, u32 bytes)
{
	return (const u8 *)r->index < from + bytes && from < r->data + r->room;
}

static void drop_oldest(void)
{
	if (waits(&slots[oldest]))
		waiting.records -= slots[oldest].fresh;
	slots[oldest].generation++;
	oldest = (oldest + 1) % SLOTS;
	n_live--;
}

/*
 * A walk of a tree is done with most directories before it gets to the next:
 * their memory, still in the processor's cache, is used again first.
 */
static void drop_used_up(void)
{
	while (n_live) {
		struct results *r = &slots[(oldest + n_live - 1) % SLOTS];

		if (r->fresh)
			return;
		r->generation++;
		n_live--;
		ring_head = (u32)((u8 *)r->index - ring);
	}
}

static const struct cosy_bpf_child *child_at(const struct results *r, u32 entry)
{
	return (const void *)(r->data + ((entry & OFFSET) - 1) * 8);
}

// The place of a name in the index, or the free one where it would be.
static inline u32 *place(const struct results *r, const struct name_at *name)
{
	for (u32 i = name->hash;; i++) {
		u32 *at = &r->index[i & r->mask];

		if (!*at || (!((*at ^ name->hash) & TAG) && is_named(child_at(r, *at), name)))
			return at;
	}
}

struct results_ref results_open(const struct run_start *start, u16 compound, struct work *work,
				u32 records, u32 bytes)
{
	u32 places = PLACES_FEWEST, total;
	struct results *r;
	u8 *at;

	while (places < 2 * records)
		places *= 2;
	if (places > RING / 16)
		places = RING / 16;
	total = places * (u32)sizeof(u32);
	if (bytes > RING - total)
		bytes = RING - total;
	total += bytes;
	drop_used_up();
	if (ring_head + total > RING)
		ring_head = 0;
	at = ring + ring_head;
	while (n_live == SLOTS || (n_live && overlap(&slots[oldest], at, total)))
		drop_oldest();
	r = &slots[(oldest + n_live++) % SLOTS];
	r->compound = compound;
	r->work = work;
	r->start = *start;
	r->index = (u32 *)at;
	r->mask = places - 1;
	r->data = at + places * sizeof(u32);
	r->room = bytes;
	r->fresh = 0;
	r->used = 0;
	r->records = 0;
	r->most = places / 2;
	memset(r->index, 0, places * sizeof(u32));
	return (struct results_ref){ .at = r, .generation = r->generation };
}

// A copy of a record's name; its hash, of the same pass.
static u32 copy_name(u64 *to, const u64 *from, u32 len)
{
	u64 hash = 0;

	for (u32 i = 0; i < name_words(len); i++) {
		to[i] = from[i];
		hash = name_mix(hash, to[i]);
	}
	return name_hash_of(hash);
}

/*
 * Copies the records of a page, one by one: what the index leads to must stay ours, so nothing is
 * read twice. False: they are not where they should be.
 */
static bool add_page(struct results *r, const u8 *page, u32 bytes)
{
	for (u32 at = 0, size; at < bytes; at += size) {
		const struct cosy_bpf_child *from = (const void *)(page + at);
		struct cosy_bpf_child *to = (void *)(r->data + r->used);
		struct name_at name;
		u32 *free;

		if (bytes - at < MIN_RECORD || r->room - r->used < MIN_RECORD ||
		    r->records >= r->most)
			return false;
		*to = *from;
		size = (u32)sizeof(*to) + name_words(to->namelen) * 8;
		if (!to->namelen || size > bytes - at || size > r->room - r->used)
			return false;
		name.s = (const char *)(to + 1);
		name.len = to->namelen;
		name.hash = copy_name((u64 *)(to + 1), child_name(from), to->namelen);
		free = place(r, &name);
		// The same name twice: a list that moved while it was read. The first counts.
		if (!*free)
			*free = (r->used / 8 + 1) | (name.hash & TAG);
		r->used += size;
		r->records++;
	}
	return true;
}

bool results_add(struct results *r, const struct run_buffers *from)
{
	const struct cosy_bpf_run *run = &from->run;

	r->dev = run->dev;
	r->st_dev = st_dev(run->dev);
	r->blksize = run->blksize;
	r->mnt_id = run->mnt_id;
	r->sb_flags = run->sb_flags;
	for (u32 i = 0; i < COSY_BPF_PAGES; i++) {
		u32 bytes = run->used[i];

		if (!bytes)
			continue;
		if (bytes > COSY_BPF_PAGE || bytes % 8 || !add_page(r, from->pages[i].data, bytes))
			return false;
	}
	return true;
}

void results_close(struct results *r, u32 asked)
{
	r->room = r->used;
	r->fresh = r->records > asked ? r->records - asked : 0;
	if (waits(r))
		waiting.records += r->fresh;
	ring_head = (u32)(r->data + r->used - ring);
}

void results_give_up(struct results_ref ref)
{
	struct results *r = results_of(ref);

	if (!r)
		return;
	if (waits(r))
		waiting.records -= r->fresh;
	r->fresh = 0;
}

bool results_lookup(struct results *r, const struct name_at *name, struct record *to)
{
	u32 *at = place(r, name);

	if (!*at)
		return false;
	to->results = r;
	to->child = child_at(r, *at);
	to->served = at;
	return true;
}

enum cosy_decline results_find(struct results_ref ref, const struct name *name, struct record *to)
{
	struct results *r = results_of(ref);
	enum cosy_decline why = r ? results_fresh(r) : COSY_DECLINE_ABSENT;
	struct name_at at = name_in(name);

	if (why == COSY_DECLINES && !results_lookup(r, &at, to))
		return COSY_DECLINE_ABSENT;
	return why;
}
