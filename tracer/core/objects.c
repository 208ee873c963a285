// SPDX-License-Identifier: MIT
/*
 * What every descriptor argument of a trace refers to (tracer/objects.py). The calls that change descriptor
 * tables are replayed, process by process, in the order in which they took effect: a call that returns a
 * descriptor at its end, one that takes a descriptor away at its entry. All others look up which object their
 * descriptor had at their entry.
 */
#include <stdlib.h>
#include <sys/stat.h>

#include "api.h"
#include "descriptors.h"
#include "operations.h"
#include "path.h"
#include "queue.h"

#define LEAST_ROOM 1024
#define MAX_KNOWN_PATH (2 * UINT16_MAX)

struct object {
	s64 event; /* row of the call that made it; NOTHING: it was there before */
	u64 path_end; /* its path lies behind that of the object before; empty: not known */
	u64 dev, ino;
	u8 kind;
	bool known; /* dev and ino are */
	bool told; /* all of these, by a stat */
	bool listed;
};

struct cosy_objects {
	struct cosy_world world;
	struct table *tables;
	struct queue waiting;
	u64 n_started, cwd_at; /* of the world's starts */
	s64 n_rows; /* seen so far */
	struct object *all;
	u64 n, room;
	u8 *paths;
	u64 paths_room;
	u8 *scratch; /* two of the longest paths */
};

void cosy_objects_destroy(struct cosy_objects *o)
{
	if (!o)
		return;
	for (u64 i = 0; o->tables && i < o->world.n_tables; i++)
		table_deinit(&o->tables[i]);
	queue_deinit(&o->waiting);
	free(o->tables);
	free(o->all);
	free(o->paths);
	free(o->scratch);
	free(o);
}

struct cosy_objects *cosy_objects_create(const struct cosy_world *world)
{
	struct cosy_objects *o = calloc(1, sizeof(*o));

	if (!o)
		return NULL;
	o->world = *world;
	o->tables = calloc(world->n_tables + 1, sizeof(*o->tables));
	o->scratch = malloc(2 * MAX_KNOWN_PATH + 2);
	if (!o->tables || !o->scratch) {
		cosy_objects_destroy(o);
		return NULL;
	}
	return o;
}

// --- objects -----------------------------------------------------------------

static u64 path_begin(const struct cosy_objects *o, u64 i)
{
	return i ? o->all[i - 1].path_end : 0;
}

static bool grow(void **at, u64 *room, u64 wanted, size_t size)
{
	u64 more = *room ? *room : LEAST_ROOM;
	void *now;

	if (wanted <= *room)
		return true;
	while (more < wanted)
		more *= 2;
	now = realloc(*at, more * size);
	if (!now)
		return false;
	*at = now;
	*room = more;
	return true;
}

/* Returns its number; NOTHING: no memory. */
static s32 object_new(struct cosy_objects *o, u8 kind, const u8 *path, u64 len, s64 event)
{
	u64 begin = path_begin(o, o->n);

	if (o->n == INT32_MAX || !grow((void **)&o->all, &o->room, o->n + 1, sizeof(*o->all)) ||
	    !grow((void **)&o->paths, &o->paths_room, begin + len, 1))
		return NOTHING;
	o->all[o->n] = (struct object){ .event = event, .path_end = begin + len, .kind = kind };
	if (len)
		memcpy(o->paths + begin, path, len);
	return (s32)o->n++;
}

static bool table_set(struct table *t, s64 fd, s32 object, bool cloexec)
{
	struct descriptor *d;

	if (fd != (s32)fd)
		return true; // no call can ever mean it
	d = table_make(t, (s32)fd);
	if (!d)
		return false;
	d->object = object;
	d->cloexec = cloexec;
	return true;
}

// --- the replay --------------------------------------------------------------

