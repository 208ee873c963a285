// SPDX-License-Identifier: MIT
#include "dirs.h"

#include <asm/unistd_64.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>

#include "ahead.h"
#include "fence.h"
#include "mem.h"
#include "recorded.h"

#define SLOTS 64
#define FDS 1024 // descriptors above are not followed: their reads are fences
#define CLOSED 0
#define MAX_PATH_LEN 4095
#define LARGE_FILE 0100000 // what openat() adds and openat2() does not

static struct dir_slot slots[SLOTS];
// What every search looks at, close together: when a slot was used last (larger is younger; multiples
// of SLOTS), and the length and last bytes of its path (0: none).
static u64 used[SLOTS], path_keys[SLOTS];
static u64 clock;
static const struct dir_slot *latest;

static void note_use(const struct dir_slot *d)
{
	if (d == latest)
		return;
	latest = d;
	used[d - slots] = ++clock * SLOTS;
}

// Binding of a descriptor: generation << 8 | slot + 1; CLOSED: none.
static u64 bound[FDS];
static struct {
	u64 dev, ino;
	u8 kind; // enum fd_kind
} kinds[FDS];

// All that is noted of descriptors is of lower ones: those of most programs fit into one page.
static u64 noted AT_START;

static void note(u64 fd)
{
	u64 n = __atomic_load_n(&noted, __ATOMIC_RELAXED);

	while (n <= fd && !__atomic_compare_exchange_n(&noted, &n, fd + 1, false, __ATOMIC_ACQ_REL,
						       __ATOMIC_RELAXED))
		;
}

void fd_forget(u64 first, u64 to)
{
	u64 end = __atomic_load_n(&noted, __ATOMIC_ACQUIRE);

	recorded_forget(first, to);
	ahead_closing(first, to);
	for (u64 fd = first; fd <= to && fd < end; fd++) {
		__atomic_store_n(&bound[fd], CLOSED, __ATOMIC_RELAXED);
		__atomic_store_n(&kinds[fd].kind, FD_UNKNOWN, __ATOMIC_RELEASE);
	}
}

static enum fd_kind kind_of(const struct stat *st)
{
	switch (st->st_mode & S_IFMT) {
	case S_IFREG:
		return FD_FILE;
	case S_IFDIR:
	case S_IFLNK:
		return FD_QUIET;
	case S_IFCHR:
		// /dev/null, zero, full, random, urandom bring no news of anybody.
		if (st->st_rdev >> 8 == 1 && (st->st_rdev & 0xff) >= 3)
			return FD_QUIET;
	}
	return FD_NEWS;
}

void fd_learn(u64 fd, const struct stat *st)
{
	if (fd >= FDS || !ground_ours())
		return;
	note(fd);
	kinds[fd].dev = st->st_dev;
	kinds[fd].ino = st->st_ino;
	__atomic_store_n(&kinds[fd].kind, kind_of(st), __ATOMIC_RELEASE);
}

enum fd_kind fd_kind(u64 fd, u64 *dev, u64 *ino)
{
	struct stat st;
	enum fd_kind kind;

	if (fd < FDS) {
		kind = __atomic_load_n(&kinds[fd].kind, __ATOMIC_ACQUIRE);
		if (likely(kind != FD_UNKNOWN)) {
			*dev = kinds[fd].dev;
			*ino = kinds[fd].ino;
			return kind;
		}
	}
	if (sys_failed(sys(__NR_fstat, fd, &st)))
		return FD_QUIET; // no descriptor: the call fails, too
	*dev = st.st_dev;
	*ino = st.st_ino;
	fd_learn(fd, &st);
	return kind_of(&st);
}

long open_plain(int dirfd, const char *path, u64 flags)
{
	struct open_how how = {
		.flags = flags | (flags & O_PATH ? 0 : LARGE_FILE),
		.resolve = RESOLVE_NO_MAGICLINKS,
	};

	return sys(__NR_openat2, dirfd, path, &how, sizeof(how));
}

// In four chains and without branches, for which it is cannot be foreseen. The lowest bits say which it was.
static u32 oldest_slot(void)
{
	u64 least[4] = { ~0ul, ~0ul, ~0ul, ~0ul };

	for (u32 i = 0; i < SLOTS; i += 4) {
		for (u32 k = 0; k < 4; k++) {
			u64 key = used[i + k] + i + k;

			least[k] = key < least[k] ? key : least[k];
		}
	}
	for (u32 k = 1; k < 4; k++)
		least[0] = least[k] < least[0] ? least[k] : least[0];
	return least[0] % SLOTS;
}

