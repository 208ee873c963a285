// SPDX-License-Identifier: MIT
/*
 * Patching: every system call instruction that can be moved safely becomes a
 * jump to a 64-byte stub (entry.S). Two forms are safe without disassembling:
 *
 *   A  mov $nr,%eax ; syscall      the mov is overwritten, the syscall stays
 *   B  syscall ; cmp $-4095,%rax   (or -4096, or cmp %eax) both are, if no
 *                                  branch can land between them
 *
 * Of glibc 2.36's 526 sites 500 have one of these forms, rt_sigreturn never.
 * The patched text goes into a file of the cache folder, named by the
 * library's build-id and the side of the gates that it lies on, so that later
 * processes map it instead of patching:
 * 97 us of CPU per exec against 439 us (prototype's figures; bench/overhead.py
 * measures this code).
 */
#include "gate.h"

#include <asm/unistd_64.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "build_id.h"
#include "shim.h"
#include "stub.h"

#define MAX_SITES 1024
#define MAX_AREAS STUB_TABLES
#define CACHE_MAGIC "COSYTXT\x01"
// Bump when stubs or entry change: cached text calls into this library.
#define CACHE_VERSION 3

// A library's text and where its stubs belong.
struct target {
	u8 *base; // load address
	u8 *text; // of the executable segment, page aligned
	size_t len; // in whole pages
	u8 id[BUILD_ID_SIZE];
	bool has_id;
};

struct site {
	u32 off; // of the syscall instruction in the text
	u8 moved; // bytes of the instruction behind it that move along; 0: form A
};

// One library's stubs: whole pages of stubs, then one page with their table.
struct area {
	u8 *at;
	size_t stubs_len;
};

struct cache_header {
	u8 magic[8];
	u32 version;
	u32 n_sites;
	u64 text_len;
	u64 stubs_len;
	s64 distance; // of the stubs from the library's load address
	u8 id[20];
	u8 pad[4];
};

static struct site sites[MAX_SITES];
static u32 n_sites;
static struct {
	u8 *lo, *hi;
} areas[MAX_AREAS] AT_START;
static u32 n_areas AT_START;

// Libraries whose text holds system calls, by the start of their file name.
static const char *const known[] = {
	"libc.so.",	 "libc-2.",   "ld-linux-x86-64.so.", "ld-2.",	    "libpthread.so.",
	"libpthread-2.", "librt.so.", "liburing.so.",	     "libgomp.so.", "libaio.so.",
};

static bool is_known(const char *path)
{
	const char *name = base_name(path);

	for (u32 i = 0; i < ARRAY_SIZE(known); i++)
		if (str_starts(name, known[i]))
			return true;
	return false;
}

static u32 load32(const u8 *p)
{
	u32 v;

	__builtin_memcpy(&v, p, sizeof(v));
	return v;
}

#define BYTES(byte) ((byte) * 0x0101010101010101ul)

static void store32(u8 *p, u32 v)
{
	__builtin_memcpy(p, &v, sizeof(v));
}

static void put_jump(u8 *at, const u8 *runs_at, const u8 *to)
{
	at[0] = 0xe9;
	store32(at + 1, (u32)(to - (runs_at + 5)));
}

// --- finding sites -------------------------------------------------------

static void consider(const u8 *text, size_t off, size_t len)
{
	const u8 *p = text + off;

	if (p[0] != 0x0f || p[1] != 0x05 || n_sites == MAX_SITES || off < 8 || off + 16 > len)
		return;
	// mov $nr,%eax right before; a REX byte would make it another instruction.
	if (p[-5] == 0xb8 && load32(p - 4) < COSY_ACTIONS && (p[-6] & 0xf0) != 0x40 &&
	    load32(p - 4) != __NR_rt_sigreturn) {
		sites[n_sites++] = (struct site){ (u32)off, 0 };
		return;
	}
	if (p[2] == 0x48 && p[3] == 0x3d && (load32(p + 4) | 1) == 0xfffff001u)
		sites[n_sites++] = (struct site){ (u32)off, 6 };
	else if (p[2] == 0x3d && (load32(p + 3) | 1) == 0xfffff001u)
		sites[n_sites++] = (struct site){ (u32)off, 5 };
}

