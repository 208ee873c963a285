// SPDX-License-Identifier: MIT
/*
 * differ FOLDER ROUNDS SEED: the same programs and fused operations in the kernel and
 * as plain calls; all that they leave must be the same: registers, outcome, memory.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cosy.h"
#include "fuzz_program.h"
#include "fuzz_random.h"

#define BYTES (256u << 10)
#define OUT 65536u

static struct cosy kernel, plain;

static void different(const char *what, unsigned long long a, unsigned long long b)
{
	printf("%s: %llx in the kernel, %llx by plain calls\n", what, a, b);
	exit(1);
}

#define SAME(what, a, b)                                                                           \
	do {                                                                                       \
		if ((a) != (b))                                                                    \
			different(what, (unsigned long long)(a), (unsigned long long)(b));         \
	} while (0)

static void same_memory(const char *what)
{
	if (!memcmp(kernel.buffer, plain.buffer, BYTES))
		return;
	for (size_t i = 0; i < BYTES; i++) {
		if (kernel.buffer[i] != plain.buffer[i]) {
			printf("%s: byte %zu of memory\n", what, i);
			different(what, kernel.buffer[i], plain.buffer[i]);
		}
	}
}

/* Calls whose answer is the same a moment later. */
static bool is_steady(int nr)
{
	static const int steady[] = { SYS_fstat,   SYS_newfstatat, SYS_faccessat, SYS_readlinkat,
				      SYS_pread64, SYS_getppid,	   SYS_getcwd,	  SYS_lgetxattr };

	for (size_t i = 0; i < ARRAY_SIZE(steady); i++) {
		if (steady[i] == nr)
			return true;
	}
	return false;
}

static void steady_program(struct cosy_program *p)
{
	struct cosy_insn *x;

	p->n = program_make(p->insns);
	for (x = p->insns; x < p->insns + p->n; x++) {
		if ((x->op == COSY_I_CALL && !is_steady(x->imm)) || x->op == COSY_I_FUSED)
			*x = (struct cosy_insn){ .op = COSY_I_MOVI, .dst = 1, .imm = 7 };
		if (x->op == COSY_I_MOVI && x->imm > 5000)
			x->imm = 5000; // loops that end
	}
}

static unsigned int compare_program(void)
{
	struct cosy_program p = { 0 };
	struct cosy_run in_kernel = { .limits = { .ops = 1000 } }, by_calls;
	int loaded;

	steady_program(&p);
	loaded = cosy_load(&kernel, &p, 0, NULL);
	if (loaded < 0)
		return 0; // the module refuses more than can be run
	by_calls = in_kernel;
	in_kernel.program = (unsigned int)loaded;
	loaded = cosy_load(&plain, &p, 0, NULL);
	if (loaded < 0)
		different("load", in_kernel.program, (unsigned long long)loaded);
	by_calls.program = (unsigned int)loaded;
	for (size_t i = 0; i < 8192; i++)
		kernel.buffer[i] = one_in(4) ? 0 : (unsigned char)('a' + below(26));
	strcpy((char *)kernel.buffer + 64, "n3");
	memcpy(plain.buffer, kernel.buffer, BYTES);
	for (int i = 0; i < COSY_N_REGS; i++)
		in_kernel.regs[i] = one_in(8) ? nasty() : below(8192);
	in_kernel.regs[16] = 3;
	in_kernel.regs[17] = one_in(2) ? 64 : below(8192);
	memcpy(by_calls.regs, in_kernel.regs, sizeof(by_calls.regs));
	if (cosy_run(&kernel, &in_kernel) || cosy_run(&plain, &by_calls))
		different("run", 0, 0);
	SAME("status", in_kernel.outcome.status, by_calls.outcome.status);
	SAME("pc", in_kernel.outcome.pc, by_calls.outcome.pc);
	SAME("ops", in_kernel.outcome.ops, by_calls.outcome.ops);
	for (int i = 0; i < COSY_N_REGS; i++)
		SAME("register", in_kernel.regs[i], by_calls.regs[i]);
	same_memory("program");
	cosy_unload(&kernel, in_kernel.program);
	cosy_unload(&plain, by_calls.program);
	return 1;
}

static void compare_fused(struct cosy_fused call)
{
	struct cosy_fused other = call;

	memset(kernel.buffer + OUT, 0, BYTES - OUT);
	memcpy(plain.buffer, kernel.buffer, BYTES);
	SAME("ioctl", cosy_fused(&kernel, &call), cosy_fused(&plain, &other));
	SAME("result", call.result, other.result);
	SAME("status", call.outcome.status, other.outcome.status);
	SAME("used", call.used, other.used);
	// What lies behind the used bytes is nobody's.
	memset(kernel.buffer + OUT + call.used, 0, BYTES - OUT - call.used);
	memset(plain.buffer + OUT + other.used, 0, BYTES - OUT - other.used);
	same_memory("fused");
}

static struct cosy_fused random_fused(int dir)
{
	struct cosy_fused call = { .op = one_in(2) ? COSY_OP_ENTRIES : COSY_OP_FILES };
	size_t used = 0;

	call.args[0] = (unsigned int)dir;
	call.args[1] = below(32) | COSY_WANT_NOATIME;
	call.args[2] = OUT;
	call.args[3] = one_in(3) ? below(BYTES - OUT) : BYTES - OUT;
	call.args[7] = below(20000);
	if (call.op == COSY_OP_ENTRIES) {
		call.args[5] = below(4);
		call.args[6] = 1024;
		memcpy(kernel.buffer + 1024, "user.fuzz\0security.capability\0", 31);
	} else {
		for (int n = (int)below(30); n > 0; n--)
			used += (size_t)snprintf((char *)kernel.buffer + used, 64, "%sd%u/n%u",
						 one_in(8) ? "../" : "", (unsigned int)below(6),
						 (unsigned int)below(24)) +
				1;
		call.args[5] = used;
		call.args[6] = one_in(2) ? 0 : below(30000);
	}
	return call;
}

int main(int argc, char **argv)
{
	unsigned int ran = 0, fused = 0;
	int dir;

	if (argc != 4 || chdir(argv[1]))
		return 2;
	random_state = strtoull(argv[3], NULL, 10) * 2654435761u + 1;
	dir = open(".", O_RDONLY | O_DIRECTORY);
	if (cosy_open(&kernel, BYTES, 0) || cosy_open(&plain, BYTES, COSY_OPEN_PLAIN) || dir < 0 ||
	    !cosy_in_kernel(&kernel) || cosy_in_kernel(&plain)) {
		puts("no module");
		return 1;
	}
	for (unsigned int i = 0; i < strtoul(argv[2], NULL, 10); i++) {
		ran += compare_program();
		compare_fused(random_fused(dir));
		fused++;
	}
	printf("%u programs and %u fused operations were the same\n", ran, fused);
	return ran > 100 ? 0 : 1;
}