static struct dir_slot *slot_new(void)
{
	u32 at = oldest_slot();
	struct dir_slot *oldest;

	path_keys[at] = 0;
	oldest = &slots[at];
	results_give_up(oldest->results); // nothing finds them any more
	if (unlikely(oldest->list != LIST_NONE))
		ahead_leave(oldest);
	oldest->generation++;
	oldest->entries = 0;
	oldest->cut = false;
	oldest->matched = 0;
	oldest->asked = 0;
	oldest->runs = 0;
	oldest->fd = -1;
	oldest->results = (struct results_ref){ 0 };
	oldest->by_fd = false;
	oldest->by_path = false;
	oldest->partial = false;
	oldest->scanned = false;
	oldest->refused = false;
	oldest->control = false;
	oldest->node = 0;
	oldest->lent = false;
	oldest->end_epoch = 0;
	oldest->last_child = 0;
	oldest->up_generation = 0;
	return oldest;
}

static u64 path_key(const char *path, size_t len)
{
	u64 word = 0;

	for (size_t i = len < 6 ? 0 : len - 6; i < len; i++)
		word = word << 8 | (u8)path[i];
	return word << 16 | len;
}

static u32 last; // most calls are about the directory of the call before

static struct dir_slot *slot_by_path(const char *path, size_t len)
{
	u64 key = path_key(path, len);

	for (u32 i = 0; i < SLOTS; i++) {
		u32 at = (last + i) % SLOTS;

		if (path_keys[at] == key && same_bytes(slots[at].path, path, len)) {
			last = at;
			return &slots[at];
		}
	}
	return NULL;
}

struct dir_slot *dir_opened(const char *path, size_t len, int fd, u64 epoch, u64 tsc)
{
	struct dir_slot *d = NULL;

	if (fd >= FDS)
		return NULL;
	while (len > 1 && path[len - 1] == '/')
		len--;
	if (len >= DIR_PATH_MAX)
		len = 0;
	if (len)
		d = slot_by_path(path, len);
	// The same path again, perhaps another directory: forget the old one.
	if (d)
		used[d - slots] = 0;
	d = slot_new();
	memcpy(d->path, path, len);
	d->path[len] = 0;
	path_keys[d - slots] = len ? path_key(path, len) : 0;
	if (len)
		last = (u32)(d - slots);
	d->fd = fd;
	d->open_epoch = epoch;
	d->open_tsc = tsc;
	latest = NULL;
	note_use(d);
	note((u64)fd);
	__atomic_store_n(&bound[fd], (u64)d->generation << 8 | (u64)(d - slots + 1),
			 __ATOMIC_RELAXED);
	return d;
}

void dir_lent(u64 fd)
{
	struct dir_slot *d = dir_of_fd(fd);

	if (!d)
		return;
	d->lent = true;
	dir_moves(fd);
	ahead_leave(d);
}

void dir_duplicated(u64 from, u64 to)
{
	if (to >= FDS)
		dir_lent(from);
	if (from >= FDS || to >= FDS)
		return;
	note(to);
	__atomic_store_n(&bound[to], bound[from], __ATOMIC_RELAXED);
}

struct dir_slot *dir_of_fd(u64 fd)
{
	u64 bind = fd < FDS ? __atomic_load_n(&bound[fd], __ATOMIC_RELAXED) : CLOSED;
	struct dir_slot *d;

	if (bind == CLOSED)
		return NULL;
	d = &slots[(bind & 0xff) - 1];
	return d->generation == bind >> 8 ? d : NULL;
}

struct dir_slot *dir_up(const struct dir_slot *d)
{
	struct dir_slot *up = &slots[d->up];

	return d->up_generation && up->generation == d->up_generation ? up : NULL;
}

void dir_end_reached(struct dir_slot *d)
{
	// As long as there are results, whatever brings news is looked at.
	if (!(cosy_config.executors & COSY_EXECUTOR_INLINE) || d->lent || !armed ||
	    !results_alive())
		return;
	d->end_tsc = results_tsc();
	__atomic_store_n(&d->end_epoch, epoch_now(), __ATOMIC_RELEASE);
}

