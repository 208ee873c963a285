// SPDX-License-Identifier: MIT
#include "file_batch.h"

#include <asm/unistd_64.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/stat.h>
#include <sys/mman.h>

#include "fence.h"
#include "mem.h"
#include "results.h"
#include "shim.h"
#include "stats.h"

#define BATCHES 2u
#define ROOM (64u << 10) // bytes of one: what the module keeps memory for
#define ROOM_FIRST (16u << 10)
#define ROOM_LEAST (8u << 10)
#define NAMES_MOST 4096u // bytes of names that one batch is asked for
#define LOST_MOST 64u // files that nobody asked for
#define COUNTED_MOST 1024u
#define PATH_MOST 4095u

static struct file_batch batches[BATCHES];
static u32 turn; // the one that makes room next
static u8 *buffer;
static u32 room;
static u32 told, given; // of late, by batches that are over
static bool refused; // by the executor
static bool confident; // nearly all of the last one was asked for
static struct file_list near; // of the open before, where nothing was read ahead

// Names first, the batches behind them.
static bool start(void)
{
	bool fresh;

	buffer = module_files_buffer(NAMES_MOST + BATCHES * ROOM, &fresh);
	refused = !buffer;
	if (!buffer)
		return false;
	if (!fresh)
		return true;
	room = ROOM_FIRST;
	for (u32 i = 0; i < BATCHES; i++) {
		batches[i].data = buffer + NAMES_MOST + i * ROOM;
		batches[i].told = batches[i].given = 0;
		batches[i].epoch = 0;
	}
	return true;
}

bool file_batch_fresh(const struct file_batch *b)
{
	return b->epoch == epoch_now() &&
	       (rdtsc() - b->tsc <= max_age_ticks || !fence_on(FENCE_MAX_AGE));
}

// --- how it goes -------------------------------------------------------------------

// What a batch held is known to have been asked for, or not: the next ones are larger or smaller.
static void settle(struct file_batch *b)
{
	if (!b->told)
		return;
	told += b->told;
	given += b->given;
	if (told > COUNTED_MOST) {
		told /= 2;
		given /= 2;
	}
	confident = b->given * 4 >= b->told * 3;
	if (confident && room < ROOM)
		room *= 2;
	else if (b->given * 2 < b->told && room > ROOM_LEAST)
		room /= 2;
	b->told = b->given = 0;
}

bool file_batch_wastes(void)
{
	return refused || (told > given + LOST_MOST && given < told / 2);
}

void file_batch_reset(void)
{
	told = given = 0;
	confident = refused = false;
	near.at = NULL;
	if (room)
		room = ROOM_FIRST;
	for (u32 i = 0; i < BATCHES; i++)
		batches[i].told = batches[i].given = batches[i].epoch = 0;
}

// --- reading ahead -------------------------------------------------------------------

// Nonsense is cut off; what is left is counted.
static void take(struct file_batch *b)
{
	const struct cosy_block *block = (const void *)b->data;
	u32 at = sizeof(*block), end = block->bytes < ROOM ? block->bytes : ROOM;

	for (u32 i = 0; i < block->n && at + sizeof(struct cosy_entry) <= end; i++) {
		const struct cosy_entry *e = (const void *)(b->data + at);
		u64 data = e->data > 0 ? (u32)e->data : 0;
		u64 behind = (u64)(cosy_entry_data(e) - (const char *)e) + data;

		if (e->bytes % 8 || e->bytes > end - at || behind > e->bytes)
			break;
		b->told += (e->flags & COSY_ENTRY_AHEAD) != 0;
		at += e->bytes;
	}
	b->at = sizeof(*block);
	b->used = at;
	stats_add(runs, 1);
	stats_add(records, b->told);
}

// Whole names from here on, of memory that can be read; 0: none.
static u32 names_from(const char *at, const char *end)
{
	u64 bytes = (u64)(end - at);

	if (bytes > NAMES_MOST)
		bytes = NAMES_MOST;
	if (bytes && !mem_readable(at, bytes))
		return 0;
	while (bytes && at[bytes - 1])
		bytes--;
	return (u32)bytes;
}

