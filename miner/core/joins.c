// SPDX-License-Identifier: MIT
/* Joins over time, and sums over rows. */
#include <stdlib.h>

#include "api.h"

/* Definitions by key and time; those of one key are a group. */
struct groups {
	u64 n;
	s64 *key; /* by group, rising */
	u64 *begin; /* by group, and one more */
	u64 *last; /* by group: place behind the one found last */
	s64 *time; /* by place */
	s64 *index; /* by place */
};

/* The group of a key, n: there is none. */
static u64 group_of(const struct groups *g, s64 key)
{
	u64 low = 0, high = g->n;

	while (low < high) {
		u64 middle = (low + high) / 2;

		if (g->key[middle] < key)
			low = middle + 1;
		else
			high = middle;
	}
	return low < g->n && g->key[low] == key ? low : g->n;
}

/* How many places of a group, and before it, are not later; mostly as many as the last time. */
static u64 place_behind(struct groups *g, u64 group, s64 time)
{
	u64 low = g->begin[group], high = g->begin[group + 1], at = g->last[group];

	if ((at == low || g->time[at - 1] <= time) && (at == high || g->time[at] > time))
		return at;
	while (low < high) {
		u64 middle = (low + high) / 2;

		if (g->time[middle] <= time)
			low = middle + 1;
		else
			high = middle;
	}
	g->last[group] = low;
	return low;
}

EXPORT int cosy_last_before(const struct cosy_points *definitions, const struct cosy_points *uses,
			    s64 *out)
{
	const s64 *keys[] = { definitions->key, definitions->time };
	u64 n = definitions->n, group = 0;
	s64 *memory = calloc(5 * n + 1, sizeof(*memory));
	struct groups g = {
		.key = memory,
		.time = memory + n,
		.index = memory + 2 * n,
		.begin = (u64 *)memory + 3 * n,
		.last = (u64 *)memory + 4 * n + 1,
	};

	if (!memory || cosy_order(keys, 2, n, g.index)) {
		free(memory);
		return -1;
	}
	for (u64 i = 0; i < n; i++) {
		s64 key = definitions->key[g.index[i]];

		g.time[i] = definitions->time[g.index[i]];
		if (!g.n || key != g.key[g.n - 1]) {
			g.key[g.n] = key;
			g.last[g.n] = g.begin[g.n] = i;
			g.n++;
		}
	}
	g.begin[g.n] = n;
	for (u64 i = 0; i < uses->n; i++) {
		u64 place;

		// Uses of one key follow each other.
		if (!i || uses->key[i] != uses->key[i - 1])
			group = group_of(&g, uses->key[i]);
		out[i] = -1;
		if (group == g.n)
			continue;
		place = place_behind(&g, group, uses->time[i]);
		if (place > g.begin[group])
			out[i] = g.index[place - 1];
	}
	free(memory);
	return 0;
}

EXPORT void cosy_sums(const s64 *values, const s64 *rows, u64 n, const s64 *begin, u64 n_groups,
		      s64 *out)
{
	for (u64 group = 0; group < n_groups; group++) {
		u64 end = group + 1 < n_groups ? (u64)begin[group + 1] : n;
		s64 sum = 0;

		for (u64 i = (u64)begin[group]; i < end; i++)
			sum += values[rows[i]];
		out[group] = sum;
	}
}
