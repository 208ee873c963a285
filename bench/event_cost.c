// SPDX-License-Identifier: MIT
/*
 * What one call costs, in a tight loop. `event_cost CALL N`: ns of CPU time per call, the best of ten
 * rounds. `event_cost CALL N once`: one round, nothing printed. `event_cost steps PROGRAM ARGUMENT...`:
 * the instructions of user space that a program takes from its exec on, told by single steps; the environment
 * variables STEPS_PRELOAD and STEPS_SHIM become the program's LD_PRELOAD and COSY_SHIM.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS 10

static double cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static void loop(const char *call, long n)
{
	int zero = open("/dev/zero", O_RDONLY);
	struct stat st;
	char byte;

	for (long i = 0; i < n; i++) {
		if (!strcmp(call, "getppid"))
			getppid();
		else if (!strcmp(call, "read"))
			(void)!read(zero, &byte, 1);
		else
			fstatat(AT_FDCWD, "/usr/share/doc", &st, 0);
	}
	close(zero);
}

static long steps(char **argv)
{
	pid_t child = fork();
	long n = 0;
	int status;

	if (!child) {
		if (getenv("STEPS_PRELOAD")) {
			setenv("LD_PRELOAD", getenv("STEPS_PRELOAD"), 1);
			setenv("COSY_SHIM", getenv("STEPS_SHIM"), 1);
		}
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		execv(argv[0], argv);
		_exit(1);
	}
	while (waitpid(child, &status, 0) == child && WIFSTOPPED(status)) {
		ptrace(PTRACE_SINGLESTEP, child, 0, 0);
		n++;
	}
	return n;
}

int main(int argc, char **argv)
{
	double best = 1e18;

	if (argc < 3)
		return 2;
	if (!strcmp(argv[1], "steps")) {
		printf("%ld\n", steps(argv + 2));
		return 0;
	}
	for (int i = 0; i < (argc > 3 ? 1 : ROUNDS); i++) {
		double begin = cpu_ns(), took;

		loop(argv[1], atol(argv[2]));
		took = (cpu_ns() - begin) / (double)atol(argv[2]);
		best = took < best ? took : best;
	}
	if (argc == 3)
		printf("%.1f\n", best);
	return 0;
}
