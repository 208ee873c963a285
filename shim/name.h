/* SPDX-License-Identifier: MIT */
/*
 * The name of a directory's entry as the shim compares it: by whole words, padded
 * with NULs, as executors pad the names of their records.
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

/* A name where it lies: whole words can be loaded there, the last of which may go beyond it. */
struct name_at {
	const char *s;
	u32 len, hash;
};

/* Is it the one of these padded words? */
static inline bool name_equal(const struct name_at *name, const u64 *words)
{
	const char *at = name->s, *end = at + name->len / 8 * 8;
	u32 rest = name->len % 8;

	for (; at < end; at += 8, words++)
		if (load_word(at) != *words)
			return false;
	return !rest || !((load_word(at) ^ *words) << (64 - 8 * rest));
}

/*
 * One pass over the program's string. False: it cannot be read, is no name, or may reach into the
 * next page; name_take() may know better.
 */
static inline bool name_scan(struct name_at *to, const char *s)
{
	// Up to here a word can be loaded without crossing into the next page.
	const char *end = (const char *)PAGE_UP((u64)s + 1) - 7, *at = s;
	u64 hash = 0, word, nul;
	u32 bits;

	if (!mem_page_readable(s))
		return false;
	for (;; at += 8) {
		if (unlikely(at >= end))
			return false;
		word = load_word(at);
		nul = zero_bytes(word);
		if (nul)
			break;
		hash = name_mix(hash, word);
	}
	bits = (u32)__builtin_ctzl(nul) & ~7u;
	if (bits)
		hash = name_mix(hash, word & ((1ul << bits) - 1));
	to->s = s;
	to->len = (u32)(at - s) + bits / 8;
	to->hash = name_hash_of(hash);
	return to->len < 8 * NAME_WORDS;
}

/* A copy. False: the string cannot be read, or is longer than names are. */
HIDDEN bool name_take(struct name *to, const char *s);
static inline struct name_at name_in(const struct name *name)
{
	return (struct name_at){ (const char *)name->words, name->len, name->hash };
}
/* False: it has a slash, or is empty, "." or "..": no directory has such an entry. */
HIDDEN bool name_is_entry(const struct name *name);

#endif
