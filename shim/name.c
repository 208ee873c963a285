// SPDX-License-Identifier: MIT
#include "name.h"

#include "mem.h"

// What is left of a page, less than a word; the bytes behind it are NUL.
static u64 rest_of_page(const char *s, const char *end)
{
	u64 word = 0;

	for (u32 i = 0; s + i < end; i++)
		word |= (u64)(u8)s[i] << 8 * i;
	return word;
}

static bool is_entry(const struct name *name)
{
	const u64 dot = '.', dots = '.' | '.' << 8;

	return name->len > 2 || (name->len == 2 && name->words[0] != dots) ||
	       (name->len == 1 && name->words[0] != dot);
}

// The word at s, which crosses the end of what was looked at so far.
static COLD bool word_across(const char *s, const char **end, u64 *word)
{
	*word = rest_of_page(s, *end);
	if (zero_bytes(*word | ~0ul << 8 * (*end - s)))
		return true;
	if (!mem_page_readable(*end))
		return false;
	*end += PAGE_SIZE;
	*word = load_word(s);
	return true;
}

bool name_take(struct name *to, const char *s)
{
	const char *end = (const char *)PAGE_UP((u64)s + 1);
	u64 hash = 0, slashes = 0;

	if (!mem_page_readable(s))
		return false;
	for (u32 i = 0; i < NAME_WORDS; i++, s += 8) {
		u64 word, nul;

		if (likely(s + 8 <= end))
			word = load_word(s);
		else if (!word_across(s, &end, &word))
			return false;
		nul = zero_bytes(word);
		if (nul) {
			u32 rest = (u32)__builtin_ctzl(nul) / 8;

			to->len = i * 8 + rest;
			word &= (1ul << 8 * rest) - 1;
			if (rest) {
				to->words[i] = word;
				hash = name_mix(hash, word);
			}
			to->hash = name_hash_of(hash);
			return !(slashes | has_byte(word, '/')) && is_entry(to);
		}
		slashes |= zero_bytes(word ^ '/' * 0x0101010101010101ul);
		to->words[i] = word;
		hash = name_mix(hash, word);
	}
	return false;
}
