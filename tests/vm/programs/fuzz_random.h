/* SPDX-License-Identifier: MIT */
/* Random numbers that a seed repeats, and what the fuzzer's parts share. */
#ifndef FUZZ_RANDOM_H
#define FUZZ_RANDOM_H

#include <stdbool.h>
#include <stdint.h>
#include <stddef.h>
#include <time.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

static uint64_t random_state;

/* xorshift64* (Vigna 2016) */
static inline uint64_t random64(void)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return random_state * 0x2545f4914f6cdd1dull;
}

/* 0 to n - 1. */
static inline uint64_t below(uint64_t n)
{
	return (random64() >> 16) % n;
}

static inline bool one_in(unsigned int n)
{
	return below(n) == 0;
}

/* The values at which sizes, offsets and flags go wrong. */
static inline uint64_t nasty(void)
{
	static const uint64_t edges[] = {
		0,
		1,
		7,
		8,
		4095,
		4096,
		4097,
		65535,
		65536,
		0x7fffffff,
		0x80000000,
		0xffffffff,
		0x100000000,
		~0ull,
		~0ull - 7,
		~0ull - 4095,
		1ull << 62,
		1ull << 63,
		(1ull << 63) - 1,
	};

	switch (below(4)) {
	case 0:
		return edges[below(ARRAY_SIZE(edges))];
	case 1:
		return edges[below(ARRAY_SIZE(edges))] + below(17) - 8;
	case 2:
		return random64() >> below(64);
	default:
		return 1ull << below(64);
	}
}

static inline uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

#endif
