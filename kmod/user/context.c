// SPDX-License-Identifier: MIT
/* A context: the module's if there is one, else memory of our own. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "plain.h"

#define PAGE 4096ull

static int ask(const struct cosy *c, unsigned long request, void *arg)
{
	return ioctl(c->fd, request, arg) ? -errno : 0;
}

static int map(struct cosy *c, size_t bytes)
{
	int fd = c->fd, flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;

	c->buffer = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, fd, 0);
	if (c->buffer == MAP_FAILED)
		return -errno;
	c->bytes = bytes;
	return 0;
}

/* False: there is no module, or it will not have us. */
static bool open_module(struct cosy *c, size_t bytes)
{
	struct cosy_setup setup = { .abi = COSY_MODULE_ABI, .buffer_bytes = bytes };

	c->fd = open(COSY_DEVICE, O_RDWR | O_CLOEXEC);
	if (c->fd < 0)
		return false;
	if (!ask(c, COSY_IOC_SETUP, &setup) && !map(c, setup.buffer_bytes))
		return true;
	close(c->fd);
	c->fd = -1;
	return false;
}

int cosy_open(struct cosy *c, size_t buffer_bytes, unsigned int flags)
{
	memset(c, 0, sizeof(*c));
	c->fd = -1;
	if (!buffer_bytes || buffer_bytes > SIZE_MAX - PAGE || (flags & ~COSY_OPEN_PLAIN))
		return -EINVAL;
	if (!(flags & COSY_OPEN_PLAIN) && open_module(c, buffer_bytes))
		return 0;
	return map(c, (buffer_bytes + PAGE - 1) & ~(PAGE - 1));
}

void cosy_close(struct cosy *c)
{
	munmap(c->buffer, c->bytes);
	if (c->fd >= 0)
		close(c->fd);
	for (int i = 0; i < COSY_MAX_PROGRAMS; i++)
		free(c->programs[i]);
	memset(c, 0, sizeof(*c));
	c->fd = -1;
}

static int load_plain(struct cosy *c, const struct cosy_program *p, uint32_t flags,
		      struct cosy_load *load)
{
	int err = plain_verify(p, flags, load);

	if (err)
		return err;
	for (int i = 0; i < COSY_MAX_PROGRAMS; i++) {
		if (c->programs[i])
			continue;
		c->programs[i] = malloc(sizeof(*p));
		if (!c->programs[i])
			return -ENOMEM;
		*c->programs[i] = *p;
		c->programs[i]->flags = flags;
		return i;
	}
	return -ENOMEM;
}

int cosy_load(struct cosy *c, const struct cosy_program *p, uint32_t flags,
	      struct cosy_load *refused)
{
	struct cosy_load own;
	int err;

	if (!refused)
		refused = &own;
	*refused =
		(struct cosy_load){ .insns = (uintptr_t)p->insns, .n_insns = p->n, .flags = flags };
	if (!cosy_in_kernel(c) || p->full)
		return load_plain(c, p, flags, refused);
	err = ask(c, COSY_IOC_LOAD, refused);
	return err ? err : (int)refused->program;
}

int cosy_unload(struct cosy *c, uint32_t number)
{
	if (cosy_in_kernel(c))
		return ask(c, COSY_IOC_UNLOAD, &number);
	if (number >= COSY_MAX_PROGRAMS || !c->programs[number])
		return -ENOENT;
	free(c->programs[number]);
	c->programs[number] = NULL;
	return 0;
}

int cosy_run(struct cosy *c, struct cosy_run *run)
{
	const struct cosy_program *p;

	if (cosy_in_kernel(c))
		return ask(c, COSY_IOC_RUN, run);
	if (run->flags & ~COSY_RUN_RESUME)
		return -EINVAL;
	p = run->program < COSY_MAX_PROGRAMS ? c->programs[run->program] : NULL;
	if (!p)
		return -ENOENT;
	if ((run->flags & COSY_RUN_RESUME) && run->outcome.pc >= p->n)
		return -EINVAL;
	plain_run(c, p, run);
	return 0;
}

int cosy_fused(struct cosy *c, struct cosy_fused *call)
{
	struct plain_budget budget;
	int status = 0;

	if (cosy_in_kernel(c))
		return ask(c, COSY_IOC_FUSED, call);
	if ((call->flags & ~(COSY_FUSED_USER | COSY_FUSED_PURE)) || !plain_fused_exists(call->op) ||
	    ((call->flags & COSY_FUSED_PURE) && !plain_fused_is_pure(call->op)))
		return -EINVAL;
	plain_budget_init(&budget, &call->limits);
	call->used = 0;
	call->result = plain_fused(c, call->op, call->flags, (const uint64_t *)call->args, &budget,
				   (uint64_t *)&call->used, &status);
	call->outcome.status = call->result < 0 ? (int)call->result : status;
	call->outcome.pc = 0;
	plain_ended(&budget, &call->outcome);
	return 0;
}
