// SPDX-License-Identifier: MIT
#include "recorded.h"

#include <asm/unistd_64.h>
#include <sys/stat.h>
#include <sys/mman.h>

#include "fence.h"

#define ARENA (16u << 20) // bytes of texts and data
#define LEAST_ROOM (1u << 20) // less than that: start afresh
#define ANSWERS 16384u
#define PLACES (2 * ANSWERS)
#define RUNS 1024u
#define FDS 1024u

static struct store {
	u8 arena[ARENA];
	struct answer answers[ANSWERS];
	u16 places[PLACES]; // index + 1 into answers
	struct recorded_run runs[RUNS];
} *store;

static u32 used, n_answers, n_runs; // of the store
static u64 epoch; // that all of it is of
static u32 files; // numbers given; never used again
static u32 *bound
	AT_START; // by descriptor; a child shares offsets with its parent, so it starts with none

bool recorded_open(void)
{
	void *page;

	store = (void *)sys(__NR_mmap, 0, sizeof(*store), PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	page = (void *)sys(__NR_mmap, 0, FDS * sizeof(*bound), PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (sys_failed((long)store) || sys_failed((long)page) ||
	    sys(__NR_madvise, page, FDS * sizeof(*bound), 18 /* MADV_WIPEONFORK */))
		return false;
	bound = page;
	return true;
}

static void start_afresh(void)
{
	used = n_answers = n_runs = 0;
	memset(store->places, 0, sizeof(store->places));
}

struct recorded_run *recorded_run_new(u32 *number)
{
	if (epoch != epoch_now() || ARENA - used < LEAST_ROOM || n_runs == RUNS ||
	    n_answers > ANSWERS / 2)
		start_afresh();
	epoch = epoch_now();
	*number = n_runs++;
	return &store->runs[*number];
}

struct recorded_run *recorded_run(u32 number)
{
	return &store->runs[number];
}

u32 recorded_file_new(void)
{
	return ++files;
}

u8 *recorded_room(u64 *room)
{
	used = (used + 7) & ~7u;
	*room = ARENA - used;
	return store->arena + used;
}

static u64 mix(u64 h, u64 word)
{
	return ((h << 5 | h >> 59) ^ word) * 0x9e3779b97f4a7c15ul;
}

static u64 mix_text(u64 h, const char *s, u32 len)
{
	for (u32 i = 0; i < len; i++)
		h = (h ^ (u8)s[i]) * 0x100000001b3ul;
	return mix(h, len);
}

static u64 hash_of(const struct subject *about, enum want want, u32 flags, u32 detail,
		   const char *name)
{
	u64 h = mix((u64)about->kind << 32 | about->id, about->generation);

	h = mix(mix(h, (u64)want << 32 | flags), detail);
	h = mix_text(h, about->text, about->len);
	if (name)
		h = mix_text(h, name, (u32)strlen(name));
	return h ^ h >> 32;
}

// A copy in the arena, NUL-ended; NULL: no room.
static const char *keep_text(const char *s, u32 len)
{
	char *to = (char *)store->arena + used;

	if (ARENA - used < len + 1)
		return NULL;
	memcpy(to, s, len);
	to[len] = 0;
	used += len + 1;
	return to;
}

bool recorded_keep(const struct answer *a)
{
	struct answer *kept;
	u64 i;

	if (n_answers == ANSWERS || (a->data && ARENA - used < a->bytes))
		return false;
	kept = &store->answers[n_answers];
	*kept = *a;
	if (a->data)
		used += (u32)a->bytes;
	if (a->about.len)
		kept->about.text = keep_text(a->about.text, a->about.len);
	if (a->name)
		kept->name = keep_text(a->name, (u32)strlen(a->name));
	if ((a->about.len && !kept->about.text) || (a->name && !kept->name))
		return false;
	kept->hash = hash_of(&a->about, a->want, a->flags, a->detail, a->name);
	for (i = kept->hash; store->places[i % PLACES]; i++)
		;
	store->places[i % PLACES] = (u16)(++n_answers);
	return true;
}

static bool same_subject(const struct subject *a, const struct subject *b)
{
	return a->kind == b->kind && a->id == b->id && a->generation == b->generation &&
	       a->len == b->len && !memcmp(a->text, b->text, b->len);
}

static bool is_about(const struct answer *a, const struct subject *about, const struct question *q)
{
	return a->want == q->want && a->flags == q->flags && a->detail == q->detail &&
	       same_subject(&a->about, about) && !a->name == !q->name &&
	       (!q->name || str_equal(a->name, q->name));
}

void recorded_drop_attributes(const struct subject *about)
{
	for (u32 i = 0; i < n_answers; i++) {
		struct answer *a = &store->answers[i];

		if ((a->want == WANT_STAT || a->want == WANT_STATX) && !S_ISDIR(a->inode.mode) &&
		    same_subject(&a->about, about))
			a->used = true;
	}
}

struct answer *recorded_find(const struct subject *about, const struct question *q,
			     struct answer *last)
{
	u64 hash = hash_of(about, q->want, q->flags, q->detail, q->name);
	bool behind = !last;

	if (epoch != epoch_now())
		return NULL;
	for (u64 i = hash; store->places[i % PLACES]; i++) {
		struct answer *a = &store->answers[store->places[i % PLACES] - 1];

		if (behind && a->hash == hash && is_about(a, about, q))
			return a;
		behind = behind || a == last;
	}
	return NULL;
}

// --- descriptors -----------------------------------------------------------

void recorded_bind(int fd, u32 file)
{
	if (bound && fd >= 0 && (u32)fd < FDS)
		__atomic_store_n(&bound[fd], file, __ATOMIC_RELAXED);
}

u32 recorded_file_of(int fd)
{
	if (!bound || fd < 0 || (u32)fd >= FDS)
		return 0;
	return __atomic_load_n(&bound[fd], __ATOMIC_RELAXED);
}

void recorded_forget(u64 first, u64 to)
{
	for (u64 fd = first; bound && fd <= to && fd < FDS; fd++)
		recorded_bind((int)fd, 0);
}
