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
	struct name_at name;

	if (unlikely(!name_scan(&name, s)))
		return take_carefully(to, s);
	to->len = name.len;
	to->hash = name.hash;
	to->words[name.len / 8] = 0;
	for (u32 i = 0; i < name.len / 8; i++)
		to->words[i] = load_word(s + 8 * i);
	if (name.len % 8)
		to->words[name.len / 8] = load_word(s + name.len / 8 * 8) &
					  ((1ul << name.len % 8 * 8) - 1);
	return true;
}