// Where a relative branch of this length leads to that may be at p, with its offset in the last bytes.
static const u8 *near_target(const u8 *p)
{
	return p + 2 + (signed char)p[1];
}

static const u8 *far_target(const u8 *p)
{
	size_t opcode = p[0] == 0x0f ? 2 : 1;

	return p + opcode + 4 + (s32)load32(p + opcode);
}

static bool is_near_branch(const u8 *p)
{
	return p[0] == 0xeb || (p[0] & 0xf0) == 0x70 || (p[0] >= 0xe0 && p[0] <= 0xe3);
}

static bool is_far_branch(const u8 *p)
{
	return (p[0] & 0xfe) == 0xe8 || (p[0] == 0x0f && (p[1] & 0xf0) == 0x80);
}

// Whether some of the 256 bytes around the site branch into it with an offset of one byte.
static bool branched_into_nearby(const u8 *text, size_t len, const struct site *site)
{
	u64 into = site->off + 2ul, end = into + 128;

	for (u64 at = into < 130 ? 0 : into - 130; at < end && at + 6 <= len; at++)
		if (is_near_branch(text + at) && near_target(text + at) == text + into)
			return true;
	return false;
}

// The site of form B with its second instruction at `off`, or NULL. Sites are sorted.
static struct site *branched_into(u64 off)
{
	u32 lo = 0, hi = n_sites;