bool dir_ended(u64 fd)
{
	struct dir_slot *d = dir_of_fd(fd);

	if (!d || !__atomic_load_n(&d->end_epoch, __ATOMIC_RELAXED) ||
	    __atomic_exchange_n(&d->end_epoch, 0, __ATOMIC_ACQ_REL) != epoch_now() ||
	    (rdtsc() - d->end_tsc > max_age_ticks && fence_on(FENCE_MAX_AGE)))
		return false;
	stats_add(ends, 1);
	return true;
}

void dir_moves(u64 fd)
{
	struct dir_slot *d = dir_of_fd(fd);

	if (d)
		__atomic_store_n(&d->end_epoch, 0, __ATOMIC_RELEASE);
}

void dir_comes_from(struct dir_slot *d, const struct dir_slot *up, u32 hash)
{
	d->up = dir_number(up);
	d->up_generation = up->generation;
	d->up_hash = hash;
	for (up = d; up; up = dir_up(up))
		used[up - slots] = ++clock * SLOTS;
}

int dir_descriptor(const struct dir_slot *d)
{
	u64 end = __atomic_load_n(&noted, __ATOMIC_ACQUIRE);

	if (d->fd >= 0 && dir_of_fd((u32)d->fd) == d)
		return d->fd;
	for (u64 fd = 0; fd < end && fd < FDS; fd++)
		if (dir_of_fd(fd) == d)
			return (int)fd;
	return -1;
}

void dirs_each(void (*f)(struct dir_slot *d))
{
	for (u32 i = 0; i < SLOTS; i++)
		f(&slots[i]);
}

u32 dir_number(const struct dir_slot *d)
{
	return (u32)(d - slots);
}

bool dirs_known(void)
{
	return clock != 0;
}

// Is the path one of the directory of the call before, and its name behind this place? 0: no.
static size_t name_in_last(const char *path)
{
	size_t len = (u16)path_keys[last];

	// Not beyond the path's page, which can be read.
	return len && ((u64)path & (PAGE_SIZE - 1)) + len < PAGE_SIZE && path[len] == '/' &&
			       same_bytes(slots[last].path, path, len) ?
		       len + 1 :
		       0;
}

struct dir_slot *dir_near(int dirfd, const char *path, const char **name)
{
	struct dir_slot *d;
	size_t at = 0;

	if (dirfd != AT_FDCWD) {
		d = dir_of_fd((u32)dirfd);
	} else {
		at = mem_page_readable(path) ? name_in_last(path) : 0;
		d = at ? &slots[last] : NULL;
	}
	*name = path + at;
	if (d)
		note_use(d);
	return d;
}

static bool take_entry(struct child *to, const char *name)
{
	to->at = name;
	return name_take(&to->name, name) && name_is_entry(&to->name);
}

// The directory of a path, if we know it, and the name in it.
static struct dir_slot *dir_of_path(const char *path, struct child *to)
{
	size_t at = name_in_last(path);
	long len;

	if (at && take_entry(to, path + at))
		return &slots[last];
	len = mem_strlen(path, MAX_PATH_LEN);
	for (at = len < 0 ? 0 : (size_t)len; at && path[at - 1] != '/';)
		at--;
	if (len < 0 || !take_entry(to, path + at))
		return NULL;
	while (at > 1 && path[at - 1] == '/')
		at--;
	return at ? slot_by_path(path, at) : slot_by_path(".", 1);
}

bool dir_child(int dirfd, const char *path, struct child *to)
{
	if (!mem_page_readable(path))
		return false;
	if (dirfd == AT_FDCWD || path[0] == '/') {
		to->dirfd = AT_FDCWD;
		to->dir = dir_of_path(path, to);
	} else {
		to->dirfd = dirfd;
		to->dir = dir_of_fd((u32)dirfd);
		if (to->dir && !take_entry(to, path))
			to->dir = NULL;
	}
	if (!to->dir)
		return false;
	note_use(to->dir);
	return true;
}

void dirs_moved(void)
{
	for (u32 i = 0; i < SLOTS; i++)
		__atomic_store_n(&path_keys[i], 0, __ATOMIC_RELAXED);
}
