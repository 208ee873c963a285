// SPDX-License-Identifier: MIT
/* Raw events become the columns of the dataset (tracer/convert.py), in arrow's form. */
#include "api.h"
#include "distinct.h"

#define NO_LIMIT (1l << 62)
#define BLOCK                                                                                      \
	512 /* events whose words stay in the nearest cache while one column is made after the other */

#define AHEAD                                                                                      \
	8 /* texts that are hashed before they are sought, so that their slots come meanwhile */

/* Some events of a chunk: first to end. */
struct range {
	u64 first, end;
};

static inline void set_bit(u8 *bits, u64 i)
{
	bits[i / 8] |= (u8)(1 << i % 8);
}

/*
 * Set the bits of events from r.first on, a multiple of 8, by bytes of 0 and 1; what is behind the last of them
 * is zero. Returns how many are set. Bit by bit each had to wait for the one before.
 */
static u64 pack(const u8 flags[BLOCK], struct range r, u8 *bits)
{
	u64 n = 0, eight;

	for (u64 i = 0; i < r.end - r.first; i += 8) {
		memcpy(&eight, flags + i, 8);
		eight = eight * 0x0102040810204080ul >> 56;
		bits[(r.first + i) / 8] = (u8)eight;
		n += (u64)__builtin_popcountl(eight);
	}
	return n;
}

static void times(const struct cosy_chunk *c, struct range r, struct cosy_columns *out)
{
	const u64 *tsc = row(c, TSC), *dur = row(c, DUR);
	s64 *t_ns = out->t_ns, *dur_ns = out->dur_ns, zero_tsc = out->zero_tsc, zero = out->zero_ns;
	double rate = out->ns_per_tick;

	for (u64 i = r.first; i < r.end; i++) {
		t_ns[i] = __builtin_llrint((double)((s64)tsc[i] - zero_tsc) * rate) + zero;
		dur_ns[i] = __builtin_llrint((double)(s64)dur[i] * rate);
	}
}

static void identities(const struct cosy_chunk *c, struct range r, struct cosy_columns *out)
{
	const u64 *what = row(c, WHAT);

	for (u64 i = r.first; i < r.end; i++) {
		out->pid[i] = out->pids[c->thread[i]];
		out->tid[i] = out->tids[c->thread[i]];
		out->nr[i] = (s16)what_nr(what[i]);
	}
}

// Registers that are no arguments hold whatever was left in them.
static void arguments(const struct cosy_chunk *c, struct range r, struct cosy_columns *out)
{
	const u64 *what = row(c, WHAT) + r.first;
	u64 n_args[BLOCK], n = r.end - r.first;

	for (u64 i = 0; i < n; i++)
		n_args[i] = out->calls[what_nr(what[i])].n_args;
	for (u32 k = 0; k < 6; k++) {
		const u64 *from = row(c, ARGS + k) + r.first;
		u64 *to = out->args + k * c->n + r.first;

		for (u64 i = 0; i < n; i++)
			to[i] = n_args[i] > k ? from[i] : 0;
	}
}

/*
 * The bytes that each call moved into and out of the kernel. Counted are the data, the strings and the
 * attributes; not small structures such as time values, nor addresses of sockets.
 */
static void moved(const struct cosy_chunk *c, struct range r, struct cosy_columns *out)
{
	const u64 *what = row(c, WHAT), *sizes = row(c, SIZES), *ret = row(c, RET);
	u8 returned[BLOCK] = { 0 };

	for (u64 i = r.first; i < r.end; i++) {
		const struct cosy_call *call = &out->calls[what_nr(what[i])];
		bool back = !(what_flags(what[i]) & COSY_EVENT_NO_RETURN);
		s64 result = (s64)ret[i], limit = NO_LIMIT, into = 0, from = 0;
		u32 path = path_len(sizes[i]), path2 = path2_len(sizes[i]);

		if (call->size_at >= 0) {
			u64 size = row(c, ARGS + (u32)call->size_at)[i];

			limit = size < NO_LIMIT ? (s64)size : NO_LIMIT;
		}
		returned[i - r.first] = back;
		if (back) {
			s64 bytes = result < 0 ? 0 : result < limit ? result : limit;

			from = (call->copies_out ? bytes : 0) + (result >= 0 ? call->fixed_out : 0);
			// Calls such as setxattr return 0 and have taken all that they were given.
			if (call->copies_in)
				into = !result && call->size_at >= 0 ? limit : bytes;
		}
		out->bytes_in[i] = into + (path ? path + 1 : 0) + (path2 ? path2 + 1 : 0);
		out->bytes_out[i] = from;
	}
	out->n_returned += pack(returned, r, out->returned);
}

