/* SPDX-License-Identifier: MIT */
/*
 * The name of a directory's entry as the shim compares it: whole words, padded
 * with NULs, as executors pad the names of their records. One pass over the
 * program's string copies and hashes it.
 */
#ifndef COSY_NAME_H
#define COSY_NAME_H

#include "mem.h"
#include "sys.h"

#define NAME_WORDS 32u /* the longest name of Linux, and its NUL */

struct name {
	u32 len; /* bytes, without the NUL */
	u32 hash;
	u64 words[NAME_WORDS]; /* of which len bytes and padding are set */
};

static inline u32 name_words(u32 len)
{
	return (len + 7) / 8;
}

static inline u64 name_mix(u64 hash, u64 word)
{
	return ((hash << 5 | hash >> 59) ^ word) * 0x9e3779b97f4a7c15ul;
}

// What differs at a name's end only must differ in the lowest bits, too.
static inline u32 name_hash_of(u64 mixed)
{
	return (u32)(name_mix(mixed >> 32, mixed) >> 32);
}

static inline u32 name_hash(const u64 *words, u32 len)
{
	u64 hash = 0;

	for (u32 i = 0; i < name_words(len); i++)
		hash = name_mix(hash, words[i]);
	return name_hash_of(hash);
}

static inline bool name_equal(const u64 *a, const u64 *b, u32 len)
{
	for (u32 i = 0; i < name_words(len); i++)
		if (a[i] != b[i])
			return false;
	return true;
}

/* Is the string at s this name? False, too, where it cannot be told at once. */
static inline bool name_is(const struct name *name, const char *s)
{
	return ((u64)s & (PAGE_SIZE - 1)) + name->len < PAGE_SIZE && mem_page_readable(s) &&
	       same_bytes(s, name->words, name->len) && !s[name->len];
}

/* False: the string cannot be read, or is longer than names are. */
HIDDEN bool name_take(struct name *to, const char *s);
/* False: it has a slash, or is empty, "." or "..": no directory has such an entry. */
HIDDEN bool name_is_entry(const struct name *name);

#endif
