// SPDX-License-Identifier: MIT
/*
 * What the kernel module does for files read ahead, by plain calls, where there is no module. In
 * a library for tests only: it gains nothing, and shows the rest at full speed.
 */
#include <asm/unistd_64.h>
#include <fcntl.h>
#include <linux/stat.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "fence.h"
#include "file_batch.h"

#define RELATIME_S (23 * 60 * 60)

static bool later(struct statx_timestamp a, struct statx_timestamp b)
{
	return a.tv_sec > b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec > b.tv_nsec);
}

static bool atime_is_stable(const struct statx *st)
{
	return later(st->stx_atime, st->stx_mtime) && later(st->stx_atime, st->stx_ctime) &&
	       (s64)(now_ns(0) / 1000000000) - st->stx_atime.tv_sec < RELATIME_S;
}

static void put_attributes(struct cosy_entry *e, const struct statx *st)
{
	e->mode = st->stx_mode;
	e->mask = st->stx_mask;
	e->ino = st->stx_ino;
	e->size = st->stx_size;
	e->blocks = st->stx_blocks;
	e->atime_sec = st->stx_atime.tv_sec;
	e->atime_nsec = st->stx_atime.tv_nsec;
	e->mtime_sec = st->stx_mtime.tv_sec;
	e->mtime_nsec = st->stx_mtime.tv_nsec;
	e->ctime_sec = st->stx_ctime.tv_sec;
	e->ctime_nsec = st->stx_ctime.tv_nsec;
	e->btime_sec = st->stx_btime.tv_sec;
	e->btime_nsec = st->stx_btime.tv_nsec;
	e->nlink = st->stx_nlink;
	e->uid = st->stx_uid;
	e->gid = st->stx_gid;
	e->dev = statx_dev(st);
	e->blksize = st->stx_blksize;
}

// False: no room for its contents.
static bool take_file(int fd, struct cosy_entry *e, u8 *data, u64 room)
{
	struct statx st;
	long got;

	if (sys_failed(
		    sys(__NR_statx, fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, &st))) {
		e->error = -1;
		return true;
	}
	put_attributes(e, &st);
	if (!S_ISREG(st.stx_mode) || st.stx_size > FILE_MOST || !atime_is_stable(&st))
		return true;
	if (st.stx_size > room)
		return false;
	got = sys(__NR_read, fd, data, st.stx_size);
	if (got != (long)st.stx_size)
		return true;
	e->data = (s32)got;
	e->flags = COSY_ENTRY_DATA | COSY_ENTRY_DATA_END | COSY_ENTRY_AHEAD;
	return true;
}

u8 *plain_files_buffer(u32 bytes)
{
	long at = sys(__NR_mmap, 0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		      0);

	if (sys_failed(at))
		return NULL;
	sys(__NR_madvise, at, bytes, MADV_DONTFORK);
	return (u8 *)at;
}

// All of it at once: a folder of a test.
long plain_names(int dirfd, u64 position, u8 *out, u32 bytes)
{
	struct cosy_block *block = (void *)out;
	u8 *entries = out + bytes / 2;
	int fd = (int)sys(__NR_openat, dirfd, ".", O_RDONLY | O_DIRECTORY);
	long n = sys(__NR_getdents64, fd, entries, bytes / 2);
	u32 used = sizeof(*block);

	sys(__NR_close, fd);
	*block = (struct cosy_block){ .flags = COSY_BLOCK_END, .next = position };
	for (long at = 0; at < n;) {
		const struct dirent64 *d = (const void *)(entries + at);
		struct cosy_entry *e = (void *)(out + used);
		u32 len = (u32)strlen(d->name);

		if (used + sizeof(*e) + len + 8 > bytes / 2)
			break;
		at += d->reclen;
		memset(e, 0, sizeof(*e) + (len + 8) / 8 * 8);
		e->type = d->type;
		e->name_len = (u16)len;
		memcpy(e + 1, d->name, len);
		e->bytes = (u32)sizeof(*e) + (len + 8) / 8 * 8;
		used += e->bytes;
		block->n++;
	}
	block->bytes = used;
	return used;
}

long plain_files(int dirfd, const char *names, u32 n, u8 *out, u32 bytes)
{
	struct cosy_block *block = (void *)out;
	u32 used = sizeof(*block), len;
	bool fits = true;
	int fd;

	*block = (struct cosy_block){ .parent = ~0u };
	for (u32 at = 0; at < n; at += len + 1) {
		struct cosy_entry *e = (void *)(out + used);
		u32 head;

		len = (u32)strlen(names + at);
		head = (u32)sizeof(*e) + (len + 8) / 8 * 8;
		if (used + head > bytes)
			break;
		memset(e, 0, head);
		e->name_len = (u16)len;
		memcpy(e + 1, names + at, len);
		fd = (int)sys(__NR_openat, dirfd, names + at,
			      O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_NOATIME);
		if (fd < 0) {
			e->error = fd;
		} else {
			fits = take_file(fd, e, out + used + head, bytes - used - head);
			sys(__NR_close, fd);
		}
		if (!fits)
			break;
		e->bytes = head + ((u32)e->data + 7) / 8 * 8;
		used += e->bytes;
		block->n++;
		block->next = at + len + 1;
	}
	block->bytes = used;
	return used;
}
