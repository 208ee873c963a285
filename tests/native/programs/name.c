// SPDX-License-Identifier: MIT
/*
 * Names in the program's memory (shim/name.c): of every length, at every distance from a page's
 * end, behind which nothing can be read; and paths that are no names.
 */
#include "../../../shim/mem.c"
#include "../../../shim/name.c"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#define LONGEST 255u

static u8 *pages; // three; the last cannot be read

// Wrong words, length or hash; or another name passes for it.
static bool differs(const struct name_at *name, const char *s, u32 len)
{
	u64 words[NAME_WORDS] = { 0 };
	bool same;

	memcpy(words, s, len);
	same = name->len == len && name_equal(name, words) && name->hash == name_hash(words, len);
	((char *)words)[len - 1] ^= 1;
	return !same || name_equal(name, words);
}

// Where it lies, if it can be seen there.
static bool scanned_wrong(const char *s, u32 len)
{
	struct name_at at;

	return name_scan(&at, s) && (at.s != s || differs(&at, s, len));
}

static u32 taken(u32 len, u32 distance, u32 page)
{
	char *s = (char *)pages + (page + 1) * PAGE_SIZE - distance;
	struct name_at at;
	struct name name;

	memset(pages, 'x', 2 * PAGE_SIZE);
	for (u32 i = 0; i < len; i++)
		s[i] = (char)('a' + i % 26);
	s[len] = 0;
	if (scanned_wrong(s, len) || !name_take(&name, s))
		return 0;
	at = name_in(&name);
	return !differs(&at, s, len);
}

// How many of 300 names that differ at the end only get a place of 1,024 of their own.
static u32 own_places(void)
{
	static bool taken_by[1024];
	struct name name;
	char text[64];
	u32 own = 0;

	for (u32 i = 0; i < 300; i++) {
		snprintf(text, sizeof(text), "some-name-of-a-file-%u", i);
		if (!name_take(&name, text) || taken_by[name.hash % 1024])
			continue;
		taken_by[name.hash % 1024] = true;
		own++;
	}
	return own;
}

int main(void)
{
	static const char *const none[] = { "",
					    ".",
					    "..",
					    "/",
					    "a/b",
					    "a/",
					    "long-name/b",
					    "longer-name-behind/b",
					    "longer/name-behind" };
	static const char *const some[] = { "a",       "...",	   ".a",	   "..a",
					    "abcdefg", "abcdefgh", "\x2e\x80\xff", "a.b" };
	u32 within = 0, across = 0, at_end = 0, refused = 0, accepted = 0;
	struct name name;
	char *s;

	pages = mmap(NULL, 3 * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		     0);
	if (mprotect(pages + 2 * PAGE_SIZE, PAGE_SIZE, PROT_NONE))
		return 1;
	for (u32 len = 1; len <= LONGEST; len++) {
		within += taken(len, 600, 0);
		at_end += taken(len, len + 1, 1);
		for (u32 distance = 1; distance < 20; distance++)
			across += taken(len, distance, 0);
	}
	printf("within a page: %u, up to its end: %u, across: %u\n", within, at_end, across);
	printf("one byte too long: %d\n", taken(LONGEST + 1, 600, 0));
	for (u32 i = 0; i < ARRAY_SIZE(none); i++)
		refused += name_take(&name, none[i]) && !name_is_entry(&name);
	for (u32 i = 0; i < ARRAY_SIZE(some); i++)
		accepted += name_take(&name, some[i]) && name_is_entry(&name);
	printf("no names: %u, names: %u\n", refused, accepted);
	refused = 0;
	for (u32 distance = 1; distance < 20; distance++) {
		s = (char *)pages + 2 * PAGE_SIZE - distance;
		memset(s, 'x', distance);
		refused += !name_take(&name, s);
	}
	printf("cut by memory that cannot be read: %u\n", refused);
	printf("most names have a place of their own: %d\n", own_places() > 200);
	printf("nowhere: %d\n",
	       name_take(&name, NULL) + name_take(&name, (char *)pages + 2 * PAGE_SIZE));
	return 0;
}
