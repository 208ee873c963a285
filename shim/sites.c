// SPDX-License-Identifier: MIT
/*
 * A site is the address behind a system call instruction, as module and offset:
 * the same in every process of a run. The first process that meets one takes a
 * place in the shared file for it. Place 0 is for those that find none.
 */
#include "sites.h"

#include <elf.h>
#include <link.h>

#define MODULES 16
#define KNOWN 32

static struct {
	u64 start, end; // addresses
	const char *path;
} modules[MODULES];
static u32 n_modules;

// Sites of this process that have their place. Guarded by the lock of fence.h.
static struct {
	u64 site;
	u16 place;
} known[KNOWN];
static u32 n_known;

static u64 end_of(const u8 *base)
{
	const Elf64_Ehdr *eh = (const void *)base;
	const Elf64_Phdr *ph = (const void *)(base + eh->e_phoff);
	u64 end = 0;

	for (u32 i = 0; i < eh->e_phnum; i++)
		if (ph[i].p_type == PT_LOAD && ph[i].p_vaddr + ph[i].p_memsz > end)
			end = ph[i].p_vaddr + ph[i].p_memsz;
	return (u64)base + end;
}

void sites_start(void)
{
	for (struct link_map *l = _r_debug.r_map; l && n_modules < MODULES; l = l->l_next) {
		// Programs themselves, and the kernel's vdso, make no calls that we see.
		if (!l->l_addr || !l->l_name || l->l_name[0] != '/')
			continue;
		modules[n_modules].start = l->l_addr;
		modules[n_modules].end = end_of((const u8 *)l->l_addr);
		modules[n_modules++].path = l->l_name;
	}
}

// FNV-1a of the path, and the offset; never 0.
static u64 key_of(const char *path, u64 offset)
{
	return fnv1a(FNV1A_START ^ offset, path, strlen(path)) ?: 1;
}

static void describe(struct cosy_site *to, const char *path, u64 offset)
{
	size_t len = strlen(path);

	to->offset = offset;
	if (len < sizeof(to->module))
		memcpy(to->module, path, len);
}

static u16 take_place(const char *path, u64 offset)
{
	u64 key = key_of(path, offset);

	for (u16 i = 1; i < COSY_STATS_SITES; i++) {
		struct cosy_site *s = &cosy_stats->site[i];
		u64 there = 0;

		if (__atomic_compare_exchange_n(&s->key, &there, key, false, __ATOMIC_RELAXED,
						__ATOMIC_RELAXED)) {
			describe(s, path, offset);
			return i;
		}
		if (there == key)
			return i;
	}
	return 0;
}

static u16 place_of(const struct regs *r)
{
	u64 site = regs_site(r);
	u16 place = 0;

	for (u32 i = 0; i < n_known; i++)
		if (known[i].site == site)
			return known[i].place;
	for (u32 i = 0; i < n_modules; i++)
		if (site >= modules[i].start && site < modules[i].end)
			place = take_place(modules[i].path, site - modules[i].start);
	if (n_known < KNOWN) {
		known[n_known].site = site;
		known[n_known++].place = place;
	}
	return place;
}

u16 sites_fired(const struct regs *r, u32 results)
{
	u16 place = place_of(r);

	stats_add(site[place].fired, 1);
	stats_add(site[place].results, results);
	return place;
}

void sites_served(const struct regs *r, u16 by, bool first)
{
	stats_add(site[place_of(r)].served, 1);
	if (first)
		stats_add(site[by].used, 1);
}