static bool ask(struct file_batch *b, const struct file_list *list)
{
	const struct cosy_block *block = (const void *)b->data;
	u32 names = names_from(list->at, list->end);
	struct run_start start;
	long ret;

	settle(b);
	b->epoch = 0;
	results_begin(&start);
	if (!names || mutation_in_flight())
		return false;
	memcpy(buffer, list->at, names);
	ret = module_files(list->dirfd, 0, names, (u32)(b->data - buffer), room);
	// Another call of this process is at it.
	refused = ret < 0 && ret != -EBUSY && ret != -EINTR;
	if (ret < (long)sizeof(*block))
		return false;
	b->list = *list;
	b->epoch = start.epoch;
	b->tsc = start.tsc;
	b->next = list->at + (block->next < names ? block->next : names);
	take(b);
	return true;
}

/*
 * The program read the directory before anybody kept the names. Where the executor will not read it,
 * as somebody would see that, none are known.
 */
static void list_directory(int dirfd)
{
	const struct cosy_block *block = (const void *)batches[0].data;
	struct file_batch *b = &batches[0];
	u64 position = 0;
	bool more = true;

	settle(b);
	b->epoch = 0;
	// Known from now on, be it empty.
	file_names_add(dirfd, "", 0, TYPE_REGULAR);
	while (more && module_names(dirfd, position, (u32)(b->data - buffer), ROOM) >
			       (long)sizeof(*block)) {
		b->told = 0;
		take(b);
		more = b->at < b->used && !(block->flags & COSY_BLOCK_END);
		position = block->next;
		while (b->at < b->used) {
			const struct cosy_entry *e = (const void *)(b->data + b->at);

			b->at += e->bytes;
			if (!file_names_add(dirfd, cosy_entry_name(e), e->name_len, e->type))
				return;
		}
	}
}

// --- finding -------------------------------------------------------------------------

// What is behind it is still to come; what is before it was passed over.
static const struct cosy_entry *search(struct file_batch *b, const char *path, u32 len)
{
	const struct cosy_entry *e;

	for (u32 at = b->at; at < b->used; at += e->bytes) {
		e = (const void *)(b->data + at);
		if (e->name_len != len || !same_bytes(cosy_entry_name(e), path, len))
			continue;
		b->at = at + e->bytes;
		return e;
	}
	return NULL;
}

static bool is_of(const struct file_batch *b, const struct file_list *list)
{
	return b->list.dir == list->dir && b->list.generation == list->generation &&
	       b->list.dirfd == list->dirfd;
}

// The first open in a directory says little, unless things went well before; the last one pays for nothing.
static bool due(const struct file_list *list, u32 len)
{
	bool again = near.at && near.dir == list->dir && near.generation == list->generation;

	near = *list;
	return (again || confident) && list->end - list->at > len + 1;
}

static struct file_batch *batch_of(const struct file_list *list)
{
	for (u32 i = 0; i < BATCHES; i++)
		if (batches[i].epoch && is_of(&batches[i], list))
			return &batches[i];
	return NULL;
}

static const struct cosy_entry *find(const struct file_list *list, const char *path, u32 len,
				     struct file_batch **of)
{
	struct file_batch *b = batch_of(list);

	*of = b;
	if (b && list->at >= b->list.at && list->at < b->next && file_batch_fresh(b))
		return search(b, path, len);
	if (!b && !due(list, len))
		return NULL;
	if (!b)
		b = &batches[turn++ % BATCHES];
	*of = b;
	return ask(b, list) ? search(b, path, len) : NULL;
}

const struct cosy_entry *file_batch_find(int dirfd, const char *path, const struct file_batch **of)
{
	long len = mem_strlen(path, PATH_MOST);
	const struct cosy_entry *e;
	struct file_batch *b;
	struct file_list list;

	if (len <= 0 || !start())
		return NULL;
	if (dirfd != AT_FDCWD && !file_names_known(dirfd))
		list_directory(dirfd);
	if (!file_names_find(dirfd, path, (u32)len, &list))
		return NULL;
	e = find(&list, path, (u32)len, &b);
	if (!e || !(e->flags & COSY_ENTRY_AHEAD) ||
	    (e->mask & STATX_BASIC_STATS) != STATX_BASIC_STATS || written(e->dev, e->ino))
		return NULL;
	b->given++;
	// The last one: what comes next may build on that.
	if (b->at == b->used)
		settle(b);
	*of = b;
	return e;
}
