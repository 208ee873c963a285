// SPDX-License-Identifier: MIT
#include "results.h"

#include <asm/unistd_64.h>
#include <sys/mman.h>

#include "fence.h"

#define CHUNKS 512u
#define RING (4u << 20) // bytes of results and indexes; the oldest make room
#define TAG 0xff0000u // of an index entry: bits of the hash, so that few records are looked at
#define PLACES_FEWEST 16u
#define PLACES_MOST 1024u
#define MIN_RECORD (sizeof(struct cosy_bpf_child) + 8)

// First in, first out: chunks [oldest, oldest + n_live) of the array, as a circle.
static struct chunk chunks[CHUNKS];
static u32 oldest, n_live;
static struct run_buffers *staging;
static u8 *ring;
static u32 ring_head;

static u64 last_epoch, last_tsc; // of the last run
static u64 tsc_start, ns_start;
static u64 ticks_per_ms = 1000000; // no such machine is slower: a safe underestimate

bool results_start(void)
{
	size_t size = PAGE_UP(sizeof(*staging)) + RING;

	_Static_assert(sizeof(staging->pages) / MIN_RECORD < PLACES_MOST / 2,
		       "the index must stay sparse");
	staging = (void *)sys(__NR_mmap, 0, size, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (sys_failed((long)staging))
		return false;
	ring = (u8 *)staging + PAGE_UP(sizeof(*staging));
	tsc_start = rdtsc();
	ns_start = now_ns(1 /* CLOCK_MONOTONIC */);
	return true;
}

static void calibrate(u64 tsc)
{
	u64 ns;

	if (likely(!tsc_start) || tsc - tsc_start < 50 * 1000000ul)
		return;
	ns = now_ns(1 /* CLOCK_MONOTONIC */) - ns_start;
	// 1/64 off, so that an error in the measurement cannot make results older.
	if (ns)
		ticks_per_ms = (tsc - tsc_start) * 1000 / (ns / 1000 + 1) * 63 / 64;
	tsc_start = 0;
}

u64 max_age_ticks(void)
{
	return cosy_config.max_age_ms * ticks_per_ms;
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
	__atomic_store_n(&last_tsc, start->tsc, __ATOMIC_RELAXED);
	__atomic_store_n(&last_epoch, start->epoch, __ATOMIC_RELEASE);
}

bool results_alive(void)
{
	return __atomic_load_n(&last_epoch, __ATOMIC_ACQUIRE) == epoch_now() &&
	       rdtsc() - __atomic_load_n(&last_tsc, __ATOMIC_RELAXED) <= max_age_ticks();
}

enum cosy_decline results_fresh(const struct chunk *c)
{
	if (c->start.epoch != epoch_now())
		return COSY_DECLINE_EPOCH;
	if (rdtsc() - c->start.tsc > max_age_ticks() && fence_on(FENCE_MAX_AGE))
		return COSY_DECLINE_AGE;
	return COSY_DECLINES;
}

static bool overlap(const struct chunk *c, const u8 *from, u32 bytes)
{
	return c->data < from + bytes && from < c->data + c->bytes;
}

static void drop_oldest(void)
{
	chunks[oldest].generation++;
	oldest = (oldest + 1) % CHUNKS;
	n_live--;
}

// A new chunk of so many bytes, in place of the oldest.
static struct chunk *chunk_new(u32 bytes)
{
	struct chunk *c;
	u8 *at;

	if (ring_head + bytes > RING)
		ring_head = 0;
	at = ring + ring_head;
	while (n_live == CHUNKS || (n_live && overlap(&chunks[oldest], at, bytes)))
		drop_oldest();
	c = &chunks[(oldest + n_live++) % CHUNKS];
	c->data = at;
	c->bytes = bytes;
	c->next = (struct chunk_ref){ 0 };
	ring_head += bytes;
	return c;
}

// The last bytes of a name: as many as a word holds, or all of them.
static u64 last_word(const char *name, u32 len)
{
	u64 word = 0;

	if (len >= 8)
		return load_word(name + len - 8);
	for (; len; len--)
		word = word << 8 | (u8)name[len - 1];
	return word;
}

static u32 hash_name(const char *name, u32 len)
{
	u64 h = len ^ last_word(name, len);

	for (; len > 8; len -= 8, name += 8)
		h = ((h << 5 | h >> 59) ^ load_word(name)) * 0x9e3779b97f4a7c15ul;
	return (u32)(h * 0x9e3779b97f4a7c15ul >> 32);
}

static const char *name_of(const struct cosy_bpf_child *child)
{
	return (const char *)(child + 1);
}

static bool same_name(const struct cosy_bpf_child *child, const char *name, u32 len)
{
	const char *ours = name_of(child);

	if (child->namelen != len || last_word(ours, len) != last_word(name, len))
		return false;
	for (; len > 8; len -= 8, ours += 8, name += 8)
		if (load_word(ours) != load_word(name))
			return false;
	return true;
}

// The place of a name in the index, or the free one where it would be.
static u32 *place(const struct chunk *c, const char *name, u32 len, u32 hash)
{
	for (u32 i = hash;; i++) {
		u32 *at = &c->index[i & c->mask];
		u32 offset = ((*at & 0xffff) - 1) * 8;

		if (!*at)
			return at;
		if ((*at & TAG) == (hash & TAG) &&
		    same_name((const void *)(c->data + offset), name, len))
			return at;
	}
}

// All children into the index. False: they are not where they should be.
static bool index_all(struct chunk *c, u32 end, u32 room)
{
	for (u32 at = 0, size; at < end; at += size) {
		const struct cosy_bpf_child *child = (const void *)(c->data + at);
		u32 *free, hash;

		if (end - at < MIN_RECORD || !child->namelen || !room)
			return false;
		size = (u32)sizeof(*child) + (child->namelen + 7u) / 8 * 8;
		if (size > end - at)
			return false;
		--room;
		hash = hash_name(name_of(child), child->namelen);
		free = place(c, name_of(child), child->namelen, hash);
		// The same name twice: a list that moved while it was read. The first counts.
		if (!*free)
			*free = (at / 8 + 1) | (hash & TAG);
	}
	return true;
}

struct chunk *results_chunk(struct chunk_ref ref)
{
	struct chunk *c;

	if (!ref.chunk)
		return NULL;
	c = &chunks[ref.chunk - 1];
	return c->generation == ref.generation ? c : NULL;
}

// Bytes of all pages; ~0: nonsense.
static u32 bytes_used(void)
{
	u32 sum = 0;

	for (u32 i = 0; i < COSY_BPF_PAGES; i++) {
		if (staging->run.used[i] > COSY_BPF_PAGE || staging->run.used[i] % 8)
			return ~0u;
		sum += staging->run.used[i];
	}
	return sum;
}

bool results_keep(const struct run_start *start, u16 compound, struct chunk_ref *ref)
{
	const struct cosy_bpf_run *run = &staging->run;
	u32 places = PLACES_FEWEST, used = bytes_used();
	struct chunk *c;
	u8 *to;

	if (used == ~0u || run->n_children > PLACES_MOST / 2)
		return false;
	while (places < 2 * run->n_children)
		places *= 2;
	c = chunk_new(used + places * (u32)sizeof(u32));
	c->start = *start;
	c->compound = compound;
	c->dev = run->dev;
	c->blksize = run->blksize;
	c->mnt_id = run->mnt_id;
	c->sb_flags = run->sb_flags;
	c->mask = (u16)(places - 1);
	c->index = (u32 *)(c->data + used);
	to = c->data;
	for (u32 i = 0; i < COSY_BPF_PAGES; i++) {
		memcpy(to, staging->pages[i].data, run->used[i]);
		to += run->used[i];
	}
	memset(c->index, 0, places * sizeof(u32));
	if (!index_all(c, used, run->n_children)) {
		c->generation++;
		return false;
	}
	*ref = (struct chunk_ref){ .chunk = (u32)(c - chunks + 1), .generation = c->generation };
	return true;
}

enum cosy_decline results_find(struct chunk_ref ref, const char *name, u32 len, struct record *to)
{
	struct chunk *c = results_chunk(ref);
	enum cosy_decline why = c ? results_fresh(c) : COSY_DECLINE_ABSENT;
	u32 hash = hash_name(name, len);

	if (why != COSY_DECLINES)
		return why;
	// All chunks of a directory are of one moment.
	for (; c; c = results_chunk(c->next)) {
		u32 *at = place(c, name, len, hash);

		if (!*at)
			continue;
		to->chunk = c;
		to->child = (const void *)(c->data + ((*at & 0xffff) - 1) * 8);
		to->served = at;
		return COSY_DECLINES;
	}
	return COSY_DECLINE_ABSENT;
}
