// SPDX-License-Identifier: MIT
/* Numbers for distinct rows, in the order of their appearance. */
#include <stdlib.h>

#include "api.h"

#define TABLE_PER_ROW 2 /* a table of so many values per row is faster than hashing */

/* Open addressing. */
struct slot {
	u64 word;
	u64 number; /* + 1; 0: free */
};

struct numbers {
	struct slot *slots;
	u64 size; /* a power of two, at least twice n */
	u64 n;
};

static struct slot *slot_of(struct numbers *d, u64 word)
{
	u64 hash = word * 0x9e3779b97f4a7c15ul, mask = d->size - 1;
	u64 at = (hash ^ hash >> 32) & mask;

	while (d->slots[at].number && d->slots[at].word != word)
		at = (at + 1) & mask;
	return &d->slots[at];
}

static bool grow(struct numbers *d)
{
	struct numbers larger = { .size = 4 * d->size, .n = d->n };

	larger.slots = calloc(larger.size, sizeof(*larger.slots));
	if (!larger.slots)
		return false;
	for (u64 i = 0; i < d->size; i++) {
		if (d->slots[i].number)
			*slot_of(&larger, d->slots[i].word) = d->slots[i];
	}
	free(d->slots);
	*d = larger;
	return true;
}

static s64 by_hash(const u64 *word, u64 n, s64 *number, s64 *first)
{
	struct numbers d = { .size = 1024 };
	s64 found = -1;

	d.slots = calloc(d.size, sizeof(*d.slots));
	for (u64 i = 0; d.slots && i < n; i++) {
		struct slot *slot;

		if (i && word[i] == word[i - 1]) {
			number[i] = number[i - 1];
			continue;
		}
		slot = slot_of(&d, word[i]);
		if (!slot->number) {
			*slot = (struct slot){ word[i], ++d.n };
			first[d.n - 1] = (s64)i;
			number[i] = (s64)d.n - 1;
			if (2 * d.n > d.size && !grow(&d))
				goto out;
		} else {
			number[i] = (s64)slot->number - 1;
		}
	}
	if (d.slots)
		found = (s64)d.n;
out:
	free(d.slots);
	return found;
}

/* Words below 2^bits. */
static s64 by_table(const u64 *word, u32 bits, u64 n, s64 *number, s64 *first)
{
	u32 *table = calloc(1ul << bits, sizeof(*table)); /* number + 1; 0: none yet */
	u32 found = 0;

	if (!table)
		return -1;
	for (u64 i = 0; i < n; i++) {
		u32 *entry = &table[word[i]];

		if (!*entry) {
			first[found] = (s64)i;
			*entry = ++found;
		}
		number[i] = *entry - 1;
	}
	free(table);
	return found;
}

static s64 number_words(const u64 *word, u32 bits, u64 n, s64 *number, s64 *first)
{
	if (bits < 40 && 1ul << bits <= TABLE_PER_ROW * n)
		return by_table(word, bits, n, number, first);
	return by_hash(word, n, number, first);
}

/* Put numbers in the place of words; returns how many bits they have, or -1. */
static int shorten(u64 *word, u32 bits, u64 n, s64 *number, s64 *first)
{
	s64 found = number_words(word, bits, n, number, first);

	if (found < 0)
		return -1;
	for (u64 i = 0; i < n; i++)
		word[i] = (u64)number[i];
	return 64 - __builtin_clzl((u64)found);
}

/* Add a key to words of `bits` bits; returns how many they have then, or -1. `more`: room for a column. */
static int add(u64 *word, u32 bits, const s64 *key, u64 n, s64 *number, s64 *first, u64 *more)
{
	struct span span = span_of(key, n);
	int shorter;

	if (!bits) {
		for (u64 i = 0; i < n; i++)
			word[i] = (u64)key[i] - (u64)span.low;
		return (int)span.bits;
	}
	if (bits + span.bits <= 64) {
		for (u64 i = 0; span.bits && i < n; i++)
			word[i] |= ((u64)key[i] - (u64)span.low) << bits;
		return (int)(bits + span.bits);
	}
	// Numbers have 32 bits at most.
	shorter = shorten(word, bits, n, number, first);
	if (shorter < 0)
		return -1;
	bits = (u32)shorter;
	for (u64 i = 0; i < n; i++)
		more[i] = (u64)key[i] - (u64)span.low;
	if (bits + span.bits > 64) {
		shorter = shorten(more, span.bits, n, number, first);
		if (shorter < 0)
			return -1;
		span.bits = (u32)shorter;
	}
	for (u64 i = 0; i < n; i++)
		word[i] |= more[i] << bits;
	return (int)(bits + span.bits);
}

EXPORT s64 cosy_dense(const s64 *const *keys, u32 n_keys, u64 n, s64 *number, s64 *first)
{
	u64 *word = malloc((2 * n + 1) * sizeof(*word));
	s64 found = -1;
	int bits = 0;

	if (!word)
		return -1;
	for (u32 i = 0; n && i < n_keys && bits >= 0; i++)
		bits = add(word, (u32)bits, keys[i], n, number, first, word + n);
	if (bits >= 0)
		found = n ? number_words(word, (u32)bits, n, number, first) : 0;
	free(word);
	return found;
}
