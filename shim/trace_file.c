// SPDX-License-Identifier: MIT
#include "trace_file.h"

#include <asm/unistd_64.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/uio.h>

#include "adopt.h"
#include "shim.h"

#define MAX_RAW_PATH 512 // of our own files: stacks may be small

struct cosy_trace_header *first_file;

_Static_assert(offsetof(struct cosy_trace_header, taken) == 128, "a cache line of its own");

static u64 live_bytes(const struct cosy_trace_header *h)
{
	return (u64)h->slots * LIVE_SIZE;
}

static void raw_path(struct text *t, const struct cosy_trace_header *h)
{
	text_add(t, cosy_config.dir);
	text_add(t, "/");
	text_dec(t, h->pid);
	text_add(t, ".");
	text_dec(t, h->tid);
	text_add(t, ".");
	text_hex(t, h->start_tsc, 16);
	text_add(t, ".raw");
}

#define WAIT_NS 2000000

/*
 * Nothing could be written for want of room. With `block`, wait a little and say whether to try again:
 * as long as somebody is there who can make room and wants the events.
 */
static bool wait_for_room(long error)
{
	u64 pause[2] = { 0, WAIT_NS };

	if (!cosy_config.block || error != -28 /* ENOSPC */ || adopt_stopped() || !adopt_watched())
		return false;
	sys(__NR_nanosleep, pause, 0);
	return true;
}

struct cosy_trace_header *file_create(void)
{
	struct cosy_trace_header h = {
		.live_size = LIVE_SIZE, .live_heap = LIVE_HEAP, .slots = SLOTS, .ring = 1
	};
	char buf[MAX_RAW_PATH];
	struct text path = { .at = buf, .size = sizeof(buf) };
	void *map = NULL;
	long n;
	int fd;

