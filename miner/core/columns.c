// SPDX-License-Identifier: MIT
/* Columns of Arrow, and values carried along a column. */
#include <stdlib.h>

#include "api.h"

#define BLOCK 2048 /* rows */

/* The loops of one type each, so that the compiler can make them fast. */
#define WIDEN(type)                                                                                \
	do {                                                                                       \
		const type *value = (const type *)values + first;                                  \
                                                                                                   \
		for (u64 i = 0; i < n; i++)                                                        \
			out[i] = (s64)value[i];                                                    \
	} while (0)

static bool widen(const void *values, enum cosy_type type, u64 first, u64 n, s64 *out)
{
	switch (type) {
	case COSY_S16:
		WIDEN(int16_t);
		return true;
	case COSY_S32:
		WIDEN(int32_t);
		return true;
	case COSY_U32:
		WIDEN(uint32_t);
		return true;
	case COSY_64:
		WIDEN(int64_t);
		return true;
	}
	return false;
}

EXPORT int cosy_fill(const void *values, u32 type, const uint8_t *valid, u64 first, u64 n,
		     s64 missing, s64 *out)
{
	// A block is in the nearest cache when the missing ones are put into it.
	for (u64 at = 0, size; at < n; at += size) {
		size = n - at < BLOCK ? n - at : BLOCK;
		if (!widen(values, type, first + at, size, out + at))
			return -1;
		for (u64 i = at; valid && i < at + size; i++) {
			u64 bit = first + i;

			out[i] = valid[bit / 8] >> bit % 8 & 1 ? out[i] : missing;
		}
	}
	return 0;
}

EXPORT int cosy_carry(const s64 *group, u64 n_groups, const s64 *values, u64 n, s64 *out)
{
	s64 *last = malloc((n_groups + 1) * sizeof(*last));

	if (!last)
		return -1;
	for (u64 i = 0; i < n_groups; i++)
		last[i] = -1;
	for (u64 i = 0; i < n; i++) {
		if (values[i] >= 0)
			last[group[i]] = values[i];
		out[i] = last[group[i]];
	}
	free(last);
	return 0;
}
