// SPDX-License-Identifier: GPL-2.0
/*
 * Memory for the time of an operation. Where the kernel zeroes what it allocates
 * (init_on_alloc), a fresh one costs 18,000 instructions, more than a directory
 * of ten entries is worth; so a few are kept. Nothing is read from them that the
 * same operation did not write.
 */
#include <linux/mm.h>
#include <linux/slab.h>

#include "cosy.h"

#define KEPT 4

static struct cosy_scratch *kept[KEPT];

struct cosy_scratch *cosy_scratch_get(void)
{
	u32 i;

	for (i = 0; i < KEPT; i++) {
		struct cosy_scratch *s = READ_ONCE(kept[i]) ? xchg(&kept[i], NULL) : NULL;

		if (s)
			return s;
	}
	return kvmalloc(sizeof(struct cosy_scratch), GFP_KERNEL_ACCOUNT);
}

void cosy_scratch_put(struct cosy_scratch *s)
{
	u32 i;

	for (i = 0; i < KEPT; i++)
		if (!READ_ONCE(kept[i]) && !cmpxchg(&kept[i], NULL, s))
			return;
	kvfree(s);
}

void cosy_scratch_exit(void)
{
	u32 i;

	for (i = 0; i < KEPT; i++)
		kvfree(kept[i]);
}
