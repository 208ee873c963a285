/* SPDX-License-Identifier: MIT */
/*
 * What the miner does with whole columns of integers where numpy takes many passes over them;
 * miner/compiled.py declares the same to ctypes. A column has n elements, below 2^32.
 */
#ifndef COSY_MINE_API_H
#define COSY_MINE_API_H

#include <stdbool.h>
#include <stdint.h>

typedef uint32_t u32;
typedef uint64_t u64;
typedef int64_t s64;

#define EXPORT __attribute__((visibility("default")))

/* --- order.c ---------------------------------------------------------------- */

/*
 * Write positions in rising order of the keys, the first one weighs most; ties keep their order.
 * Returns 0, or -1 for want of memory.
 */
EXPORT int cosy_order(const s64 *const *keys, u32 n_keys, u64 n, s64 *out);

/* --- dense.c ---------------------------------------------------------------- */

/*
 * Number the rows of the keys from 0 in the order of appearance, equal rows sharing one: `number` by
 * row; by number the first such row, and, unless `count` is NULL, how many there are. Returns how many numbers there are, or
 * -1 for want of memory.
 */
EXPORT s64 cosy_dense(const s64 *const *keys, u32 n_keys, u64 n, s64 *number, s64 *first,
		      s64 *count);

/* --- joins.c ---------------------------------------------------------------- */

struct cosy_points {
	const s64 *key, *time;
	u64 n;
};

/*
 * Of each use the index of the last definition with its key that is not later, -1: there is none. Of
 * definitions at the same time the last one counts. Returns 0, or -1 for want of memory.
 */
EXPORT int cosy_last_before(const struct cosy_points *definitions, const struct cosy_points *uses,
			    s64 *out);

/*
 * Write the sums of values[row] over the rows of each group, whose first one is rows[begin[group]].
 */
EXPORT void cosy_sums(const s64 *values, const s64 *rows, u64 n, const s64 *begin, u64 n_groups,
		      s64 *out);

/* --- columns.c -------------------------------------------------------------- */

enum cosy_type {
	COSY_S16,
	COSY_S32,
	COSY_U32,
	COSY_64,
};

/*
 * Copy n numbers of an enum cosy_type from `first` on; where the bit of `valid` is 0 (NULL: nowhere)
 * `missing` takes their place. Returns 0, or -1 for a type that there is not.
 */
EXPORT int cosy_fill(const void *values, u32 type, const uint8_t *valid, u64 first, u64 n,
		     s64 missing, s64 *out);

/*
 * Write of each row the last value of its group so far, -1: there was none. Values below 0 are none;
 * groups are below n_groups. Returns 0, or -1 for want of memory.
 */
EXPORT int cosy_carry(const s64 *group, u64 n_groups, const s64 *values, u64 n, s64 *out);

/* --- inside ----------------------------------------------------------------- */

/* The values of a column: its least one, and how many bits the distances from there have. */
struct span {
	s64 low;
	u32 bits;
};

static inline struct span span_of(const s64 *key, u64 n)
{
	s64 low = key[0], high = key[0];
	u64 range;

	for (u64 i = 1; i < n; i++) {
		low = key[i] < low ? key[i] : low;
		high = key[i] > high ? key[i] : high;
	}
	range = (u64)high - (u64)low;
	return (struct span){ low, range ? 64 - (u32)__builtin_clzl(range) : 0 };
}

#endif
