// SPDX-License-Identifier: MIT
/*
 * Images on standard input, each behind its size (u32): a line for each says what becomes of
 * its explicit compounds, a letter each; "-": the image is refused.
 *
 *	a	made into a program that the module's verifier accepts, and that did no harm
 *	u	it holds what cannot be handed over, or is too long
 *	X	made into a program that the module's verifier refuses
 *
 * With an argument, so many times each program is changed a little, too; in the end a
 * line says how many of those the module's verifier accepted, and how many it refused. All that it
 * accepts is run, with calls that only pretend: sanitizers tell of any harm, and an alarm of any
 * run that does not end.
 */
#include <errno.h>
#include <linux/types.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "compound/lower.h"
#include "kernel/cosy.h"
#include "plain.h"

#define BUFFER_BYTES (3 << 20)
#define RUN_OPS 3000 /* of a changed program */
#define RUN_SECONDS 20

static uint64_t image[COSY_IMAGE_MAX_SIZE / 8];
static uint64_t seed = 88172645463325252ull;
static unsigned int calls_made, reads_of_d;

static uint32_t random_below(uint32_t n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)(seed >> 33) % n;
}

static void __attribute__((noreturn)) harm(const char *what)
{
	fprintf(stderr, "verify_programs: %s\n", what);
	exit(3);
}

// --- what the module's verifier asks: the lists are the same (test_module_calls.py) ---

struct cosy_call {
	int32_t nr;
};

const struct cosy_call *cosy_call_find(s32 nr)
{
	static struct cosy_call found;

	found.nr = nr;
	return plain_call_args(nr) < 0 ? NULL : &found;
}

bool cosy_call_is_pure(const struct cosy_call *call)
{
	return plain_call_is_pure(call->nr);
}

u32 cosy_call_n_args(const struct cosy_call *call)
{
	return (u32)plain_call_args(call->nr);
}

bool cosy_fused_exists(u64 nr)
{
	return nr > COSY_OP_NONE && nr < COSY_OP_MAX;
}

bool cosy_fused_is_pure(u64 nr)
{
	return nr <= COSY_OP_SCAN && nr != COSY_OP_COPY;
}

// --- calls that pretend -------------------------------------------------------

static uint64_t fill_dirents(const struct cosy *c, const uint64_t *args)
{
	static const uint16_t lengths[] = { 24, 32, 48, 280 };
	uint64_t at = 0;

	if (!plain_range_ok(c, args[1], args[2]))
		return (uint64_t)-EFAULT;
	if (++reads_of_d % 4 == 0)
		return 0;
	for (uint32_t k = random_below(20); k; k--) {
		uint16_t length = lengths[random_below(4)];
		unsigned char *to = c->buffer + args[1] + at;

		if (at + length > args[2])
			break;
		memset(to, 0, length);
		memcpy(to + 16, &length, sizeof(length));
		memset(to + 19, random_below(3) ? 'n' : '.', random_below(length - 19u));
		at += length;
	}
	return at;
}

uint64_t plain_call(const struct cosy *c, int32_t nr, const uint64_t *args)
{
	const uint64_t *buffer = args + (nr == SYS_readlinkat ? 2 : 1);
	uint64_t bytes;

	calls_made++;
	if (nr == SYS_getdents64)
		return fill_dirents(c, args);
	if (random_below(3) == 0)
		return (uint64_t)-(int64_t)(1 + random_below(40));
	if (nr != SYS_read && nr != SYS_pread64 && nr != SYS_readlinkat)
		return 0;
	// Now and then all that was asked for.
	bytes = buffer[1] && buffer[1] < 1 << 21 ? random_below((uint32_t)buffer[1] + 1) : 0;
	bytes = random_below(2) ? bytes : 0;
	if (!plain_range_ok(c, buffer[0], bytes))
		return (uint64_t)-EFAULT;
	memset(c->buffer + buffer[0], 0xff, bytes);
	return bytes;
}

bool plain_fused_exists(uint64_t op)
{
	return cosy_fused_exists(op);
}

bool plain_fused_is_pure(uint64_t op)
{
	return cosy_fused_is_pure(op);
}

int64_t plain_fused(const struct cosy *c, uint32_t op, uint32_t flags, const uint64_t *args,
		    struct plain_budget *budget, uint64_t *used, int *status)
{
	(void)c, (void)op, (void)flags, (void)args, (void)budget, (void)status;
	*used = 0;
	return -(int64_t)random_below(3);
}

// --- running --------------------------------------------------------------------

