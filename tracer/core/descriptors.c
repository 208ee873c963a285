// SPDX-License-Identifier: MIT
#include "descriptors.h"

#include <stdlib.h>

#define LEAST_SLOTS 16

void table_deinit(struct table *t)
{
	free(t->slots);
	*t = (struct table){ 0 };
}

static u32 home(const struct table *t, s32 fd)
{
	// Neighbours lie side by side: most tables have the descriptors from 0 on.
	return (u32)fd & t->mask;
}

/* Where a descriptor is, or where it would go. */
static struct descriptor *slot(const struct table *t, s32 fd)
{
	u32 i = home(t, fd);

	while (t->slots[i].used && t->slots[i].fd != fd)
		i = (i + 1) & t->mask;
	return &t->slots[i];
}

struct descriptor *table_find(const struct table *t, s32 fd)
{
	struct descriptor *found;

	if (!t->slots)
		return NULL;
	found = slot(t, fd);
	return found->used ? found : NULL;
}

static bool grow(struct table *t)
{
	u32 size = t->slots ? 2 * (t->mask + 1) : LEAST_SLOTS;
	struct table wider = { calloc(size, sizeof(*t->slots)), size - 1, t->n, t->started };

	if (!wider.slots)
		return false;
	for (u32 i = 0; t->slots && i <= t->mask; i++)
		if (t->slots[i].used)
			*slot(&wider, t->slots[i].fd) = t->slots[i];
	free(t->slots);
	*t = wider;
	return true;
}

struct descriptor *table_make(struct table *t, s32 fd)
{
	struct descriptor *found;

	if ((!t->slots || 2 * t->n > t->mask) && !grow(t))
		return NULL;
	found = slot(t, fd);
	if (!found->used) {
		*found = (struct descriptor){ .fd = fd, .used = true };
		t->n++;
	}
	return found;
}

void table_remove(struct table *t, s32 fd)
{
	struct descriptor *found = table_find(t, fd);
	u32 hole, i;

	if (!found)
		return;
	found->used = false;
	t->n--;
	// Let those behind it close up that would be sought past the hole.
	hole = (u32)(found - t->slots);
	for (i = (hole + 1) & t->mask; t->slots[i].used; i = (i + 1) & t->mask) {
		u32 from = home(t, t->slots[i].fd);

		if (((i - from) & t->mask) < ((i - hole) & t->mask))
			continue;
		t->slots[hole] = t->slots[i];
		t->slots[i].used = false;
		hole = i;
	}
}

bool table_copy(struct table *t, const struct table *from)
{
	size_t size = from->slots ? (from->mask + 1) * sizeof(*from->slots) : 0;

	if (!size)
		return true;
	t->slots = malloc(size);
	if (!t->slots)
		return false;
	memcpy(t->slots, from->slots, size);
	t->mask = from->mask;
	t->n = from->n;
	return true;
}

void table_remove_all(struct table *t, s64 first, s64 last, bool cloexec)
{
	for (u32 i = 0; t->slots && i <= t->mask;) {
		const struct descriptor *d = &t->slots[i];

		// Another one may come into its place.
		if (d->used && d->fd >= first && d->fd <= last && (d->cloexec || !cloexec))
			table_remove(t, d->fd);
		else
			i++;
	}
}
