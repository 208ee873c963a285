// SPDX-License-Identifier: MIT
/*
 * A compound becomes a program. Memory: the image's strings at 0, so that a string's
 * offset is its address; then the list of paths, the way to D, a slot for what each call
 * returned, room to join paths and to read D; and the records. When there is no room for
 * another record the program stops before the call and says where; whoever runs it
 * takes the records away and goes on there.
 */
#include <errno.h>
#include <sys/syscall.h>

#include "lower_parts.h"

static int put_body(struct lowering *l, struct cosy_compound_ready *r)
{
	int err = 0;

	for (uint32_t i = 0; i < l->compound->n_ops; i++) {
		STORE_SLOT(l, ZERO, i, ran);
		STORE_SLOT(l, ZERO, i, has_stat);
	}
	for (uint32_t i = 0; i < l->compound->n_ops && !err; i++)
		err = lower_op(l, r, i);
	emit(l, COSY_I_ADDI, ITERATION, ITERATION, 0, 1);
	return err;
}

// --- loops --------------------------------------------------------------------

static int put_paths(struct lowering *l, struct cosy_compound_ready *r)
{
	uint32_t start;
	int err;

	set(l, COUNT, r->n_paths);
	set(l, ITEM, r->paths);
	start = cosy_loop_start(l->p);
	emit(l, COSY_I_LD32, TEXT, ITEM, 0, 0);
	err = put_body(l, r);
	emit(l, COSY_I_ADDI, ITEM, ITEM, 0, sizeof(uint32_t));
	cosy_loop_end(l->p, COUNT, start);
	return err;
}

/* Over the next entry if TEXT is "." or "..": returns what lands behind it. */
static uint32_t skip_dots(struct lowering *l)
{
	uint32_t named[2], dots;

	set(l, T1, '.');
	emit(l, COSY_I_LD8, T0, TEXT, 0, 0);
	named[0] = cosy_jump(l->p, COSY_I_JNE, T0, T1);
	emit(l, COSY_I_LD8, T0, TEXT, 0, 1);
	unless(l, COSY_I_JNE, T0, T1);
	emit(l, COSY_I_LD8, T0, TEXT, 0, 2); // "..": a third byte decides
	named[1] = cosy_jump(l->p, COSY_I_JNE, T0, ZERO);
	dots = cosy_jump(l->p, COSY_I_JMP, 0, 0);
	cosy_land(l->p, named[0]);
	cosy_land(l->p, named[1]);
	return dots;
}

/* struct linux_dirent64: reclen at 16, the name at 19. */
static int put_entries(struct lowering *l, struct cosy_compound_ready *r)
{
	uint32_t read, entry, at_end, all, dots;
	int err;

	set(l, READS, MOST_READS);
	read = cosy_loop_start(l->p);
	move(l, ARGS, REG_DIR);
	set(l, ARGS + 1, l->dirents);
	set(l, ARGS + 2, DIRENTS_BYTES);
	cosy_call(l->p, RET, SYS_getdents64, ARGS);
	move(l, REG_FAILED, RET);
	at_end = cosy_jump(l->p, COSY_I_JSGE, ZERO, RET);
	set(l, REG_FAILED, 0);
	set(l, ITEM, l->dirents);
	emit(l, COSY_I_ADD, ITEMS_END, ITEM, RET, 0);
	set(l, COUNT, DIRENTS_BYTES / 24 + 1);
	entry = cosy_loop_start(l->p);
	all = cosy_jump(l->p, COSY_I_JGE, ITEM, ITEMS_END);
	move(l, TEXT, ITEM);
	emit(l, COSY_I_ADDI, TEXT, TEXT, 0, 19);
	dots = skip_dots(l);
	need_room(l, MOST_TEXT);
	move(l, T1, REG_CURSOR);
	emit(l, COSY_I_ADDI, T1, T1, 0, RECORD);
	emit(l, COSY_I_STRLEN, T0, TEXT, 0, MOST_TEXT);
	emit(l, COSY_I_MOVE, T0, T1, TEXT, 0);
	set(l, RET, 0);
	put_record(l, COSY_RESULT_ENTRY);
	err = put_body(l, r);
	cosy_land(l->p, dots);
	emit(l, COSY_I_LD16, T0, ITEM, 0, 16);
	emit(l, COSY_I_ADD, ITEM, ITEM, T0, 0);
	cosy_loop_end(l->p, COUNT, entry);
	cosy_land(l->p, all);
	cosy_loop_end(l->p, READS, read);
	cosy_land(l->p, at_end);
	return err;
}

// --- all of it -------------------------------------------------------------------

static uint32_t place(uint64_t *at, uint64_t bytes)
{
	uint64_t mine = *at;

	*at = (mine + bytes + 7) & ~7ull;
	return (uint32_t)mine;
}

int lower_compound(const struct image *im, const struct cosy_compound *compound,
		   struct cosy_program *p, struct cosy_compound_ready *to)
{
	struct lowering l = { .im = im, .compound = compound, .p = p };
	uint64_t at = 0;
	int err;

	*to = (struct cosy_compound_ready){
		.entries = compound->loop == COSY_LOOP_ENTRIES,
		.strings_size = im->head->strings_size,
		.strings = im->strings,
		.n_paths = compound->n_paths,
		.path_offsets = im->paths + compound->first_path,
		.limit_ops = compound->limit_ops,
		.limit_bytes = compound->limit_bytes,
		.limit_time_ns = compound->limit_time_ns,
		.most_record = RECORD + MOST_TEXT,
	};
	place(&at, to->strings_size);
	to->paths = place(&at, to->n_paths * sizeof(uint32_t));
	to->prefix = place(&at, PREFIX_BYTES);
	l.slots = place(&at, COSY_MAX_OPS * sizeof(struct slot));
	l.join = place(&at, COSY_MAX_ARGS * JOIN_BYTES);
	l.dirents = place(&at, to->entries ? DIRENTS_BYTES : 0);
	to->arena = (uint32_t)at;

	set(&l, ZERO, 0);
	set(&l, ITERATION, 0);
	set(&l, CALLS, 0);
	switch (compound->loop) {
	case COSY_LOOP_PATHS:
		err = put_paths(&l, to);
		break;
	case COSY_LOOP_ENTRIES:
		err = put_entries(&l, to);
		break;
	default:
		err = put_body(&l, to);
	}
	set(&l, REG_STOP, 0);
	cosy_exit(p);
	return err ? err : p->full ? -E2BIG : 0;
}
