/* SPDX-License-Identifier: MIT */
/* A number for each distinct key, in the order in which they come first. */
#ifndef COSY_DISTINCT_H
#define COSY_DISTINCT_H

#include "core.h"

/* Open addressing; the caller keeps the keys. */
struct distinct {
	u64 *slots; /* upper half: of the hash; lower half: number + 1, 0: free */
	u64 mask;
	u32 n;
};

static inline u64 mix(u64 h, u64 word)
{
	h = (h ^ word) * 0x9e3779b97f4a7c15ul;
	return h ^ h >> 32;
}

static inline u64 hash_bytes(const u8 *at, u64 size)
{
	u64 h = size, word;
	u32 half;
	u16 quarter;

	for (; size >= 8; at += 8, size -= 8) {
		memcpy(&word, at, 8);
		h = mix(h, word);
	}
	// What is left; the word's size is in the hash already.
	word = 0;
	if (size & 4) {
		memcpy(&half, at, 4);
		word = half;
		at += 4;
	}
	if (size & 2) {
		memcpy(&quarter, at, 2);
		word = word << 16 | quarter;
		at += 2;
	}
	if (size & 1)
		word = word << 8 | *at;
	return mix(h, word);
}

/* Room for `most` keys; false: no memory. */
bool distinct_init(struct distinct *d, u64 most);
void distinct_deinit(struct distinct *d);

/*
 * The slot of a key: walk with distinct_next() until *slot is 0 (then store with distinct_add()) or is a
 * number + 1 whose key is the same.
 */
static inline u64 distinct_begin(const struct distinct *d, u64 hash)
{
	return hash & d->mask;
}

static inline void distinct_prefetch(const struct distinct *d, u64 hash)
{
	__builtin_prefetch(&d->slots[hash & d->mask]);
}

static inline u64 distinct_next(const struct distinct *d, u64 place)
{
	return (place + 1) & d->mask;
}

/* The number at a place whose key may be the same; NOTHING: surely not. Free places: see distinct_free(). */
static inline s64 distinct_at(const struct distinct *d, u64 place, u64 hash)
{
	u64 slot = d->slots[place];

	return slot >> 32 == hash >> 32 ? (s64)(u32)slot - 1 : NOTHING;
}

static inline bool distinct_free(const struct distinct *d, u64 place)
{
	return !(u32)d->slots[place];
}

static inline u32 distinct_add(struct distinct *d, u64 place, u64 hash)
{
	d->slots[place] = (hash >> 32 << 32) | (d->n + 1);
	return d->n++;
}

#endif