static void attributes(const struct cosy_chunk *c, struct range r, struct cosy_columns *out)
{
	const u64 *what = row(c, WHAT), *sizes = row(c, SIZES);
	u8 has[BLOCK] = { 0 };

	for (u64 i = r.first; i < r.end; i++) {
		struct cosy_out_stat st = { 0 };
		u64 size = payload_size(sizes[i]);
		const u8 *at = NULL;

		if (out->calls[what_nr(what[i])].returns & RETURNS_STAT &&
		    out_len(sizes[i]) == sizeof(st))
			at = payload(c, i, size);
		if (at)
			memcpy(&st, at + size - sizeof(st), sizeof(st));
		has[i - r.first] = at != NULL;
		out->st_mode[i] = st.mode;
		out->st_size[i] = (s64)st.size;
		out->st_ino[i] = (s64)st.ino;
	}
	out->n_stats += pack(has, r, out->has_stat);
}

// --- texts -----------------------------------------------------------------

static bool same_text(const struct cosy_texts *t, u64 number, const u8 *at, u32 size)
{
	s32 begin = t->ends[number];

	return (u32)(t->ends[number + 1] - begin) == size && !memcmp(t->joined + begin, at, size);
}

/* Whether some byte is '%', or beyond ASCII. */
static bool is_odd(const u8 *at, u32 size)
{
	const u64 ones = 0x0101010101010101ul, tops = 0x80 * ones;
	u64 found = 0, word, last = 0;

	for (; size >= 8; at += 8, size -= 8) {
		memcpy(&word, at, 8);
		found |= word | ((word ^ '%' * ones) - ones);
	}
	for (; size; size--)
		last = last << 8 | *at++;
	// Of bytes within ASCII, and of zeros, only '%' borrows; where one does, the next may seem to.
	return (found | last | ((last ^ '%' * ones) - ones)) & tops;
}

static s32 text_number(struct cosy_texts *t, struct distinct *known, const u8 *at, u32 size,
		       u64 hash)
{
	u64 place = distinct_begin(known, hash);
	u32 number;

	for (; !distinct_free(known, place); place = distinct_next(known, place)) {
		s64 found = distinct_at(known, place, hash);

		if (found != NOTHING && same_text(t, (u64)found, at, size))
			return (s32)found;
	}
	number = distinct_add(known, place, hash);
	memcpy(t->joined + t->ends[number], at, size);
	t->ends[number + 1] = t->ends[number] + (s32)size;
	t->odd |= is_odd(at, size);
	return (s32)number;
}

/* A text of an event, and its hash. */
struct word {
	const u8 *at; /* NULL: there is none */
	u32 size;
	u64 hash;
};

static struct word word_of(const struct cosy_chunk *c, u64 i, bool second)
{
	u64 sizes = row(c, SIZES)[i];
	u32 begin = second ? path_len(sizes) : 0;
	struct word found = { .size = second ? path2_len(sizes) : path_len(sizes) };
	const u8 *at = found.size ? payload(c, i, (u64)begin + found.size) : NULL;

	if (at) {
		found.at = at + begin;
		found.hash = hash_bytes(found.at, found.size);
	}
	return found;
}

/* The first strings of the events, or the second ones; false: no memory. */
static bool texts(const struct cosy_chunk *c, bool second, struct cosy_texts *t)
{
	const u64 *sizes = row(c, SIZES);
	struct word ahead[AHEAD];
	struct distinct known;
	u64 most = 0;

	for (u64 i = 0; i < c->n; i++)
		most += (second ? path2_len(sizes[i]) : path_len(sizes[i])) > 0;
	t->ends[0] = 0;
	if (!most)
		return true;
	if (!distinct_init(&known, most))
		return false;
	for (u64 i = 0; i < c->n + AHEAD; i++) {
		struct word now = ahead[i % AHEAD];

		if (i < c->n) {
			ahead[i % AHEAD] = word_of(c, i, second);
			distinct_prefetch(&known, ahead[i % AHEAD].hash);
		}
		if (i < AHEAD)
			continue;
		t->codes[i - AHEAD] = 0;
		// No writer lets texts overlap, so that those of a heap are no longer than it.
		if (!now.at || (u64)t->ends[known.n] + now.size > t->room)
			continue;
		t->codes[i - AHEAD] = text_number(t, &known, now.at, now.size, now.hash);
		set_bit(t->valid, i - AHEAD);
		t->n_valid++;
	}
	t->n = known.n;
	distinct_deinit(&known);
	return true;
}

