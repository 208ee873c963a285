// SPDX-License-Identifier: MIT
#include "serve.h"

#include <asm/unistd_64.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "fence.h"
#include "leaf.h"
#include "sites.h"

// What a record has answered: two bits count the first kind, the others are one bit each.
#define SERVED_SHIFT 24
#define SERVED_FIRST (3u << SERVED_SHIFT)
#define SERVED_ALL (0xffu << SERVED_SHIFT)
#define SERVED_KINDS 7
#define MOST_TIMES 3

struct work works[COSY_MAX_COMPOUNDS];
u32 fruitless;

// The record that was found last: a program often asks for more than one thing.
static struct {
	const char *at; // where the program had the name; NULL: none was found
	const struct results *results;
	u32 generation;
	struct record rec;
} again;
static struct name copied; // of a name that cannot be compared where it lies

// --- what the image says ---------------------------------------------------

static const char *attribute_of(const struct cosy_pattern *p)
{
	return profile.strings + p->string;
}

// Calls that one record answers in the same way count as one kind.
static bool take_served(struct work *w, const struct cosy_compound *c)
{
	u8 next = 1;

	for (u32 i = 0; i < c->n_serve; i++) {
		const struct cosy_pattern *p = &profile.patterns[c->first_serve + i];
		u8 kind = p->string ? next : 0;

		for (u32 k = 0; p->string && k < i; k++) {
			const struct cosy_pattern *q = &profile.patterns[c->first_serve + k];

			if (q->string && str_equal(attribute_of(p), attribute_of(q)))
				kind = w->patterns[k].kind;
		}
		if (kind == next && p->string)
			next++;
		if (kind >= SERVED_KINDS)
			return false;
		attr_pattern_take(&w->patterns[i], p, attribute_of(p));
		w->patterns[i].kind = kind;
		w->serving[attr_call_layout(p->nr)] |= 1u << i;
	}
	for (u32 layout = 0; layout < ATTR_LAYOUTS; layout++) {
		u32 may = w->serving[layout];
		const struct attr_pattern *only = &w->patterns[may ? __builtin_ctz(may) : 0];

		if (may && !(may & (may - 1)) && !attr_layouts[layout].xattr)
			w->plain[layout] = only;
	}
	return true;
}

static void take_triggers(struct work *w, const struct cosy_compound *c)
{
	for (u32 i = 0; i < c->n_triggers; i++) {
		const struct cosy_pattern *p = &profile.patterns[c->first_trigger + i];

		attr_pattern_take(&w->patterns[c->n_serve + i], p, attribute_of(p));
		w->triggering[attr_call_layout(p->nr)] |= 1u << (c->n_serve + i);
	}
}

/*
 * Each call of the body is answered once: where the traced programs asked
 * twice, the body holds the call twice.
 */
static u32 times_asked(const struct cosy_compound *c)
{
	u32 most = 1;

	for (u32 i = 0; i < c->n_ops; i++) {
		const struct cosy_op *op = &profile.ops[c->first_op + i];
		u32 n = 0;

		for (u32 k = 0; k < c->n_ops; k++)
			n += profile.ops[c->first_op + k].nr == op->nr;
		if (!names_xattr(op->nr) && n > most)
			most = n;
	}
	return most < MOST_TIMES ? most : MOST_TIMES;
}

bool work_take(u32 ci, const struct cosy_compound *c)
{
	struct work *w = &works[ci];

	if (!take_served(w, c))
		return false;
	take_triggers(w, c);
	w->times = (u8)times_asked(c);
	account_open(&w->account);
	return true;
}

// The first of these patterns that the call matches; NULL: none.
static APART const struct attr_pattern *match(const struct work *w, u32 may,
					      const struct attr_call *call)
{
	for (; may; may &= may - 1) {
		const struct attr_pattern *p = &w->patterns[__builtin_ctz(may)];

		if (attr_call_matches(call, p))
			return p;
	}
	return NULL;
}

bool work_triggers(const struct work *w, const struct attr_call *call)
{
	return match(w, w->triggering[call->layout], call);
}

// --- answering -------------------------------------------------------------

static bool used_up(const struct record *rec, u8 kind, u8 times)
{
	if (kind)
		return *rec->served & 2u << (SERVED_SHIFT + kind);
	return (*rec->served & SERVED_FIRST) >> SERVED_SHIFT >= times;
}

static void use(const struct record *rec, u8 kind)
{
	if (kind)
		*rec->served |= 2u << (SERVED_SHIFT + kind);
	else if ((*rec->served & SERVED_FIRST) < SERVED_FIRST)
		*rec->served += 1u << SERVED_SHIFT;
}

