/* SPDX-License-Identifier: MIT */
/*
 * The table of leaf.h as it lies in the file `leaves`, which cosy-auto reads,
 * too. Whoever has it mapped may change any of it at any time.
 */
#ifndef COSY_LEAF_TABLE_H
#define COSY_LEAF_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#define LEAF_FILE "leaves"
#define LEAF_MAGIC 0x326661656c79736ful /* another value: another layout, or another meaning */
#define LEAF_SLOTS 1024u /* a power of two */
#define LEAF_TRIES 4u
#define LEAF_RUNS_KNOWN 8 /* without a gain, before a program is left alone */
#define LEAF_TRY_AGAIN 32 /* one exec in so many */
#define LEAF_RUNS_PER_GAIN 64 /* a gain is remembered for so many runs */
#define LEAF_RUNS_LATE 200 /* from then on the past counts half */

struct leaf_slot {
	uint64_t key;
	uint16_t runs, gains;
	uint16_t skipped; /* execs that left it alone */
	uint8_t execs; /* it starts others */
	uint8_t longs; /* of the runs: of so much work that the shim's start was no matter */
};

struct leaf_table {
	uint64_t magic;
	uint64_t pad;
	struct leaf_slot slots[LEAF_SLOTS];
};

/* splitmix64's finalizer (G. Steele, D. Lea, C. Flood, OOPSLA 2014). */
static inline uint64_t leaf_mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ul;
	x = (x ^ x >> 27) * 0x94d049bb133111ebul;
	return x ^ x >> 31;
}

/* What a program's file, or a script's, is known by; changes when the file does. Never 0. */
static inline uint64_t leaf_key(const struct stat *st)
{
	uint64_t key = leaf_mix(st->st_dev) ^ st->st_ino;

	key = leaf_mix(key) ^ (uint64_t)st->st_size;
	key = leaf_mix(key) ^ (uint64_t)st->st_mtim.tv_sec;
	return leaf_mix(leaf_mix(key) ^ (uint64_t)st->st_mtim.tv_nsec) | 1;
}

/* Is this the file of user `uid`, and nobody else's to write? */
static inline bool leaf_file_ours(const struct stat *st, uint32_t uid)
{
	return S_ISREG(st->st_mode) && !(st->st_mode & 022) && st->st_uid == uid;
}

/* Is it a table, all of which has storage? Of a hole a full disk would make a bus error. */
static inline bool leaf_file_valid(const struct stat *st, uint32_t uid)
{
	return leaf_file_ours(st, uid) && st->st_size == sizeof(struct leaf_table) &&
	       st->st_blocks * 512 >= st->st_size;
}

/* The slot of a program, a new one if need be. */
static inline struct leaf_slot *leaf_slot(struct leaf_table *t, uint64_t key)
{
	struct leaf_slot *at = &t->slots[(key >> 1) & (LEAF_SLOTS - 1)];

	for (uint32_t i = LEAF_TRIES; i-- > 0;) {
		struct leaf_slot *s = &t->slots[((key >> 1) + i) & (LEAF_SLOTS - 1)];
		uint64_t is = __atomic_load_n(&s->key, __ATOMIC_RELAXED);

		if (is == key)
			return s;
		if (!is)
			at = s;
	}
	*at = (struct leaf_slot){ .key = key };
	return at;
}

/*
 * An exec of this program. Would the shim be for nothing there, as far as is known? Counts both.
 * `asked`: the user named this program, which is worth a try where it costs next to nothing.
 */
static inline bool leaf_exec_pointless(struct leaf_table *t, uint64_t key, bool asked)
{
	struct leaf_slot *s = leaf_slot(t, key);

	if (!s->execs && s->runs >= LEAF_RUNS_KNOWN &&
	    (s->gains + (asked ? s->longs : 0)) * LEAF_RUNS_PER_GAIN <= s->runs &&
	    ++s->skipped % LEAF_TRY_AGAIN)
		return true;
	s->skipped = 0;
	if (++s->runs > LEAF_RUNS_LATE) {
		s->runs /= 2;
		s->gains /= 2;
		s->longs /= 2;
	}
	return false;
}

#endif
