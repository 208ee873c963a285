// SPDX-License-Identifier: MIT
#include "file_names.h"

#include <asm/unistd_64.h>
#include <fcntl.h>
#include <sys/mman.h>

#include "mem.h"
#include "shim.h"

#define LISTINGS 64u // a walk comes back from subdirectories
#define ROOM (256u << 10) // bytes of names of all directories; the oldest make room
#define READ_BYTES (32u << 10)
#define MISSED_MOST 8u // then nothing is looked for any more
#define PATH_MOST 4095u

// Names of the regular files of a directory, in the order in which they were read.
static struct listing {
	const struct dir_slot *dir;
	u32 generation;
	u32 begin, end; // in `names`
	u32 at; // most likely the next
	u32 missed; // names in a row that are none of these
} listings[LISTINGS];
static u32 latest; // number of the newest, in all
static u32 found; // most opens are about the directory of the open before
static char *names;
static u32 head; // where the next name goes
static bool wrapped; // there may be others

bool file_names_start(void)
{
	char *room;

	if (names)
		return true;
	room = (char *)sys(__NR_mmap, 0, ROOM, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (sys_failed((long)room))
		return false;
	sys(__NR_madvise, room, ROOM, MADV_NOHUGEPAGE);
	names = room;
	return true;
}

static struct listing *listing_of(const struct dir_slot *d)
{
	for (u32 i = 0; i < LISTINGS; i++) {
		u32 at = (found - i) % LISTINGS;
		struct listing *l = &listings[at];

		if (l->dir != d || l->generation != d->generation)
			continue;
		found = at;
		return l;
	}
	return NULL;
}

// What lies in [from, to) is overwritten now.
static void make_room(u32 from, u32 to)
{
	for (u32 i = 0; i < LISTINGS && wrapped; i++)
		if (listings[i].begin < to && from < listings[i].end)
			listings[i].dir = NULL;
}

static struct listing *listing_new(const struct dir_slot *d)
{
	struct listing *l = &listings[++latest % LISTINGS];

	found = latest;
	l->dir = d;
	l->generation = d->generation;
	l->begin = l->end = l->at = head;
	l->missed = 0;
	return l;
}

/*
 * Behind what is there of it. False: no more can be. A directory that is read in pieces with others
 * between them, or that has more names than there is room for, is not known whole.
 */
static bool add(struct listing *l, const char *name, u32 len, u8 type)
{
	if (!len || (type != TYPE_REGULAR && type != TYPE_UNKNOWN))
		return true;
	if (l->end != head || head + len + 1 > ROOM)
		return false;
	make_room(head, head + len + 1);
	memcpy(names + head, name, len + 1);
	head += len + 1;
	l->end = head;
	return true;
}

static struct listing *listing_for(const struct dir_slot *d)
{
	struct listing *l = listing_of(d);

	// At the end of the room it begins again, with as many as a read gives.
	if (!l && ROOM - head < READ_BYTES) {
		head = 0;
		wrapped = true;
	}
	return l ?: listing_new(d);
}

void file_names_scanned(u64 fd, const void *entries, u64 bytes)
{
	const struct dir_slot *d = dir_of_fd(fd);
	struct listing *l = d && names ? listing_for(d) : NULL;
	const struct dirent64 *e;

	for (u64 at = 0; l && at < bytes; at += e->reclen) {
		e = (const void *)((const u8 *)entries + at);
		if (!add(l, e->name, (u32)strlen(e->name), e->type))
			return;
	}
}

bool file_names_known(int dirfd)
{
	const struct dir_slot *d = dir_of_fd((u32)dirfd);

	return !d || !names || listing_of(d);
}

bool file_names_add(int dirfd, const char *name, u32 len, u8 type)
{
	const struct dir_slot *d = dir_of_fd((u32)dirfd);

	return d && add(listing_for(d), name, len, type);
}

static bool is_at(const struct listing *l, u32 at, const char *name, u32 len)
{
	return at + len < l->end && !names[at + len] && same_bytes(names + at, name, len);
}

// Most often it is the next, or a few behind.
static bool seek(struct listing *l, const char *name, u32 len)
{
	u32 start = l->at;

	for (u32 turn = 0; turn < 2; turn++) {
		u32 from = turn ? l->begin : start, to = turn ? start : l->end;

		for (u32 at = from; at < to; at += (u32)strlen(names + at) + 1) {
			if (!is_at(l, at, name, len))
				continue;
			l->at = at;
			l->missed = 0;
			return true;
		}
	}
	if (++l->missed == MISSED_MOST)
		l->begin = l->end = l->at;
	return false;
}

static bool find_in_directory(int dirfd, const char *name, u32 len, struct file_list *to)
{
	const struct dir_slot *d = dir_of_fd((u32)dirfd);
	struct listing *l = d ? listing_of(d) : NULL;

	if (!l || !seek(l, name, len))
		return false;
	*to = (struct file_list){
		.dirfd = dirfd,
		.dir = d,
		.generation = d->generation,
		.at = names + l->at,
		.end = names + l->end,
	};
	l->at += len + 1;
	return true;
}

// --- the program's arguments ---------------------------------------------------------

// They lie behind each other at the end of the stack, where the kernel put them.
bool file_names_is_argument(const char *path)
{
	return path < cosy_config.end_of_arguments && (u64)path > (u64)__builtin_frame_address(0);
}

bool file_names_left(const char *path, u32 least)
{
	long len = mem_strlen(path, PATH_MOST);

	return len > 0 && (u64)(cosy_config.end_of_arguments - path) / ((u64)len + 1) >= least;
}

bool file_names_find(int dirfd, const char *path, u32 len, struct file_list *to)
{
	if (dirfd != AT_FDCWD)
		return find_in_directory(dirfd, path, len, to);
	if (!file_names_is_argument(path))
		return false;
	*to = (struct file_list){
		.dirfd = AT_FDCWD,
		.at = path,
		.end = cosy_config.end_of_arguments,
	};
	return true;
}
