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
bool sandboxed;

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

static bool file_size_allowed(u64 size)
{
	u64 limit[2] = { 0, 0 };

	// Beyond the limit the kernel would send the program a signal.
	return !sys(__NR_prlimit64, 0, 1 /* RLIMIT_FSIZE */, 0, limit) && limit[0] >= size;
}

#define WAIT_NS 2000000

/*
 * Nothing could be written for want of room. With `block`, wait a little and say whether to try again:
 * as long as somebody is there who can make room and wants the events.
 */
static bool wait_for_room(long error)
{
	u64 pause[2] = { 0, WAIT_NS };

	if (!cosy_config.block || sandboxed || error != -28 /* ENOSPC */ || adopt_stopped() ||
	    !adopt_watched())
		return false;
	sys(__NR_nanosleep, pause, 0);
	return true;
}

struct cosy_trace_header *file_create(void)
{
	struct cosy_trace_header h = { .live_size = LIVE_SIZE, .live_heap = LIVE_HEAP };
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
	if (path.cut || sandboxed || !file_size_allowed(COSY_TRACE_PAGE + LIVE_SIZE))
		return NULL;
	fd = (int)sys(__NR_openat, AT_FDCWD, buf, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return NULL;
	// Allocated, not sparse: a full disk must not become a bus error.
	do {
		n = sys(__NR_fallocate, fd, 0, 0, COSY_TRACE_PAGE + LIVE_SIZE);
	} while (n && wait_for_room(n));
	if (!n)
		map = (void *)sys(__NR_mmap, 0, COSY_TRACE_PAGE + LIVE_SIZE, PROT_READ | PROT_WRITE,
				  MAP_SHARED, fd, 0);
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

static bool append_block(struct cosy_trace_header *h, struct cosy_trace_block *b)
{
	u64 at = COSY_TRACE_PAGE + LIVE_SIZE + h->flushed_bytes;
	struct iovec part[2] = {
		{ b, sizeof(*b) + b->n_events * sizeof(struct cosy_trace_event) },
		{ (u8 *)b + LIVE_HEAP, b->heap_bytes },
	};
	u64 size = part[0].iov_len + part[1].iov_len;
	char buf[MAX_RAW_PATH];
	struct text path = { .at = buf, .size = sizeof(buf) };
	long n;
	int fd;

	raw_path(&path, h);
	if (sandboxed || !file_size_allowed(at + size))
		return false;
	fd = (int)sys(__NR_openat, AT_FDCWD, buf, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
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

void file_flush(struct cosy_trace_header *h)
{
	struct cosy_trace_block *b = file_live(h);

	if (b->n_events > EVENTS)
		b->n_events = EVENTS;
	if (b->heap_bytes > HEAP_SIZE)
		b->heap_bytes = HEAP_SIZE;
	if (!append_block(h, b))
		file_lose(h, b->n_events);
	h->now_ns = now_ns(1 /* CLOCK_MONOTONIC */);
	h->now_tsc = rdtsc();
	b->seq++;
	b->n_events = 0;
	b->heap_bytes = 0;
}

void file_close(struct cosy_trace_header *h)
{
	h->now_ns = now_ns(1 /* CLOCK_MONOTONIC */);
	h->now_tsc = rdtsc();
	h->flags |= COSY_TRACE_CLOSED;
	if (h != first_file)
		sys(__NR_munmap, h, COSY_TRACE_PAGE + LIVE_SIZE);
}