// --- where, and what came back ----------------------------------------------

/* Number the pairs of a thread and an address; false: no memory. */
static bool sites(const struct cosy_chunk *c, struct cosy_columns *out)
{
	const u64 *site = row(c, SITE);
	struct distinct known;

	if (!distinct_init(&known, c->n))
		return false;
	for (u64 i = 0; i < c->n; i++) {
		u64 hash = mix(mix(0, site[i]), (u64)c->thread[i]);
		u64 place = distinct_begin(&known, hash);
		s64 found = NOTHING;

		for (; !distinct_free(&known, place); place = distinct_next(&known, place)) {
			found = distinct_at(&known, place, hash);
			if (found != NOTHING && out->site_address[found] == site[i] &&
			    out->site_thread[found] == c->thread[i])
				break;
			found = NOTHING;
		}
		if (found == NOTHING) {
			found = distinct_add(&known, place, hash);
			out->site_address[found] = site[i];
			out->site_thread[found] = c->thread[i];
		}
		out->site[i] = (s32)found;
		if (site[i]) {
			set_bit(out->has_site, i);
			out->n_sites++;
		}
	}
	out->n_pairs = known.n;
	distinct_deinit(&known);
	return true;
}

struct dirent_head { /* struct linux_dirent64; the name follows */
	u64 ino;
	s64 off;
	u16 reclen;
	u8 type;
} __attribute__((packed));

static bool is_dot(const u8 *name, u64 len)
{
	return (len == 1 || len == 2) && name[0] == '.' && name[len - 1] == '.';
}

/* What kmod/uapi/cosy_trace.h keeps of a getdents64 buffer; up to the first broken entry. Returns how many. */
static u64 hashes(const u8 *buf, u64 size, u32 *to)
{
	struct dirent_head head;
	u64 n = 0;

	for (; size >= sizeof(head); buf += head.reclen, size -= head.reclen) {
		const u8 *name = buf + sizeof(head);
		u32 hash = COSY_FNV_BASIS;
		u64 len;

		memcpy(&head, buf, sizeof(head));
		if (head.reclen < sizeof(head) || head.reclen > size)
			break;
		len = strnlen((const char *)name, head.reclen - sizeof(head));
		if (is_dot(name, len))
			continue;
		for (u64 i = 0; i < len; i++)
			hash = (hash ^ name[i]) * COSY_FNV_PRIME;
		to[n++] = (hash & ~15u) | (head.type & 15u);
	}
	return n;
}

static void lists(const struct cosy_chunk *c, struct cosy_columns *out)
{
	const u64 *what = row(c, WHAT), *sizes = row(c, SIZES), *ret = row(c, RET);
	u64 n = 0;

	out->names_ends[0] = 0;
	for (u64 i = 0; i < c->n; i++) {
		u64 begin = (u64)path_len(sizes[i]) + path2_len(sizes[i]);
		const u8 *at;

		out->names_ends[i + 1] = (s32)n;
		if (!(out->calls[what_nr(what[i])].returns & RETURNS_DIRENTS) || (s64)ret[i] < 0 ||
		    what_flags(what[i]) & COSY_EVENT_NO_RETURN)
			continue;
		set_bit(out->has_names, i);
		out->n_lists++;
		at = payload(c, i, payload_size(sizes[i]));
		if (!at || n + out_len(sizes[i]) / 4 > out->names_room)
			continue;
		if (what_flags(what[i]) & COSY_EVENT_RAW_DIRENTS) {
			n += hashes(at + begin, out_len(sizes[i]), out->names + n);
		} else {
			memcpy(out->names + n, at + begin, out_len(sizes[i]) / 4 * 4);
			n += out_len(sizes[i]) / 4;
		}
		out->names_ends[i + 1] = (s32)n;
	}
}

int cosy_columns(const struct cosy_chunk *c, struct cosy_columns *out)
{
	for (struct range r = { 0 }; r.first < c->n; r.first = r.end) {
		r.end = r.first + BLOCK < c->n ? r.first + BLOCK : c->n;
		times(c, r, out);
		identities(c, r, out);
		arguments(c, r, out);
		moved(c, r, out);
		attributes(c, r, out);
	}
	lists(c, out);
	return texts(c, false, &out->path) && texts(c, true, &out->path2) && sites(c, out) ? 0 : -1;
}
