/* SPDX-License-Identifier: MIT */
/*
 * The ground the shim stands on: no C library. Hooks run inside the
 * program's own calls, possibly inside a signal handler, so everything here
 * is a plain system call or plain code.
 */
#ifndef COSY_SYS_H
#define COSY_SYS_H

#include "gate.h"

#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s32 s32;
typedef __s64 s64;

#define HIDDEN __attribute__((visibility("hidden")))
#define COLD __attribute__((cold, noinline))
/* A piece of a frequent way that keeps registers for itself. */
#define APART __attribute__((noinline))
/* The frequent way itself, wherever it is begun. */
#define ALWAYS_INLINE static inline __attribute__((always_inline))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define PAGE_SIZE 4096ul
#define PAGE_DOWN(x) ((u64)(x) & ~(PAGE_SIZE - 1))
#define PAGE_UP(x) PAGE_DOWN((u64)(x) + PAGE_SIZE - 1)

/* A system call's registers, as shim/entry.S lays them out on the stack. */
struct regs {
	u64 nr;
	u64 a[6];
	u64 rbp;
	u64 tail; /* inside the stub; the stub knows its site */
};

/* As getdents64 writes it. */
struct dirent64 {
	u64 ino;
	s64 off;
	u16 reclen;
	u8 type;
	char name[];
};

/* The address behind the patched system call instruction. */
static inline u64 regs_site(const struct regs *r)
{
	const u64 *quad = (const u64 *)((r->tail & ~63ul) + STUB_SITE);

	return (u64)quad + *quad;
}

static inline long sys6(long nr, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f)
{
	register u64 r10 __asm__("r10") = d;
	register u64 r8 __asm__("r8") = e;
	register u64 r9 __asm__("r9") = f;
	long ret;

	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "0"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return ret;
}

#define SYS_ARGS(nr, a, b, c, d, e, f, ...)                                                        \
	sys6(nr, (u64)(a), (u64)(b), (u64)(c), (u64)(d), (u64)(e), (u64)(f))
/* sys(nr, up to six arguments): -errno on failure, as the kernel returns it */
#define sys(...) SYS_ARGS(__VA_ARGS__, 0, 0, 0, 0, 0, 0, 0)

/* The intercepted call itself. */
static inline long sys_regs(const struct regs *r)
{
	return sys6((long)r->nr, r->a[0], r->a[1], r->a[2], r->a[3], r->a[4], r->a[5]);
}

static inline bool sys_failed(long ret)
{
	return (u64)ret > -4096ul;
}

static inline u64 rdtsc(void)
{
	u32 lo, hi;

	__asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
	return (u64)hi << 32 | lo;
}

static inline u64 load_word(const void *at)
{
	u64 word;

	__builtin_memcpy(&word, at, sizeof(word));
	return word;
}

/* The classic test (H. S. Warren, Hacker's Delight, 6-1): not 0 if a byte is, the lowest of them marked. */
static inline u64 zero_bytes(u64 word)
{
	const u64 ones = 0x0101010101010101ul;

	return (word - ones) & ~word & ones << 7;
}

static inline bool has_byte(u64 word, u8 byte)
{
	return zero_bytes(word ^ byte * 0x0101010101010101ul);
}

/* For the few bytes of names and paths: no call, and whole words, the last of which may overlap. */
static inline bool same_bytes(const void *a, const void *b, size_t n)
{
	const u8 *x = a, *y = b;

	if (n >= 8) {
		for (size_t i = 0; i + 8 < n; i += 8)
			if (load_word(x + i) != load_word(y + i))
				return false;
		return load_word(x + n - 8) == load_word(y + n - 8);
	}
	for (size_t i = 0; i < n; i++)
		if (x[i] != y[i])
			return false;
	return true;
}

HIDDEN void *memcpy(void *restrict to, const void *restrict from, size_t n);
HIDDEN void *memset(void *at, int byte, size_t n);
HIDDEN int memcmp(const void *a, const void *b, size_t n);
HIDDEN size_t strlen(const char *s);
HIDDEN bool str_equal(const char *a, const char *b);
HIDDEN bool str_starts(const char *s, const char *prefix);
HIDDEN const char *base_name(const char *path);
/* FNV-1a (G. Fowler, L. C. Noll, P. Vo); begin with FNV1A_START. */
#define FNV1A_START 0xcbf29ce484222325ul
HIDDEN u64 fnv1a(u64 key, const void *data, size_t n);
/* A buffer of text that never overflows: once full it stays cut and says so. */
struct text {
	char *at;
	size_t len, size;
	bool cut;
};
HIDDEN void text_add(struct text *t, const char *s);
HIDDEN void text_hex(struct text *t, u64 value, int digits);
HIDDEN void text_dec(struct text *t, u64 value);
HIDDEN u64 now_ns(int clock);
/* May a file grow to so many bytes? Beyond the limit the kernel would send the program a signal. */
HIDDEN bool file_size_allowed(u64 size);

#endif
