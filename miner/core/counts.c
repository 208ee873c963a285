// SPDX-License-Identifier: MIT
/* Counts of values within the segments of a column. */
#include <stdlib.h>

#include "api.h"

/* Open addressing; of the segment that `stamp` names, else free. */
struct slot {
	s64 value;
	u64 stamp;
	u64 at; /* in the lists of what was found */
};

struct values {
	struct slot *slots;
	u64 size; /* a power of two, at least twice n */
	u64 n; /* of the segment */
	u64 stamp;
};

static struct slot *slot_of(struct values *v, s64 value)
{
	u64 hash = (u64)value * 0x9e3779b97f4a7c15ul, mask = v->size - 1;
	u64 at = (hash ^ hash >> 32) & mask;

	while (v->slots[at].stamp == v->stamp && v->slots[at].value != value)
		at = (at + 1) & mask;
	return &v->slots[at];
}

static bool grow(struct values *v)
{
	struct values larger = { .size = 4 * v->size, .n = v->n, .stamp = v->stamp };

	larger.slots = calloc(larger.size, sizeof(*larger.slots));
	if (!larger.slots)
		return false;
	for (u64 i = 0; i < v->size; i++) {
		if (v->slots[i].stamp == v->stamp)
			*slot_of(&larger, v->slots[i].value) = v->slots[i];
	}
	free(v->slots);
	*v = larger;
	return true;
}

EXPORT s64 cosy_count(const struct cosy_segments *s, const s64 *values, const s64 *rows,
		      s64 *segment, s64 *value, s64 *count)
{
	struct values v = { .size = 1024 };
	s64 found = 0;

	v.slots = calloc(v.size, sizeof(*v.slots));
	for (u64 i = 0; v.slots && i < s->n; i++) {
		u64 end = (u64)(s->begin[i] + s->size[i]);
		struct slot *slot = NULL;

		v.n = 0;
		v.stamp = i + 1;
		for (u64 at = (u64)s->begin[i]; at < end; at++) {
			s64 one = values[rows ? (u64)rows[at] : at];

			if (s->is_int[i])
				one = (int32_t)one;
			// Equal ones follow each other.
			if (slot && slot->value == one) {
				count[slot->at]++;
				continue;
			}
			slot = slot_of(&v, one);
			if (slot->stamp == v.stamp) {
				count[slot->at]++;
				continue;
			}
			*slot = (struct slot){ one, v.stamp, (u64)found };
			segment[found] = (s64)i;
			value[found] = one;
			count[found++] = 1;
			if (2 * ++v.n > v.size) {
				slot = NULL;
				if (!grow(&v)) {
					found = -1;
					goto out;
				}
			}
		}
	}
	if (!v.slots)
		found = -1;
out:
	free(v.slots);
	return found;
}
