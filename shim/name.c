// SPDX-License-Identifier: MIT
#include "name.h"

bool name_is_entry(const struct name *name)
{
	const u64 dot = '.', dots = '.' | '.' << 8;

	for (u32 i = 0; i < name_words(name->len); i++)
		if (has_byte(name->words[i], '/'))
			return false;
	return name->len > 2 || (name->len == 2 && name->words[0] != dots) ||
	       (name->len == 1 && name->words[0] != dot);
}

// A name that may reach into the next page, or that is too long.
static COLD bool take_carefully(struct name *to, const char *s)
{
	long len = mem_strlen(s, 8 * NAME_WORDS - 1);

	if (len < 0)
		return false;
	to->len = (u32)len;
	to->words[len / 8] = 0;
	memcpy(to->words, s, (size_t)len);
	to->hash = name_hash(to->words, to->len);
	return true;
}

bool name_take(struct name *to, const char *s)
{
	// Up to here a word can be loaded without crossing into the next page.
	const char *end = (const char *)PAGE_UP((u64)s + 1) - 7, *at = s;
	u64 hash = 0, word, nul;
	u32 i = 0, rest;

	if (!mem_page_readable(s))
		return false;
	for (;;) {
		if (unlikely(at >= end))
			return take_carefully(to, s);
		word = load_word(at);
		nul = zero_bytes(word);
		if (nul)
			break;
		if (i == NAME_WORDS - 1)
			return false;
		to->words[i++] = word;
		hash = name_mix(hash, word);
		at += 8;
	}
	rest = (u32)__builtin_ctzl(nul) & ~7u;
	to->len = i * 8 + rest / 8;
	if (rest) {
		word &= (1ul << rest) - 1;
		to->words[i] = word;
		hash = name_mix(hash, word);
	}
	to->hash = name_hash_of(hash);
	return true;
}