	while (lo < hi) {
		u32 mid = (lo + hi) / 2;

		if (sites[mid].off < off)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo && sites[lo - 1].moved && off == (u64)sites[lo - 1].off + 2 ? &sites[lo - 1] :
										NULL;
}

// The highest bit of each of 8 bytes at p where a branch may start that is_far_branch().
static u64 far_branches(const u8 *p)
{
	u64 here = load_word(p), next = load_word(p + 1);

	return zero_bytes((here & BYTES(0xfe)) ^ BYTES(0xe8)) |
	       (zero_bytes(here ^ BYTES(0x0f)) & zero_bytes((next & BYTES(0xf0)) ^ BYTES(0x80)));
}

#define FILTER_BITS 65536u

static void drop_target(const u64 *filter, const u8 *text, size_t len, u64 at)
{
	u64 into = (u64)(far_target(text + at) - text);
	struct site *site;

	if (likely(into >= len || !(filter[into % FILTER_BITS / 64] >> into % 64 & 1)))
		return;
	site = is_far_branch(text + at) ? branched_into(into) : NULL;
	if (site)
		site->moved = 0xff;
}

/*
 * Drop sites of form B whose second instruction something might branch to.
 * Every byte is taken for a possible start of the branch, so this errs on the
 * safe side; only a real instruction start is taken for its target, or noise
 * would cost sites that matter (glibc 2.36: read(2) of a program with threads).
 * Where nothing can be cached, every exec does this: eight bytes at a time, and most branches of a
 * megabyte of text lead nowhere that the filter knows.
 */
static void drop_branched_into(const u8 *text, size_t len)
{
	static u64 filter[FILTER_BITS / 64]; // of offsets that a branch must not lead to
	u32 n = 0;

	memset(filter, 0, sizeof(filter));
	for (u32 i = 0; i < n_sites; i++) {
		u64 into = sites[i].off + 2ul;

		if (!sites[i].moved)
			continue;
		filter[into % FILTER_BITS / 64] |= 1ul << into % 64;
		if (branched_into_nearby(text, len, &sites[i]))
			sites[i].moved = 0xff;
	}
	for (size_t at = 0; at + 16 <= len; at += 8)
		for (u64 found = far_branches(text + at); found; found &= found - 1)
			drop_target(filter, text, len, at + (u64)__builtin_ctzl(found) / 8);
	for (u32 i = 0; i < n_sites; i++)
		if (sites[i].moved != 0xff)
			sites[n++] = sites[i];
	n_sites = n;
}

static void find_sites(const u8 *text, size_t len)
{
	n_sites = 0;
	for (size_t at = 0; at + 16 <= len; at += 8) {
		u64 found = zero_bytes(load_word(text + at) ^ BYTES(0x0f)) &
			    zero_bytes(load_word(text + at + 1) ^ BYTES(0x05));

		for (; found; found &= found - 1)
			consider(text, at + (u64)__builtin_ctzl(found) / 8, len);
	}
	drop_branched_into(text, len);
}

// --- building ------------------------------------------------------------

/*
 * Write the stubs into `stubs` and the jumps into `text`, both of which may be
 * copies: they will run at `area->at` and `t->text`.
 */
static void build(const struct target *t, const struct area *area, u8 *text, u8 *stubs)
{
	memset(stubs, 0xcc, area->stubs_len);
	for (u32 i = 0; i < n_sites; i++) {
		u8 *p = text + sites[i].off, *site = t->text + sites[i].off;
		u8 *stub = area->at + i * STUB_SIZE;
		u32 moved = sites[i].moved;

		stub_build(stubs + i * STUB_SIZE, stub,
			   &(struct stub_site){ p + 2, site + 2, moved },
			   area->at + area->stubs_len);
		if (moved) {
			put_jump(p, site, stub);
			for (u32 k = 5; k < 2 + moved; k++)
				p[k] = 0xcc;
		} else {
			put_jump(p - 5, site - 5, stub);
		}
	}
}

// --- placing -------------------------------------------------------------

static bool area_free(const u8 *lo, const u8 *hi)
{
	if (lo < cosy_gates || hi > cosy_gates + GATES_SIZE || n_areas == MAX_AREAS)
		return false;
	for (u32 i = 0; i < n_areas; i++)
		if (lo < areas[i].hi && areas[i].lo < hi)
			return false;
	return true;
}

static bool area_take(u8 *lo, size_t len)
{
	if (!area_free(lo, lo + len))
		return false;
	areas[n_areas].lo = lo;
	areas[n_areas++].hi = lo + len;
	return true;
}

static bool is_below(const struct target *t)
{
	return t->base < cosy_gates;
}

/*
 * Libraries are mapped downwards: ours (preloaded) comes before libc, which
 * so lies some MiB below the gates, while ld.so lies above them. So does libc, one
 * time in ten, where the kernel aligns our mapping to 2 MiB and leaves a gap above
 * it. These two distances put the stubs of either into the gates in all usual
 * layouts.
 */
static s64 usual_distance(const struct target *t)
{
	return is_below(t) ? GATES_SIZE / 2 : -(GATES_SIZE / 4);
}

// Any place in the gates, from the top, for text that is not cached.
static u8 *area_anywhere(size_t len)
{
	for (u64 off = GATES_SIZE - PAGE_UP(len); off < GATES_SIZE; off -= PAGE_UP(len))
		if (area_free(cosy_gates + off, cosy_gates + off + len))
			return cosy_gates + off;
	return NULL;
}

static bool in_jump_range(const struct target *t, const u8 *at)
{
	s64 far = at - t->text;

	return far > -0x7f000000l && far < 0x7f000000l;
}

// Stays writable, as cosy_hook is: to protect it took 3 us for each library and exec.
static bool map_table(u8 *at)
{
	struct stub_table *table = (void *)sys(__NR_mmap, at, PAGE_SIZE, PROT_READ | PROT_WRITE,
					       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

	if (sys_failed((long)table))
		return false;
	stub_table_open(table);
	return true;
}

// --- the cache -----------------------------------------------------------

static bool cache_path(const struct target *t, const char *suffix, struct text *path)
{
	if (!cosy_config.cache || !t->has_id)
		return false;
	text_add(path, cosy_config.cache);
	text_add(path, "/");
	for (u32 i = 0; i < sizeof(t->id); i++)
		text_hex(path, t->id[i], 2);
	text_add(path, is_below(t) ? ".below" : ".above");
	text_add(path, suffix);
	return !path->cut;
}

// Ours or root's, and nobody else can write it.
static bool file_trusted(int fd, u64 size)
{
	struct stat st;

	return !sys_failed(sys(__NR_fstat, fd, &st)) && S_ISREG(st.st_mode) &&
	       !(st.st_mode & 022) && (u64)st.st_size == size &&
	       (!st.st_uid || st.st_uid == (u32)sys(__NR_geteuid));
}

static bool map_file(void *at, size_t len, int fd, u64 off)
{
	return !sys_failed(
		sys(__NR_mmap, at, len, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, fd, off));
}

static bool map_cached_fd(const struct target *t, int fd)
{
	struct cache_header h;
	u8 *at;

	if (sys(__NR_pread64, fd, &h, sizeof(h), 0) != sizeof(h) ||
	    memcmp(h.magic, CACHE_MAGIC, sizeof(h.magic)) || h.version != CACHE_VERSION ||
	    memcmp(h.id, t->id, sizeof(h.id)) || h.text_len != t->len ||
	    h.distance != usual_distance(t) || h.stubs_len != PAGE_UP(h.n_sites * STUB_SIZE) ||
	    !file_trusted(fd, PAGE_SIZE + h.text_len + h.stubs_len))
		return false;
	at = t->base + h.distance;
	// Stubs first: from the moment the text is mapped, they are in use.
	return area_take(at, h.stubs_len + PAGE_SIZE) && map_table(at + h.stubs_len) &&
	       map_file(at, h.stubs_len, fd, PAGE_SIZE + h.text_len) &&
	       map_file(t->text, t->len, fd, PAGE_SIZE);
}

static bool map_cached(const struct target *t)
{
	char buf[4096];
	struct text path = { .at = buf, .size = sizeof(buf) };
	bool ok;
	int fd;

	if (!cache_path(t, ".text", &path))
		return false;
	fd = (int)sys(__NR_openat, AT_FDCWD, buf, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return false;
	ok = map_cached_fd(t, fd);
	sys(__NR_close, fd);
	return ok;
}

static bool write_all(int fd, const void *from, size_t len)
{
	for (const u8 *p = from; len;) {
		long n = sys(__NR_write, fd, p, len);

		if (n <= 0)
			return false;
		p += n;
		len -= (size_t)n;
	}
	return true;
}

/*
 * Keep what build() made, under a name of our own until it is whole. A file
 * size limit would send the program a signal: then there is no cache.
 */
static void cache_write(const struct target *t, const struct area *area, const u8 *text,
			const u8 *stubs)
{
	char tmp_buf[4096], path_buf[4096];
	struct text tmp = { .at = tmp_buf, .size = sizeof(tmp_buf) };
	struct text path = { .at = path_buf, .size = sizeof(path_buf) };
	u8 page[PAGE_SIZE];
	struct cache_header h = { .version = CACHE_VERSION,
				  .n_sites = n_sites,
				  .text_len = t->len,
				  .stubs_len = area->stubs_len,
				  .distance = area->at - t->base };
	bool ok;
	int fd;

	if (!cache_path(t, ".text", &path) || !cache_path(t, ".", &tmp))
		return;
	if (!file_size_allowed(PAGE_SIZE + t->len + area->stubs_len))
		return;
	text_dec(&tmp, (u64)sys(__NR_getpid));
	memcpy(h.magic, CACHE_MAGIC, sizeof(h.magic));
	memcpy(h.id, t->id, sizeof(h.id));
	memset(page, 0, sizeof(page));
	memcpy(page, &h, sizeof(h));
	fd = (int)sys(__NR_openat, AT_FDCWD, tmp_buf, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC,
		      0600);
	if (fd < 0)
		return;
	ok = write_all(fd, page, sizeof(page)) && write_all(fd, text, t->len) &&
	     write_all(fd, stubs, area->stubs_len) && !sys(__NR_fchmod, fd, 0644);
	sys(__NR_close, fd);
	if (!ok || sys(__NR_rename, tmp_buf, path_buf))
		sys(__NR_unlink, tmp_buf);
}

// --- patching ------------------------------------------------------------

/*
 * Put the built text in place page by page, only where it differs. The text
 * may be in use by other threads only if it was just mapped (dlopen), before
 * anybody could have called into it.
 */
static bool install(const struct target *t, const struct area *area, const u8 *text,
		    const u8 *stubs)
{
	if (sys_failed(sys(__NR_mmap, area->at, area->stubs_len, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0)))
		return false;
	memcpy(area->at, stubs, area->stubs_len);
	if (sys_failed(sys(__NR_mprotect, area->at, area->stubs_len, PROT_READ | PROT_EXEC)) ||
	    !map_table(area->at + area->stubs_len) ||
	    sys_failed(sys(__NR_mprotect, t->text, t->len, PROT_READ | PROT_WRITE | PROT_EXEC)))
		return false;
	for (size_t off = 0; off < t->len; off += PAGE_SIZE)
		if (memcmp(t->text + off, text + off, PAGE_SIZE))
			memcpy(t->text + off, text + off, PAGE_SIZE);
	sys(__NR_mprotect, t->text, t->len, PROT_READ | PROT_EXEC);
	return true;
}

static bool patch(const struct target *t)
{
	struct area area;
	u8 *work;
	bool ok;

	find_sites(t->text, t->len);
	if (!n_sites)
		return true;
	area.stubs_len = PAGE_UP(n_sites * STUB_SIZE);
	area.at = t->base + usual_distance(t);
	if (!area_take(area.at, area.stubs_len + PAGE_SIZE)) {
		area.at = area_anywhere(area.stubs_len + PAGE_SIZE);
		if (!area.at || !in_jump_range(t, area.at) ||
		    !area_take(area.at, area.stubs_len + PAGE_SIZE))
			return false;
	}
	work = (u8 *)sys(__NR_mmap, 0, t->len + area.stubs_len, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (sys_failed((long)work))
		return false;
	memcpy(work, t->text, t->len);
	build(t, &area, work, work + t->len);
	if (area.at - t->base == usual_distance(t))
		cache_write(t, &area, work, work + t->len);
	ok = install(t, &area, work, work + t->len);
	sys(__NR_munmap, work, t->len + area.stubs_len);
	return ok;
}

// --- targets -------------------------------------------------------------

static bool target_of(struct target *t, u8 *base)
{
	const Elf64_Ehdr *eh = (const void *)base;
	const Elf64_Phdr *ph = (const void *)(base + eh->e_phoff);

	*t = (struct target){ .base = base };
	t->has_id = build_id_take(t->id, ph, eh->e_phnum, (u64)base);
	for (u32 i = 0; i < eh->e_phnum; i++) {
		if (ph[i].p_type != PT_LOAD || !(ph[i].p_flags & PF_X))
			continue;
		if (t->text)
			return false; // two executable segments: nothing we know
		t->text = (u8 *)PAGE_DOWN(base + ph[i].p_vaddr);
		t->len = PAGE_UP(base + ph[i].p_vaddr + ph[i].p_filesz) - (u64)t->text;
	}
	return t->text;
}

bool gates_open(void)
{
	bool libc = false;

	for (struct link_map *l = _r_debug.r_map; l; l = l->l_next) {
		struct target t;
		bool ok;

		if (!l->l_addr || !l->l_name || !is_known(l->l_name) ||
		    !target_of(&t, (u8 *)l->l_addr))
			continue;
		ok = map_cached(&t) || patch(&t);
		libc = libc || (ok && str_starts(base_name(l->l_name), "libc"));
	}
	return libc;
}

void gates_add(u8 *text, size_t len, int fd)
{
	char link[64], buf[4096];
	struct text path = { .at = link, .size = sizeof(link) };
	struct target t = { .base = text, .text = text, .len = PAGE_UP(len) };
	long n;

	text_add(&path, "/proc/self/fd/");
	text_dec(&path, (u64)fd);
	n = sys(__NR_readlinkat, AT_FDCWD, link, buf, sizeof(buf) - 1);
	if (n <= 0)
		return;
	buf[n] = 0;
	if (is_known(buf))
		patch(&t);
}
