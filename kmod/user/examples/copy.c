// SPDX-License-Identifier: MIT
/*
 * copy FROM TO: open, create, copy all, close and close in one crossing. TO must
 * not be there. Exit code 1: failed, and says at which call.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#include "cosy.h"

#define PATH 4096 /* bytes of the buffer for each path */
enum { DIR = 1, NAME, FLAGS, MODE, IN, OUT, COPIED, ZERO, IGNORED, ARGS = 16 };

static void write_program(struct cosy_program *p)
{
	uint32_t no_in, no_out;

	cosy_set(p, ZERO, 0);
	cosy_set(p, DIR, AT_FDCWD);
	cosy_set(p, NAME, 0);
	cosy_set(p, FLAGS, O_RDONLY | O_CLOEXEC);
	cosy_call(p, IN, SYS_openat, DIR);
	no_in = cosy_jump(p, COSY_I_JSLT, IN, ZERO);
	cosy_set(p, NAME, PATH);
	cosy_set(p, FLAGS, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC);
	cosy_set(p, MODE, 0644);
	cosy_call(p, OUT, SYS_openat, DIR);
	no_out = cosy_jump(p, COSY_I_JSLT, OUT, ZERO);
	cosy_emit(p, COSY_I_MOV, ARGS, IN, 0, 0);
	cosy_emit(p, COSY_I_MOV, ARGS + 1, OUT, 0, 0);
	cosy_set(p, ARGS + 2, INT64_MAX);
	cosy_fused_call(p, COPIED, COSY_OP_COPY, ARGS);
	cosy_call(p, IGNORED, SYS_close, OUT);
	cosy_land(p, no_out);
	cosy_call(p, IGNORED, SYS_close, IN);
	cosy_land(p, no_in);
	cosy_exit(p);
}

static int failed(const char *what, const char *path, int64_t error)
{
	fprintf(stderr, "copy: %s %s: %s\n", what, path, strerror((int)-error));
	return 1;
}

int main(int argc, char **argv)
{
	static struct cosy_program program;
	struct cosy_run run = { 0 };
	struct cosy c;
	int number;

	if (argc != 3 || strlen(argv[1]) >= PATH || strlen(argv[2]) >= PATH)
		return 2;
	if (cosy_open(&c, 2 * PATH, getenv("PLAIN") ? COSY_OPEN_PLAIN : 0))
		return 2;
	write_program(&program);
	number = cosy_load(&c, &program, 0, NULL);
	if (number < 0)
		return failed("load", "", number);
	strcpy((char *)c.buffer, argv[1]);
	strcpy((char *)c.buffer + PATH, argv[2]);
	run.program = (uint32_t)number;
	do { // an interrupted run goes on where it was
		int err = cosy_run(&c, &run);

		if (err)
			return failed("run", "", err);
		run.flags = COSY_RUN_RESUME;
	} while (run.outcome.status == -EINTR);
	cosy_close(&c);
	if ((int64_t)run.regs[IN] < 0)
		return failed("open", argv[1], (int64_t)run.regs[IN]);
	if ((int64_t)run.regs[OUT] < 0)
		return failed("create", argv[2], (int64_t)run.regs[OUT]);
	if (run.outcome.status || (int64_t)run.regs[COPIED] < 0)
		return failed("copy to", argv[2],
			      run.outcome.status ? run.outcome.status : (int64_t)run.regs[COPIED]);
	return 0;
}