static bool start(struct cosy_objects *o, const struct cosy_start *s, u64 cwd_begin)
{
	struct table *t = &o->tables[s->table];
	u64 begin = 0;
	s32 made;

	if (t->started)
		return true;
	table_deinit(t); // calls of a process before its start: no clock has them
	t->started = true;
	if (s->parent != NOTHING && !table_copy(t, &o->tables[s->parent]))
		return false;
	if (!table_find(t, AT_CWD)) {
		made = object_new(o, DIRECTORY, o->world.cwds + cwd_begin, s->cwd_end - cwd_begin,
				  NOTHING);
		if (made == NOTHING || !table_set(t, AT_CWD, made, false))
			return false;
	}
	if (s->parent != NOTHING)
		return true;
	for (u64 i = 0; i < o->world.n_inherited; i++) {
		const struct cosy_inherited *what = &o->world.inherited[i];

		made = object_new(o, (u8)what->kind, o->world.inherited_paths + begin,
				  what->path_end - begin, NOTHING);
		if (made == NOTHING || !table_set(t, what->fd, made, false))
			return false;
		o->all[made].dev = what->dev;
		o->all[made].ino = what->ino;
		o->all[made].known = what->known;
		begin = what->path_end;
	}
	return true;
}

static bool do_open(struct cosy_objects *o, struct table *t, const struct operation *op)
{
	const struct descriptor *base = NULL;
	const u8 *from = NULL;
	u64 base_len = 0, len = 0;
	s32 made;

	if (op->path && op->path[0] != '/') {
		base = op->other == (s32)op->other ? table_find(t, (s32)op->other) : NULL;
		if (base) {
			from = o->paths + path_begin(o, (u64)base->object);
			base_len = o->all[base->object].path_end - path_begin(o, (u64)base->object);
		}
	}
	// A chain of relative folders may grow without end; no kernel takes such a path.
	if (op->path && (op->path[0] == '/' || base_len) && base_len <= MAX_KNOWN_PATH)
		len = path_join(from, base_len, op->path, op->path_len, o->scratch);
	made = object_new(o, op->kind, o->scratch, len, op->row);
	return made != NOTHING && table_set(t, op->fd, made, op->cloexec);
}

static bool do_dup(struct table *t, const struct operation *op)
{
	const struct descriptor *from = table_find(t, (s32)op->other);

	if (from)
		return table_set(t, op->fd, from->object, op->cloexec);
	if (op->fd == (s32)op->fd)
		table_remove(t, (s32)op->fd);
	return true;
}

static bool apply(struct cosy_objects *o, const struct operation *op)
{
	struct table *t = &o->tables[op->table];

	switch (op->does) {
	case DOES_CLOSE:
		table_remove(t, (s32)op->fd);
		break;
	case DOES_OPEN:
		return do_open(o, t, op);
	case DOES_DUP:
		return do_dup(t, op);
	case DOES_EXEC:
		table_remove_all(t, INT32_MIN, INT32_MAX, true);
		break;
	case DOES_RANGE:
		if (op->cloexec) {
			for (u32 i = 0; t->slots && i <= t->mask; i++)
				if (t->slots[i].fd >= op->fd && t->slots[i].fd <= op->other)
					t->slots[i].cloexec = true;
		} else {
			table_remove_all(t, op->fd, op->other, false);
		}
		break;
	}
	return true;
}

/* Let all happen that does before `tsc`; a process that begins does so before an operation of the same time. */
static bool happen(struct cosy_objects *o, s64 tsc)
{
	for (;;) {
		const struct cosy_start *s = &o->world.starts[o->n_started];
		const struct operation *op = o->waiting.n ? o->waiting.all : NULL;
		struct operation now;
		bool good;

		if (o->n_started < o->world.n_starts && s->tsc < tsc &&
		    (!op || s->tsc <= op->tsc)) {
			if (!start(o, s, o->cwd_at))
				return false;
			o->n_started++;
			o->cwd_at = s->cwd_end;
			continue;
		}
		if (!op || op->tsc >= tsc)
			return true;
		now = queue_take(&o->waiting);
		good = apply(o, &now);
		operation_deinit(&o->waiting, &now);
		if (!good)
			return false;
	}
}

// --- what calls tell -----------------------------------------------------------

static bool starts_with(const u8 *path, u64 len, const char *with)
{
	return len >= strlen(with) && !memcmp(path, with, strlen(with));
}

