/* SPDX-License-Identifier: MIT */
/* What the verifier's parts share. */
#ifndef COSY_SHIM_VERIFY_PARTS_H
#define COSY_SHIM_VERIFY_PARTS_H

#include <asm/unistd_64.h>

#include "syscall_table.h"
#include "verify.h"

#define MAX_PATH 4095

// The kernel's ABI (include/uapi/linux/fcntl.h, stat.h, asm-generic/fcntl.h); no C library here.
#define AT_NOFOLLOW 0x100u
#define AT_NO_AUTO 0x800u
#define AT_EMPTY 0x1000u
#define AT_KNOWN (AT_NOFOLLOW | 0x400u | AT_NO_AUTO | AT_EMPTY | 0x2000u | 0x4000u)
#define OPEN_KNOWN (0400u | 04000u | 0100000u | 0200000u | 0400000u | 01000000u | 02000000u)

static inline bool text_is(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

// At most MAX_PATH + 1; every string ends within its section.
static inline size_t text_len(const char *s)
{
	size_t n = 0;

	while (n <= MAX_PATH && s[n])
		n++;
	return n;
}

static inline const char *text(const struct image *im, __u32 offset)
{
	return im->strings + offset;
}

static inline bool arg_has_text(const struct image *im, const struct cosy_arg *arg)
{
	return *text(im, arg->string) != 0;
}

// Calls that the result of one another answers.
enum family {
	FAMILY_NONE,
	FAMILY_STAT, // by path
	FAMILY_FSTAT,
	FAMILY_XATTR,
	FAMILY_OPEN,
	FAMILY_READ,
	FAMILY_LINK,
	FAMILY_ACCESS,
};

// NULL: the table has no such call.
static inline const struct cosy_syscall *call_of(__u32 nr)
{
	if (nr >= COSY_NR_MAX || cosy_syscalls[nr].cls == COSY_CLASS_UNKNOWN)
		return NULL;
	return &cosy_syscalls[nr];
}

// Position of the first argument of a kind; -1: none.
static inline int arg_of(const struct cosy_syscall *call, __u8 kind)
{
	for (int i = 0; i < call->n_args; i++)
		if (call->args[i] == kind)
			return i;
	return -1;
}

static inline bool has(const struct cosy_syscall *call, __u8 kind)
{
	return arg_of(call, kind) >= 0;
}

static inline enum family family_of(__u32 nr)
{
	switch (nr) {
	case __NR_stat:
	case __NR_lstat:
	case __NR_newfstatat:
	case __NR_statx:
		return FAMILY_STAT;
	case __NR_fstat:
		return FAMILY_FSTAT;
	case __NR_getxattr:
	case __NR_lgetxattr:
		return FAMILY_XATTR;
	case __NR_open:
	case __NR_openat:
		return FAMILY_OPEN;
	case __NR_read:
	case __NR_pread64:
		return FAMILY_READ;
	case __NR_readlink:
	case __NR_readlinkat:
		return FAMILY_LINK;
	case __NR_access:
	case __NR_faccessat:
	case __NR_faccessat2:
		return FAMILY_ACCESS;
	}
	return FAMILY_NONE;
}

/* Rules of one trigger, of one answer that is served, and of the executors (verify_patterns.c). */
#define COSY_PART __attribute__((visibility("hidden")))
COSY_PART bool trigger_valid(const struct image *im, const struct cosy_compound *c,
			     const struct cosy_pattern *p);
COSY_PART bool serve_valid(const struct image *im, const struct cosy_compound *c,
			   const struct cosy_pattern *p);
COSY_PART bool executors_valid(const struct image *im, const struct cosy_compound *c);

#endif
