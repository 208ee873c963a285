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

/* How many digits of about the same size some bits are; few elements do not pay for many counts. */
static u32 digits_of(u64 n, u32 bits)
{
	u32 most = bits_of(n) < DIGIT ? bits_of(n) : DIGIT;

	return (bits + most - 1) / most;
}

/* Turn the counts of a digit's values into the places where the first element of each goes. */
static void place(u32 *count, u64 mask)
{
	u32 begin = 0;

	for (u64 i = 0; i <= mask; i++) {
		u32 size = count[i];

		count[i] = begin;
		begin += size;
	}
}

/*
 * Sort the elements by `bits` bits from `low` on; ties keep their order. The last digit brings the places
 * themselves into order, in `to`: those of rows, or what `out` has there.
 */
static void sort_digit(struct sort *s, u32 low, u32 bits, bool last)
{
	u64 digit = (1ul << bits) - 1, rows = (1ul << s->place_bits) - 1, *from = s->from,
	    *to = s->to;
	u32 count[1 << DIGIT];

	memset(count, 0, (digit + 1) * sizeof(*count));
	for (u64 i = 0; i < s->n; i++)
		count[from[i] >> low & digit]++;
	place(count, digit);
	if (last && s->begun) {
		for (u64 i = 0; i < s->n; i++)
			to[count[from[i] >> low & digit]++] = (u64)s->out[from[i] & rows];
	} else if (last) {
		for (u64 i = 0; i < s->n; i++)
			s->out[count[from[i] >> low & digit]++] = (s64)(from[i] & rows);
	} else {
		for (u64 i = 0; i < s->n; i++)
			to[count[from[i] >> low & digit]++] = from[i];
		s->from = to;
		s->to = from;
	}
}

/* Sort by the bits that the elements have, and bring `out` into their order. */
static void finish_round(struct sort *s)
{
	u32 digits = digits_of(s->n, s->used);
	u32 low = s->place_bits;

	if (!is_sorted(s->from, s->n)) {
		for (; digits; digits--) {
			u32 bits = (s->place_bits + s->used - low) / digits;

			sort_digit(s, low, bits, digits == 1);
			low += bits;
		}
		if (s->begun)
			memcpy(s->out, s->to, s->n * sizeof(*s->out));
	} else if (!s->begun) {
		for (u64 i = 0; i < s->n; i++)
			s->out[i] = (s64)i;
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

static bool is_rising(const s64 *key, u64 n)
{
	for (u64 i = 1; i < n; i++) {
		if (key[i] < key[i - 1])
			return false;
	}
	return true;
}

/* Order rows by one key of few bits: no elements are needed. */
static void order_by_digit(const s64 *key, u64 n, struct span span, s64 *out)
{
	u64 low = (u64)span.low;
	u32 count[1 << DIGIT] = { 0 };

	for (u64 i = 0; i < n; i++)
		count[(u64)key[i] - low]++;
	place(count, (1ul << span.bits) - 1);
	for (u64 i = 0; i < n; i++)
		out[count[(u64)key[i] - low]++] = (s64)i;
}

/* Order rows by one key whose bits fit an element; by the first digit while elements are made. */
static int order_by_one(const s64 *key, u64 n, struct span span, s64 *out)
{
	struct sort s = { .n = n, .place_bits = bits_of(n), .used = span.bits, .out = out };
	u32 digits = digits_of(n, span.bits), bits = span.bits / digits;
	u64 mask = (1ul << bits) - 1, low = (u64)span.low, *memory;
	u32 count[1 << DIGIT] = { 0 };

	memory = malloc((digits > 2 ? 2 : 1) * n * sizeof(*memory));
	if (!memory)
		return -1;
	s.from = memory;
	s.to = memory + n;
	for (u64 i = 0; i < n; i++)
		count[((u64)key[i] - low) & mask]++;
	place(count, mask);
	for (u64 i = 0; i < n; i++) {
		u64 value = (u64)key[i] - low;

		memory[count[value & mask]++] = value << s.place_bits | i;
	}
	for (u32 done = bits; --digits; done += bits) {
		bits = (span.bits - done) / digits;
		sort_digit(&s, s.place_bits + done, bits, digits == 1);
	}
	free(memory);
	return 0;
}

EXPORT int cosy_order(const s64 *const *keys, u32 n_keys, u64 n, s64 *out)
{
	struct sort s = { .n = n, .place_bits = bits_of(n), .out = out };
	u64 *memory;

	if (!n)
		return 0;
	if (n_keys == 1 && !is_rising(keys[0], n)) {
		struct span span = span_of(keys[0], n);

		if (digits_of(n, span.bits) == 1) {
			order_by_digit(keys[0], n, span, out);
			return 0;
		}
		if (s.place_bits + span.bits <= 64)
			return order_by_one(keys[0], n, span, out);
	} else if (n_keys == 1) {
		n_keys = 0;
	}
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