/* tracer/descriptors.py, kind_of_mode */
static u8 kind_of(u32 mode, const u8 *path, u64 len)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		return PLAIN_FILE;
	case S_IFDIR:
		return DIRECTORY;
	case S_IFIFO:
		return PIPE;
	case S_IFSOCK:
		return SOCKET;
	case S_IFBLK:
		return DEVICE;
	case S_IFCHR:
		return starts_with(path, len, "/dev/pts/") || starts_with(path, len, "/dev/tty") ||
				       starts_with(path, len, "/dev/console") ?
			       TTY :
			       DEVICE;
	}
	return OTHER;
}

/* The first answer for each object is enough. */
static void learn(struct cosy_objects *o, const struct cosy_chunk *c, u64 i, s32 object)
{
	u64 sizes = row(c, SIZES)[i], size = payload_size(sizes), begin;
	struct object *it = &o->all[object];
	struct cosy_out_stat st;
	const u8 *at;

	if (it->told || path_len(sizes) || out_len(sizes) != sizeof(st))
		return;
	at = payload(c, i, size);
	if (!at)
		return;
	memcpy(&st, at + size - sizeof(st), sizeof(st));
	begin = path_begin(o, (u64)object);
	it->kind = kind_of(st.mode, o->paths + begin, it->path_end - begin);
	it->dev = st.dev;
	it->ino = st.ino;
	it->known = it->told = true;
}

static bool see(struct cosy_objects *o, const struct cosy_chunk *c, u64 i, s32 *id)
{
	u16 nr = what_nr(row(c, WHAT)[i]);
	const struct cosy_effect *effect = &o->world.effects[nr];
	s32 table = o->world.table_of[c->thread[i]];
	struct operation ops[2];
	u32 n;

	*id = NOTHING;
	if (!happen(o, (s64)row(c, TSC)[i]))
		return false;
	if (effect->fd_at != NO_ARGUMENT) {
		s32 fd = (s32)row(c, ARGS + effect->fd_at)[i];
		const struct descriptor *d = table_find(&o->tables[table], fd);

		*id = d ? d->object : NOTHING;
	}
	if (*id != NOTHING && effect->tells)
		learn(o, c, i, *id);
	if (*id != NOTHING && effect->lists && (s64)row(c, RET)[i] >= 0)
		o->all[*id].listed = true;
	n = effect->does == DOES_NOTHING ? 0 : operations_of(c, i, effect, ops);
	for (u32 k = 0; k < n; k++) {
		ops[k].table = table;
		ops[k].row = o->n_rows + (s64)i;
		if (!queue_add(&o->waiting, &ops[k]))
			return false;
	}
	return true;
}

int cosy_objects_of(struct cosy_objects *o, const struct cosy_chunk *c, s32 *ids)
{
	for (u64 i = 0; i < c->n; i++)
		if (!see(o, c, i, &ids[i]))
			return -1;
	o->n_rows += (s64)c->n;
	return queue_keep_paths(&o->waiting) ? 0 : -1;
}

int cosy_objects_finish(struct cosy_objects *o)
{
	if (!happen(o, INT64_MAX))
		return -1;
	for (u64 i = 0; i < o->n; i++)
		if (o->all[i].listed)
			o->all[i].kind = DIRECTORY;
	return 0;
}

// --- what was found --------------------------------------------------------------

u64 cosy_objects_count(const struct cosy_objects *o)
{
	return o->n;
}

const u8 *cosy_objects_path(const struct cosy_objects *o, u64 i, u64 *len)
{
	*len = o->all[i].path_end - path_begin(o, i);
	return o->paths + path_begin(o, i);
}

void cosy_objects_columns(const struct cosy_objects *o, u8 *kind, s64 *event, u8 *known, u64 *dev,
			  u64 *ino, s64 *ends)
{
	for (u64 i = 0; i < o->n; i++) {
		kind[i] = o->all[i].kind;
		event[i] = o->all[i].event;
		known[i] = o->all[i].known;
		dev[i] = o->all[i].dev;
		ino[i] = o->all[i].ino;
		ends[i] = (s64)o->all[i].path_end;
	}
}