static void check_results(void *arg, const struct cosy_result *r, size_t bytes)
{
	const struct cosy_compound *compound = arg;
	const char *end = (const char *)r + bytes;

	while ((const char *)r < end) {
		size_t left = (size_t)(end - (const char *)r);

		if (left < sizeof(*r) || r->bytes < sizeof(*r) || r->bytes > left || r->bytes % 8)
			harm("a record that does not fit");
		if (r->data > r->bytes - sizeof(*r))
			harm("data that do not fit their record");
		if (r->op != COSY_RESULT_ENTRY && r->op >= compound->n_ops)
			harm("a result of no call of the body");
		r = cosy_next_result(r);
	}
}

static void run_compound(struct cosy *c, const struct image *im,
			 const struct cosy_compound *compound)
{
	const char *name = im->strings + compound->name;
	struct cosy_compound_ready ready;
	struct cosy_outcome outcome;
	int err;

	err = cosy_compound_load(c, im->head, im->head->size, name, &ready);
	if (err)
		harm("what was lowered does not load");
	calls_made = 0;
	alarm(RUN_SECONDS);
	err = cosy_compound_run(c, &ready, ready.entries ? 5 : -1, check_results, (void *)compound,
				&outcome);
	if (err)
		harm("what was loaded does not run");
	// Besides the body's there are only reads of D.
	if (calls_made > compound->limit_ops + reads_of_d)
		harm("more calls than the compound allows");
	reads_of_d = 0;
	cosy_unload(c, ready.program);
}

static void change(struct cosy_program *p)
{
	static const int32_t interesting[] = { 0, 1, 2, -1, -2, 63, 64, 4096, INT32_MAX, INT32_MIN };
	struct cosy_insn *x = &p->insns[random_below(p->n)];

	switch (random_below(7)) {
	case 0:
		x->op = (__u8)random_below(COSY_I_MAX + 1);
		break;
	case 1:
		x->dst = (__u8)random_below(COSY_N_REGS + 1);
		break;
	case 2:
		x->a = (__u8)random_below(COSY_N_REGS + 1);
		break;
	case 3:
		x->b = (__u8)random_below(COSY_N_REGS + 1);
		break;
	case 4:
		x->imm = interesting[random_below(10)];
		break;
	case 5:
		x->imm = (int32_t)((uint32_t)x->imm + random_below(9) - 4);
		break;
	default:
		*x = p->insns[random_below(p->n)];
	}
}

static bool accepted(const struct cosy_program *p)
{
	u32 at;

	return cosy_verify(p->insns, p->n, 0, &at) == COSY_REFUSED_NOT;
}

static void run_changed(struct cosy *c, const struct cosy_program *p)
{
	struct cosy_run run = { .limits = { .ops = RUN_OPS, .deadline_ns = 1000000000 } };
	int number;

	number = cosy_load(c, p, 0, NULL);
	if (number < 0)
		harm("plain calls refuse what the module accepts");
	for (int i = 0; i < COSY_N_REGS; i++)
		run.regs[i] = random_below(4) ? random_below(BUFFER_BYTES) : seed;
	run.program = (uint32_t)number;
	alarm(RUN_SECONDS);
	if (cosy_run(c, &run) || run.outcome.pc >= p->n)
		harm("a run left its program");
	cosy_unload(c, (uint32_t)number);
}

static char judge(struct cosy *c, const struct image *im, const struct cosy_compound *compound,
		  long changes, unsigned long count[2])
{
	static struct cosy_program p, changed;
	struct cosy_compound_ready ready;

	p.n = 0;
	p.full = false;
	if (lower_compound(im, compound, &p, &ready))
		return 'u';
	if (!accepted(&p))
		return 'X';
	run_compound(c, im, compound);
	for (; changes > 0; changes--) {
		changed = p;
		for (uint32_t k = random_below(3); k != ~0u; k--)
			change(&changed);
		if (accepted(&changed)) {
			count[1]++;
			run_changed(c, &changed);
		} else {
			count[0]++;
		}
	}
	return 'a';
}

int main(int argc, char **argv)
{
	struct cosy c = { .fd = -1, .buffer = calloc(1, BUFFER_BYTES), .bytes = BUFFER_BYTES };
	long changes = argc > 1 ? atol(argv[1]) : 0;
	unsigned long count[2] = { 0 };
	uint32_t size;

	while (fread(&size, sizeof(size), 1, stdin)) {
		struct image im;

		if (size > sizeof(image) || fread(image, 1, size, stdin) != size)
			return 2;
		if (!image_verify((const void *)image, size, &im)) {
			puts("-");
			continue;
		}
		for (uint32_t i = 0; i < im.head->n_compounds; i++)
			if (im.compounds[i].flags == COSY_EXPLICIT)
				putchar(judge(&c, &im, &im.compounds[i], changes, count));
		putchar('\n');
	}
	if (changes)
		printf("%lu accepted, %lu refused\n", count[1], count[0]);
	free(c.buffer);
	return 0;
}
