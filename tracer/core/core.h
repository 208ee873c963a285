/* SPDX-License-Identifier: MIT */
/*
 * What is done for every single event between a backend's raw records and the
 * dataset; api.h is what Python calls, all else is inside.
 *
 * Nothing that is read here is trusted: events come from files that anybody may
 * have written. Whatever load or a stream's reader let through lies within its
 * heap, and is checked against the heap's size again where it is read.
 */
#ifndef COSY_CORE_H
#define COSY_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "cosy_trace.h"

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int8_t s8;
typedef int16_t s16;
typedef int32_t s32;
typedef int64_t s64;

#define EXPORT __attribute__((visibility("default")))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

#define NOTHING (-1)
#define ALL_NRS 65536
#define MAX_TIME (1ul << 61) /* tracer/events.py */

/* Words of 8 bytes of a struct cosy_trace_event. */
enum { TSC, DUR, RET, ARGS, SITE = ARGS + 6, WHAT, SIZES, EVENT_WORDS };
_Static_assert(EVENT_WORDS * 8 == sizeof(struct cosy_trace_event), "tracer/events.py");

/* tracer/events.py, Chunk. */
struct cosy_chunk {
	u64 n; /* events */
	u64 stride; /* of a row of words */
	const u64 *words;
	const s32 *thread;
	const s64 *at; /* of payloads in the heap */
	const u8 *heap;
	u64 heap_size;
};

static inline const u64 *row(const struct cosy_chunk *c, u32 word)
{
	return c->words + word * c->stride;
}

static inline u16 what_nr(u64 what)
{
	return (u16)what;
}

static inline u16 what_flags(u64 what)
{
	return (u16)(what >> 16);
}

static inline u32 what_place(u64 what)
{
	return (u32)(what >> 32);
}

static inline u32 path_len(u64 sizes)
{
	return (u16)sizes;
}

static inline u32 path2_len(u64 sizes)
{
	return (u16)(sizes >> 16);
}

static inline u32 out_len(u64 sizes)
{
	return (u32)(sizes >> 32);
}

static inline u64 payload_size(u64 sizes)
{
	return (u64)path_len(sizes) + path2_len(sizes) + out_len(sizes);
}

/* The payload of event i; NULL where it is not within the heap, as no reader lets through. */
static inline const u8 *payload(const struct cosy_chunk *c, u64 i, u64 size)
{
	u64 at = (u64)c->at[i];

	return likely(at <= c->heap_size && size <= c->heap_size - at) ? c->heap + at : NULL;
}

#endif