static bool is_again(const struct results *r, const char *name)
{
	const struct cosy_bpf_child *c = again.rec.child;

	// Not beyond its page, if it is shorter than the record's.
	return name == again.at && r == again.results && r->generation == again.generation &&
	       ((u64)name & (PAGE_SIZE - 1)) + c->namelen < PAGE_SIZE && mem_page_readable(name) &&
	       same_bytes(name, child_name(c), c->namelen) && !name[c->namelen];
}

// The record of the child named at `name`, into again.rec. No record has a name with a slash.
static APART bool find(struct results *r, const char *name)
{
	struct name_at at;

	if (is_again(r, name))
		return true;
	again.at = NULL;
	if (unlikely(!name_scan(&at, name))) {
		if (!name_take(&copied, name))
			return false;
		at = name_in(&copied);
	}
	if (!results_lookup(r, &at, &again.rec))
		return false;
	again.at = name;
	again.results = r;
	again.generation = r->generation;
	return true;
}

ALWAYS_INLINE const struct attr_pattern *serving(const struct work *w, const struct attr_call *call)
{
	const struct attr_pattern *p = w->plain[call->layout];

	if (likely(p != NULL))
		return attr_call_allowed(call, p) ? p : NULL;
	return match(w, w->serving[call->layout], call);
}

static void count_served(const struct attr_call *call, const struct results *r, bool first)
{
	stats_add(compound[r->compound % COSY_STATS_COMPOUNDS].served, 1);
	sites_served(call->regs, r->site, first);
}

ALWAYS_INLINE enum cosy_decline serve_from(const struct attr_call *call, struct dir_slot *d,
					   struct results *r, const struct attr_pattern *p,
					   const char *name, long *ret)
{
	struct work *w = r->work;
	const struct record *rec = &again.rec;
	enum cosy_decline why = results_fresh(r);
	bool first;

	if (why != COSY_DECLINES)
		return why;
	if (!find(r, name))
		return COSY_DECLINE_ABSENT;
	if (used_up(rec, p->kind, w->times) && fence_on(FENCE_SERVED_ONCE)) {
		account_take_back(&w->account);
		return COSY_DECLINE_USED;
	}
	why = answer(call, p, rec, ret);
	if (why != COSY_DECLINES)
		return why;
	// A signal handler or another thread may have ended the epoch meanwhile.
	if (r->start.epoch != epoch_now())
		return COSY_DECLINE_EPOCH;
	first = !(*rec->served & SERVED_ALL);
	use(rec, p->kind);
	if (first) {
		d->asked++;
		results_asked(r);
	}
	account_answer(&w->account);
	sums.answers[p->kind != 0]++;
	if (unlikely(cosy_stats))
		count_served(call, r, first);
	return COSY_DECLINES;
}

static COLD void declined(enum cosy_decline why)
{
	stats_decline(why);
	sums.declined[why]++;
	// The end of a large directory, read slowly: no sign that nothing helps here.
	if (why == COSY_DECLINE_AGE && fruitless)
		fruitless--;
}

ALWAYS_INLINE bool serve_child(const struct attr_call *call, struct dir_slot *d, int dirfd,
			       const char *name, long *ret)
{
	struct results *r = results_of(d->results);
	const struct attr_pattern *p;
	enum cosy_decline why;

	if (!r || !(dirfd == AT_FDCWD ? d->by_path : d->by_fd))
		return false;
	p = serving(r->work, call);
	if (!p)
		return false;
	why = serve_from(call, d, r, p, name, ret);
	if (unlikely(why != COSY_DECLINES)) {
		declined(why);
		return false;
	}
	fruitless = 0;
	leaf_answered();
	return true;
}

bool serve(const struct attr_call *call, struct dir_slot *d, int dirfd, const char *name, long *ret)
{
	return serve_child(call, d, dirfd, name, ret);
}

bool serve_near(const struct regs *r, struct dir_slot **near, const char **name, long *ret)
{
	struct attr_call call;

	attr_call_take(r, &call);
	*near = dir_near(call.dirfd, call.path, name);
	return *near && serve_child(&call, *near, call.dirfd, *name, ret);
}

bool serve_opened(const struct child *child)
{
	struct record rec;

	if (results_find(child->dir->results, &child->name, &rec) != COSY_DECLINES)
		return false;
	if (S_ISDIR(rec.child->mode))
		return true;
	// Opening it pays for the cold memory that the answer had saved.
	if (*rec.served & SERVED_ALL)
		account_take_back(&rec.results->work->account);
	if (fence_on(FENCE_OPEN_FILE))
		*rec.served |= SERVED_ALL;
	return false;
}
