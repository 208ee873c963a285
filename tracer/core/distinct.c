// SPDX-License-Identifier: MIT
#include "distinct.h"

#include <stdlib.h>

bool distinct_init(struct distinct *d, u64 most)
{
	u64 size = 64;

	while (size < 2 * most)
		size *= 2;
	// Large ones come from the kernel, zero and untouched: only what is used costs.
	d->slots = calloc(size, sizeof(*d->slots));
	d->mask = size - 1;
	d->n = 0;
	return d->slots;
}

void distinct_deinit(struct distinct *d)
{
	free(d->slots);
}
