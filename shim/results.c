// SPDX-License-Identifier: MIT
#include "results.h"

#include <asm/unistd_64.h>
#include <sys/mman.h>

#include "fence.h"

#define CHUNKS 64
#define STRIDE 65536ul
#define INDEX 2048u // places per chunk; a chunk holds at most 744 records
#define FEWEST_PLACES 16u
#define MIN_RECORD (sizeof(struct cosy_bpf_child) + 8)

static struct chunk chunks[CHUNKS];
static u32 (*index_of)[INDEX]; // record offset / 8 + 1 in the low half, served bits above
static u8 *buffers;

static u64 tsc_start, ns_start;
static u64 ticks_per_ms = 1000000; // no such machine is slower: a safe underestimate

bool results_start(void)
{
	size_t size = CHUNKS * (STRIDE + sizeof(index_of[0]));

	_Static_assert((COSY_BPF_LARGE - sizeof(struct cosy_bpf_run)) / MIN_RECORD < INDEX / 2,
		       "the index must stay sparse");
	buffers = (u8 *)sys(__NR_mmap, 0, size, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (sys_failed((long)buffers))
		return false;
	index_of = (void *)(buffers + CHUNKS * STRIDE);
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

struct cosy_bpf_run *results_buffer(const struct chunk *c)
{
	return (void *)(buffers + (u64)(c - chunks) * STRIDE);
}

enum cosy_decline results_fresh(const struct chunk *c)
{
	if (c->epoch != epoch_now())
		return COSY_DECLINE_EPOCH;
	if (rdtsc() - c->tsc > max_age_ticks() && fence_on(FENCE_MAX_AGE))
		return COSY_DECLINE_AGE;
	return COSY_DECLINES;
}

/*
 * The first that nobody needs, so that few pages stay warm; else the oldest.
 */
struct chunk *results_oldest(u64 epoch)
{
	struct chunk *c = chunks;

	for (u32 i = 0; i < CHUNKS; i++) {
		if (chunks[i].epoch != epoch || !chunks[i].unserved) {
			c = &chunks[i];
			break;
		}
		if (chunks[i].tsc < c->tsc)
			c = &chunks[i];
	}
	return c;
}

void results_take(struct chunk *c, u64 epoch, u64 tsc)
{
	calibrate(tsc);
	c->generation++;
	c->epoch = epoch;
	c->tsc = tsc;
	memcpy(c->touches, touches, sizeof(c->touches));
	c->unserved = ~0u;
	c->n = 0;
	c->answers = 0;
	c->next = (struct block_ref){ 0 };
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

static u32 hash_name(u32 block, const char *name, u32 len)
{
	u64 h = ((u64)block << 32 | len) ^ last_word(name, len);

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
static u32 *place(const struct chunk *c, u32 block, const char *name, u32 len)
{
	const u8 *data = results_buffer(c)->data;
	const struct cosy_bpf_dir *dir = (const void *)(data + block);
	u32 *index = index_of[c - chunks];

	for (u32 i = hash_name(block, name, len);; i++) {
		u32 *at = &index[i & c->mask];
		u32 offset = ((*at & 0xffff) - 1) * 8;

		if (!*at)
			return at;
		if (offset >= block && offset < block + dir->bytes &&
		    same_name((const void *)(data + offset), name, len))
			return at;
	}
}

bool results_keep(struct chunk *c, struct block_ref *ref)
{
	const struct cosy_bpf_run *run = results_buffer(c);
	u32 room = c->size - (u32)sizeof(*run), n = 0;

	c->unserved = 0;
	if (run->used > room || run->used < sizeof(struct cosy_bpf_dir))
		return false;
	if (run->n_children >= INDEX / 2)
		return false;
	c->mask = FEWEST_PLACES - 1;
	while (c->mask < 2 * run->n_children)
		c->mask = (u16)(c->mask * 2 + 1);
	memset(index_of[c - chunks], 0, (c->mask + 1) * sizeof(u32));
	for (u32 block = 0; block < run->used;) {
		const struct cosy_bpf_dir *dir = (const void *)(run->data + block);
		u32 at = block + (u32)sizeof(*dir), end;

		if (run->used - block < sizeof(*dir) || dir->bytes > run->used - block ||
		    dir->bytes < sizeof(*dir) || dir->bytes % 8)
			return false;
		end = block + dir->bytes;
		while (at < end) {
			const struct cosy_bpf_child *child = (const void *)(run->data + at);
			u32 size;
			u32 *free;

			if (end - at < MIN_RECORD)
				return false;
			size = (u32)sizeof(*child) + (child->namelen + 7u) / 8 * 8;
			if (!child->namelen || size > end - at || n == run->n_children)
				return false;
			free = place(c, block, name_of(child), child->namelen);
			// The same name twice: a list that moved while it was read. The first counts.
			if (!*free) {
				*free = at / 8 + 1;
				n++;
			}
			at += size;
		}
		block = end;
	}
	c->n = n;
	c->unserved = n;
	*ref = (struct block_ref){ .chunk = (u16)(c - chunks + 1), .generation = c->generation };
	return true;
}

struct chunk *results_chunk(struct block_ref ref)
{
	struct chunk *c;

	if (!ref.chunk)
		return NULL;
	c = &chunks[ref.chunk - 1];
	return c->generation == ref.generation ? c : NULL;
}

enum cosy_decline results_find(struct block_ref ref, const char *name, u32 len, struct record *to)
{
	struct chunk *c;

	for (; (c = results_chunk(ref)); ref = c->next) {
		enum cosy_decline why = results_fresh(c);
		u32 *at;

		if (why != COSY_DECLINES)
			return why;
		at = place(c, ref.block, name, len);
		if (!*at)
			continue;
		to->chunk = c;
		to->run = results_buffer(c);
		to->child = (const void *)(to->run->data + ((*at & 0xffff) - 1) * 8);
		to->served = at;
		return COSY_DECLINES;
	}
	return COSY_DECLINE_ABSENT;
}

bool results_below(const struct record *r, struct block_ref *to)
{
	u32 child = (u32)((const u8 *)r->child - r->run->data);

	for (u32 block = 0; block < r->run->used;) {
		const struct cosy_bpf_dir *dir = (const void *)(r->run->data + block);

		if (dir->parent == child) {
			*to = (struct block_ref){ .chunk = (u16)(r->chunk - chunks + 1),
						  .generation = r->chunk->generation,
						  .block = block };
			return true;
		}
		block += dir->bytes;
	}
	return false;
}
