// SPDX-License-Identifier: MIT
/* Sorts positions by their keys, a few bits at a time from the lowest ones on. */
#include <stdlib.h>
#include <string.h>

#include "api.h"

#define DIGIT 11 /* bits; so many counts fit the nearest cache */

/*
 * An element is some bits of the keys above the place of a row: a word is sorted faster than a pair, and
 * as many bits as do not fit wait for the next round.
 */
struct sort {
	u64 n;
	u32 place_bits;
	u32 used; /* bits of the keys in the elements */
	bool begun; /* there was a round: places are those in `out` */
	u64 *from, *to; /* elements */
	s64 *out;
};

static u32 bits_of(u64 number)
{
	return number ? 64 - (u32)__builtin_clzl(number) : 0;
}

static bool is_sorted(const u64 *elements, u64 n)
{
	for (u64 i = 1; i < n; i++) {
		if (elements[i] < elements[i - 1])
			return false;
	}
	return true;
}

/* Sort the elements by `bits` bits from `low` on; ties keep their order. */
static void sort_digit(struct sort *s, u32 low, u32 bits)
{
	u64 mask = (1ul << bits) - 1, begin = 0, *from = s->from, *to = s->to;
	u32 count[1 << DIGIT];

	memset(count, 0, (mask + 1) * sizeof(*count));
	for (u64 i = 0; i < s->n; i++)
		count[from[i] >> low & mask]++;
	for (u64 i = 0; i <= mask; i++) {
		u32 size = count[i];

		count[i] = (u32)begin;
		begin += size;
	}
	for (u64 i = 0; i < s->n; i++)
		to[count[from[i] >> low & mask]++] = from[i];
	s->from = to;
	s->to = from;
}

/* Sort by the bits that the elements have, and bring `out` into their order. */
static void finish_round(struct sort *s)
{
	// Few elements do not pay for many counts.
	u32 most = bits_of(s->n) < DIGIT ? bits_of(s->n) : DIGIT;
	u32 digits = (s->used + most - 1) / most;
	u64 mask = (1ul << s->place_bits) - 1;
	u32 low = s->place_bits;

	if (!is_sorted(s->from, s->n)) {
		for (; digits; digits--) {
			u32 bits = (s->place_bits + s->used - low) / digits;

			sort_digit(s, low, bits);
			low += bits;
		}
	}
	if (s->begun) {
		for (u64 i = 0; i < s->n; i++)
			s->to[i] = (u64)s->out[s->from[i] & mask];
		memcpy(s->out, s->to, s->n * sizeof(*s->out));
	} else {
		for (u64 i = 0; i < s->n; i++)
			s->out[i] = (s64)(s->from[i] & mask);
	}
	s->begun = true;
	s->used = 0;
}

/* Add a key in front of those before, which weigh less. */
static void add(struct sort *s, const s64 *key)
{
	struct span span = span_of(key, s->n);
	u64 low = (u64)span.low;

	for (u32 done = 0; done < span.bits;) {
		u32 room = 64 - s->place_bits - s->used;
		u32 bits = span.bits - done < room ? span.bits - done : room;
		u32 shift = s->place_bits + s->used;
		u64 mask = ~0ul >> (64 - bits), *to = s->from;

		if (s->begun) {
			for (u64 i = 0; i < s->n; i++) {
				u64 digits = ((u64)key[s->out[i]] - low) >> done & mask;

				to[i] = (s->used ? to[i] : i) | digits << shift;
			}
		} else if (s->used) {
			for (u64 i = 0; i < s->n; i++)
				to[i] |= (((u64)key[i] - low) >> done & mask) << shift;
		} else {
			for (u64 i = 0; i < s->n; i++)
				to[i] = i | (((u64)key[i] - low) >> done & mask) << shift;
		}
		done += bits;
		s->used += bits;
		if (s->used + s->place_bits == 64)
			finish_round(s);
	}
}

EXPORT int cosy_order(const s64 *const *keys, u32 n_keys, u64 n, s64 *out)
{
	struct sort s = { .n = n, .place_bits = bits_of(n), .out = out };
	u64 *memory;

	if (!n)
		return 0;
	memory = malloc(2 * n * sizeof(*memory));
	if (!memory)
		return -1;
	s.from = memory;
	s.to = memory + n;
	for (u32 i = n_keys; i-- > 0;)
		add(&s, keys[i]);
	if (s.used)
		finish_round(&s);
	for (u64 i = 0; !s.begun && i < n; i++)
		out[i] = (s64)i;
	free(memory);
	return 0;
}
