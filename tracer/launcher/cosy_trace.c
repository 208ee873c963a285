// SPDX-License-Identifier: MIT
/*
 * Starts Python with Ctrl-C held back: until its first line has run, Python would answer with a
 * traceback. tracer/start.py lets it go.
 */
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define OPTIONS 4 // in front of the user's words: python3 -P -c CODE
#define EXIT_FAILED 1

// Whether Ctrl-C was not held back before.
static bool hold(void)
{
	sigset_t interrupt, before;

	sigemptyset(&interrupt);
	sigaddset(&interrupt, SIGINT);
	sigprocmask(SIG_BLOCK, &interrupt, &before);
	return !sigismember(&before, SIGINT);
}

// Returns where there is no such Python. By its name it finds its virtual environment.
static void run(char *python, char **words)
{
	words[0] = python;
	execvp(python, words);
}

int main(int argc, char **argv)
{
	static char held[] = "from tracer.start import main; main(True)";
	static char plain[] = "from tracer.start import main; main()";
	static char name[] = "python3", built_by[] = COSY_PYTHON, safe[] = "-P", code[] = "-c";
	char *words[argc + OPTIONS];
	char self[PATH_MAX], beside[PATH_MAX + sizeof(name)];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	words[1] = safe;
	words[2] = code;
	words[3] = hold() ? held : plain;
	memcpy(words + OPTIONS, argv + 1, (size_t)argc * sizeof(*argv));
	if (n > 0) {
		self[n] = 0;
		snprintf(beside, sizeof(beside), "%s/%s", dirname(self), name);
		run(beside, words);
	}
	run(built_by, words);
	run(name, words);
	dprintf(STDERR_FILENO, "cosy-trace: cannot run: python3: %s: install it\n",
		strerror(errno));
	return EXIT_FAILED;
}