	memcpy(h.magic, COSY_TRACE_MAGIC, sizeof(h.magic));
	h.pid = (u32)sys(__NR_getpid);
	h.tid = (u32)sys(__NR_gettid);
	h.ppid = (u32)sys(__NR_getppid);
	h.start_ns = now_ns(1 /* CLOCK_MONOTONIC */);
	h.start_tsc = rdtsc();
	h.now_ns = h.start_ns;
	h.now_tsc = h.start_tsc;
	h.realtime_ns = (s64)(now_ns(0 /* CLOCK_REALTIME */) - h.start_ns);
	raw_path(&path, &h);
	if (!file_size_allowed(COSY_TRACE_PAGE + 2 * live_bytes(&h)))
		h.slots = 1;
	if (path.cut || !file_size_allowed(COSY_TRACE_PAGE + LIVE_SIZE))
		return NULL;
	fd = (int)sys(__NR_openat, AT_FDCWD, buf, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return NULL;
	// Allocated, not sparse: a full disk must not become a bus error.
	do {
		n = sys(__NR_fallocate, fd, 0, 0, COSY_TRACE_PAGE + LIVE_SIZE);
	} while (n && wait_for_room(n));
	// All of the slots, once and for all: behind the end of the file nothing is touched.
	if (!n)
		map = (void *)sys(__NR_mmap, 0, COSY_TRACE_PAGE + live_bytes(&h),
				  PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	sys(__NR_close, fd);
	if (!map || sys_failed((long)map)) {
		sys(__NR_unlink, buf);
		return NULL;
	}
	memcpy(map, &h, sizeof(h));
	return map;
}

void file_lose(struct cosy_trace_header *file, u64 events)
{
	if (!file)
		file = first_file;
	if (file)
		__atomic_fetch_add(&file->lost_events, events, __ATOMIC_RELAXED);
}

static int reopen(const struct cosy_trace_header *h)
{
	char buf[MAX_RAW_PATH];
	struct text path = { .at = buf, .size = sizeof(buf) };

	raw_path(&path, h);
	return (int)sys(__NR_openat, AT_FDCWD, buf, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
}

static bool append_block(struct cosy_trace_header *h, struct cosy_trace_block *b)
{
	u64 at = COSY_TRACE_PAGE + live_bytes(h) + h->flushed_bytes;
	struct iovec part[2] = {
		{ b, sizeof(*b) + b->n_events * sizeof(struct cosy_trace_event) },
		{ (u8 *)b + LIVE_HEAP, b->heap_bytes },
	};
	u64 size = part[0].iov_len + part[1].iov_len;
	long n;
	int fd;

	if (!file_size_allowed(at + size))
		return false;
	fd = reopen(h);
	if (fd < 0)
		return false;
	do {
		n = sys(__NR_pwritev, fd, part, 2, at, 0);
	} while (n != (long)size && wait_for_room(n < 0 ? n : -28));
	sys(__NR_close, fd);
	if (n != (long)size)
		return false;
	h->flushed_bytes += size;
	return true;
}

// Through a descriptor that reads as well: if the reader goes now there is no SIGPIPE.
static bool ask_drain(const struct cosy_trace_header *h)
{
	struct cosy_trace_request request = { h->pid, h->tid, h->start_tsc };
	char buf[MAX_RAW_PATH];
	struct text path = { .at = buf, .size = sizeof(buf) };
	long n = -1;
	int there, fd;

	text_add(&path, cosy_config.dir);
	text_add(&path, "/" COSY_TRACE_DRAIN);
	if (path.cut)
		return false;
	there = (int)sys(__NR_openat, AT_FDCWD, buf, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
	if (there < 0)
		return false; // nobody reads
	fd = (int)sys(__NR_openat, AT_FDCWD, buf, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fd >= 0) {
		n = sys(__NR_write, fd, &request, sizeof(request));
		sys(__NR_close, fd);
	}
	sys(__NR_close, there);
	return n == sizeof(request);
}

// One more live block, which lies where the file has had a hole.
static bool add_block(struct cosy_trace_header *h)
{
	u64 at = COSY_TRACE_PAGE + (u64)h->ring * LIVE_SIZE;
	bool allowed = h->asked && h->ring < h->slots && file_size_allowed(at + LIVE_SIZE);
	int fd = allowed ? reopen(h) : -1;
	long failed;

	if (fd < 0)
		return false;
	failed = sys(__NR_fallocate, fd, 0, at, LIVE_SIZE);
	sys(__NR_close, fd);
	if (failed)
		return false;
	h->ring++;
	return true;
}

static bool was_taken(const struct cosy_trace_header *h, u64 seq)
{
	return seq < __atomic_load_n(&h->taken, __ATOMIC_ACQUIRE);
}

// A slot that holds nothing to be kept: the first, whose memory is the likeliest to be in the cache.
static u32 free_slot(struct cosy_trace_header *h)
{
	u32 oldest = 0;
	struct cosy_trace_block *b;

	for (u32 slot = 0; slot < h->ring; slot++) {
		b = file_block(h, slot);
		if (was_taken(h, b->seq) || !b->n_events)
			return slot;
		if (b->seq < file_block(h, oldest)->seq)
			oldest = slot;
	}
	if (add_block(h))
		return h->ring - 1;
	b = file_block(h, oldest);
	if (!append_block(h, b) && !was_taken(h, b->seq))
		file_lose(h, b->n_events);
	// The recorder knows by this that what it copies is not the block it wants any more.
	if (!was_taken(h, b->seq))
		__atomic_store_n(&h->taken, b->seq + 1, __ATOMIC_RELEASE);
	return oldest;
}

void file_flush(struct cosy_trace_header *h)
{
	struct cosy_trace_block *b = file_live(h);
	struct cosy_trace_event *events;

	if (b->n_events > EVENTS)
		b->n_events = EVENTS;
	if (b->heap_bytes > HEAP_SIZE)
		b->heap_bytes = HEAP_SIZE;
	if (h->filled == BLOCKS_ALONE && h->slots > 1)
		h->asked = ask_drain(h);
	h->now_ns = now_ns(1 /* CLOCK_MONOTONIC */);
	h->now_tsc = rdtsc();
	__atomic_store_n(&h->filled, h->filled + 1, __ATOMIC_RELEASE);
	h->live = free_slot(h);
	b = file_live(h);
	// An event that is begun but never written must not look like an old one; behind those that the
	// block had nothing was ever written.
	events = (struct cosy_trace_event *)(b + 1);
	for (u32 i = 0; i < b->n_events && i < EVENTS; i++)
		events[i].flags = 0;
	__atomic_store_n(&b->seq, h->filled, __ATOMIC_RELEASE);
	// In one: from here on a signal handler may write.
	__atomic_store_n(block_used(b), 0, __ATOMIC_RELEASE);
}

void file_close(struct cosy_trace_header *h)
{
	h->now_ns = now_ns(1 /* CLOCK_MONOTONIC */);
	h->now_tsc = rdtsc();
	h->flags |= COSY_TRACE_CLOSED;
	if (h != first_file)
		sys(__NR_munmap, h, COSY_TRACE_PAGE + live_bytes(h));
}
