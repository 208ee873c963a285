// SPDX-License-Identifier: MIT
#include "sys.h"

#include <asm/unistd_64.h>

#define FEW 512 // bytes

void *memcpy(void *restrict to, const void *restrict from, size_t n)
{
	void *ret = to;

	// A string instruction takes longer to start than so few words.
	for (; n >= 8 && n <= FEW; n -= 8, to = (u8 *)to + 8, from = (const u8 *)from + 8) {
		u64 word = load_word(from);

		__asm__ volatile("mov %1, %0" : "=m"(*(u64 *)to) : "r"(word));
	}
	if (n > FEW)
		__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
	for (; n; n--, to = (u8 *)to + 1, from = (const u8 *)from + 1)
		__asm__ volatile("movb %1, %0" : "=m"(*(u8 *)to) : "q"(*(const u8 *)from));
	return ret;
}

void *memset(void *at, int byte, size_t n)
{
	u64 word = (u8)byte * 0x0101010101010101ul;
	void *ret = at;

	for (; n >= 8 && n <= FEW; n -= 8, at = (u8 *)at + 8)
		__asm__ volatile("mov %1, %0" : "=m"(*(u64 *)at) : "r"(word));
	if (n > FEW)
		__asm__ volatile("rep stosb" : "+D"(at), "+c"(n) : "a"(byte) : "memory");
	for (; n; n--, at = (u8 *)at + 1)
		__asm__ volatile("movb %1, %0" : "=m"(*(u8 *)at) : "q"((u8)byte));
	return ret;
}

int memcmp(const void *a, const void *b, size_t n)
{
	const u8 *x = a, *y = b;

	for (; n >= 8 && load_word(x) == load_word(y); n -= 8)
		x += 8, y += 8;
	for (; n; n--, x++, y++)
		if (*x != *y)
			return *x - *y;
	return 0;
}

size_t strlen(const char *s)
{
	const char *p = s;

	// The empty asm keeps the compiler from turning this into a call of itself.
	for (; *p; p++)
		__asm__ volatile("");
	return (size_t)(p - s);
}

bool str_equal(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

bool str_starts(const char *s, const char *prefix)
{
	while (*prefix && *s == *prefix)
		s++, prefix++;
	return !*prefix;
}

const char *base_name(const char *path)
{
	const char *base = path;

	for (; *path; path++)
		if (*path == '/')
			base = path + 1;
	return base;
}

u64 fnv1a(u64 key, const void *data, size_t n)
{
	for (const u8 *at = data; n; n--, at++)
		key = (key ^ *at) * 0x100000001b3ul;
	return key;
}

void text_add(struct text *t, const char *s)
{
	for (; *s; s++) {
		if (t->len + 1 >= t->size) {
			t->cut = true;
			break;
		}
		t->at[t->len++] = *s;
	}
	t->at[t->len] = 0;
}

void text_hex(struct text *t, u64 value, int digits)
{
	char buf[17];

	for (int i = digits - 1; i >= 0; i--, value >>= 4)
		buf[i] = "0123456789abcdef"[value & 15];
	buf[digits] = 0;
	text_add(t, buf);
}

void text_dec(struct text *t, u64 value)
{
	char buf[21];
	int i = sizeof(buf) - 1;

	buf[i] = 0;
	do
		buf[--i] = (char)('0' + value % 10);
	while (value /= 10);
	text_add(t, buf + i);
}

bool file_size_allowed(u64 size)
{
	u64 limit[2] = { 0, 0 };

	return !sys(__NR_prlimit64, 0, 1 /* RLIMIT_FSIZE */, 0, limit) && limit[0] >= size;
}

u64 now_ns(int clock)
{
	s64 ts[2] = { 0, 0 };

	sys(__NR_clock_gettime, clock, ts);
	return (u64)ts[0] * 1000000000ul + (u64)ts[1];
}
