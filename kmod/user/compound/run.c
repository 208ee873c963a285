// SPDX-License-Identifier: MIT
/* Compounds that are handed over: checked, made into a program, run until all is done. */
#include "cosy_compound.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lower.h"

static const struct cosy_compound *find(const struct image *im, const char *name)
{
	for (uint32_t i = 0; i < im->head->n_compounds; i++) {
		const struct cosy_compound *c = &im->compounds[i];

		if (c->flags == COSY_EXPLICIT && (!name || !strcmp(im->strings + c->name, name)))
			return c;
	}
	return NULL;
}

int cosy_compound_load(struct cosy *c, const void *image, size_t bytes, const char *name,
		       struct cosy_compound_ready *to)
{
	const struct cosy_compound *compound;
	struct cosy_program *p;
	struct image im;
	int err;

	memset(to, 0, sizeof(*to));
	if ((uintptr_t)image % 8 || !image_verify(image, bytes, &im))
		return -EINVAL;
	compound = find(&im, name);
	if (!compound)
		return -ENOENT;
	p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	err = lower_compound(&im, compound, p, to);
	if (!err && c->bytes < (uint64_t)to->arena + to->most_record)
		err = -ENOBUFS;
	if (!err) {
		err = cosy_load(c, p, 0, NULL);
		if (err >= 0)
			to->program = (uint32_t)err;
	}
	free(p);
	return err < 0 ? err : 0;
}

/* What the program finds in its memory. */
static void put_memory(const struct cosy *c, const struct cosy_compound_ready *r, int directory)
{
	char *prefix = (char *)c->buffer + r->prefix;

	memcpy(c->buffer, r->strings, r->strings_size);
	memcpy(c->buffer + r->paths, r->path_offsets, r->n_paths * sizeof(uint32_t));
	// A child of D by a path: as far as the kernel is concerned a descriptor's link is one.
	if (directory == AT_FDCWD)
		prefix[0] = 0;
	else
		snprintf(prefix, PREFIX_BYTES, "/proc/self/fd/%d/", directory);
}

/* One crossing, or as many as signals, the machine's limits and the buffer's size make of it. */
static int cross(struct cosy *c, const struct cosy_compound_ready *r, struct cosy_run *run,
		 uint64_t *time_ns)
{
	for (;;) {
		int err;

		if (*time_ns >= r->limit_time_ns) {
			run->outcome.status = -ETIME;
			return 0;
		}
		run->limits = (struct cosy_limits){ .deadline_ns = r->limit_time_ns - *time_ns };
		err = cosy_run(c, run);
		if (err)
			return err;
		*time_ns += run->outcome.time_ns;
		if (run->outcome.status != -EINTR && run->outcome.status != -E2BIG &&
		    run->outcome.status != -ETIME)
			return 0;
		// The machine allows no more at once; the compound may.
		run->flags = COSY_RUN_RESUME;
	}
}

int cosy_compound_run(struct cosy *c, const struct cosy_compound_ready *r, int directory,
		      cosy_take take, void *arg, struct cosy_outcome *outcome)
{
	struct cosy_run run = { .program = r->program };
	uint64_t taken = 0, ops = 0, time_ns = 0;

	if (r->entries != (directory != -1))
		return -EBADF;
	put_memory(c, r, directory);
	run.regs[REG_MOST] = r->limit_ops;
	run.regs[REG_DIR] = (uint64_t)directory;
	for (;;) {
		uint64_t room = c->bytes - r->arena, left = r->limit_bytes - taken, bytes;
		int64_t why;
		int err;

		run.regs[REG_CURSOR] = r->arena;
		run.regs[REG_END] = r->arena + (room < left ? room : left);
		run.regs[REG_STOP] = 0;
		err = cross(c, r, &run, &time_ns);
		if (err)
			return err;
		ops += run.outcome.ops;
		bytes = run.regs[REG_CURSOR] - r->arena;
		if (bytes)
			take(arg, (const void *)(c->buffer + r->arena), bytes);
		taken += bytes;
		why = (int64_t)run.regs[REG_STOP];
		if (run.outcome.status || !why)
			break;
		// No room: the buffer is empty again, unless it was the compound's own limit.
		if (why == STOP_CALLS)
			run.outcome.status = -E2BIG;
		else if (room >= left && !bytes)
			run.outcome.status = -ENOBUFS;
		if (run.outcome.status)
			break;
		run.flags = COSY_RUN_RESUME;
		run.outcome.pc = (uint32_t)why;
	}
	*outcome = run.outcome;
	outcome->ops = ops;
	outcome->time_ns = time_ns;
	if (!outcome->status)
		outcome->status = (int32_t)(int64_t)run.regs[REG_FAILED];
	return 0;
}
