// SPDX-License-Identifier: MIT
/*
 * exec_cost RUNS PROGRAM [-- WORD...]...: starts PROGRAM, which should do nothing, so often in each
 * variant, in turn, each run beginning with another one. Of a variant the words with `=` are added to
 * the environment, and the others go in front of PROGRAM. A line for each start: the variant's
 * number, CPU and wall time from vfork to exit in us.
 *
 * vfork and little memory, since a large parent's fork takes longer than what is measured.
 */
#define _GNU_SOURCE
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define VARIANTS 8
#define WORDS 8 // of a variant

struct variant {
	char **env, **argv;
};

static double us(struct timeval t)
{
	return (double)t.tv_sec * 1e6 + (double)t.tv_usec;
}

static double now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static struct variant variant_of(char *program, char **words)
{
	struct variant v;
	int n_env = 0, n_argv = 0;

	while (environ[n_env])
		n_env++;
	v.env = calloc((size_t)n_env + WORDS + 1, sizeof(char *));
	v.argv = calloc(WORDS + 2, sizeof(char *));
	if (!v.env || !v.argv)
		err(1, "no memory");
	memcpy(v.env, environ, (size_t)n_env * sizeof(char *));
	for (int n = 0; *words && strcmp(*words, "--"); words++) {
		if (n++ == WORDS)
			errx(2, "too many words");
		if (strchr(*words, '='))
			v.env[n_env++] = *words;
		else
			v.argv[n_argv++] = *words;
	}
	v.argv[n_argv] = program;
	return v;
}

static void start(const struct variant *v, int number)
{
	double before = now_us();
	struct rusage usage;
	int status;
	pid_t pid = vfork();

	if (!pid) {
		execve(v->argv[0], v->argv, v->env);
		_exit(127);
	}
	if (pid < 0 || wait4(pid, &status, 0, &usage) < 0)
		err(1, "cannot start %s", v->argv[0]);
	if (status)
		errx(1, "%s failed: wait status %d", v->argv[0], status);
	printf("%d %.0f %.1f\n", number, us(usage.ru_utime) + us(usage.ru_stime),
	       now_us() - before);
}

int main(int argc, char **argv)
{
	struct variant variants[VARIANTS];
	int n = 0;

	if (argc < 4)
		errx(2, "usage: exec_cost RUNS PROGRAM -- [WORD...] [-- [WORD...]]...");
	for (char **word = argv + 3; *word; word++)
		if (!strcmp(*word, "--") && n < VARIANTS)
			variants[n++] = variant_of(argv[2], word + 1);
	for (int run = 0; run < atoi(argv[1]); run++)
		for (int i = 0; i < n; i++)
			start(&variants[(i + run) % n], (i + run) % n);
	return 0;
}
