// SPDX-License-Identifier: MIT
/*
 * --learn: the program ran in tracing mode; what it left behind is mined in the
 * background, and the next run finds the profile in the store.
 */
#include "launcher.h"

#include <fcntl.h>
#include <libgen.h>
#include <linux/ioprio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A fresh folder for the raw trace; NULL, or why there is none. */
const char *learn_prepare(const struct places *places, char dir[PATH_MAX])
{
	if (!places->cache[0] || strchr(places->cache, ';'))
		return "the cache folder cannot be used";
	if (print_path(dir, "%s/learn", places->cache))
		mkdir(dir, 0700);
	if (!print_path(dir, "%s/learn/XXXXXX", places->cache) || !mkdtemp(dir))
		return "the cache folder cannot be written";
	return NULL;
}

/* The folder that holds the Python packages: beside or above the library. */
static bool find_packages(const char *library, char path[PATH_MAX])
{
	char copy[PATH_MAX], probe[PATH_MAX], *dir = copy;

	strcpy(copy, library);
	for (int up = 0; up < 4; up++) {
		dir = dirname(dir);
		if (print_path(probe, "%s/synth/learn.py", dir) && !access(probe, R_OK))
			return print_path(path, "%s", dir);
	}
	return false;
}

static void __attribute__((noreturn)) be_learner(const char *packages, const char *dir)
{
	char self[PATH_MAX], python[PATH_MAX], path[2 * PATH_MAX], log[PATH_MAX];
	const char *old = getenv("PYTHONPATH");
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	int fd;

	setsid();
	setpriority(PRIO_PROCESS, 0, 19);
	syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_PRIO_VALUE(IOPRIO_CLASS_IDLE, 0));
	// Nobody may wait for us: hold no descriptor of the program's.
	fd = open("/dev/null", O_RDWR);
	dup2(fd, 0);
	dup2(fd, 1);
	if (print_path(log, "%s/../learn.log", dir)) {
		int to = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0600);

		fd = to >= 0 ? to : fd;
	}
	dup2(fd, 2);
	syscall(SYS_close_range, 3, ~0u, 0);

	snprintf(path, sizeof(path), "%s%s%s", packages, old && *old ? ":" : "", old ? old : "");
	setenv("PYTHONPATH", path, 1);
	self[n > 0 ? n : 0] = 0;
	if (print_path(python, "%s/python3", dirname(self)))
		execl(python, "python3", "-m", "synth.learn", dir, (char *)NULL);
	execlp("python3", "python3", "-m", "synth.learn", dir, (char *)NULL);
	_exit(EXIT_NOT_FOUND);
}

/* Leaves a process of its own behind; NULL, or why not. */
const char *learn_start(const struct places *places, const char *dir)
{
	char packages[PATH_MAX];

	if (!find_packages(places->library, packages))
		return "Cosy's Python packages are not beside its library";
	// Not our child and not our parent's: init takes it over.
	if (!fork()) {
		if (!fork())
			be_learner(packages, dir);
		_exit(0);
	}
	return NULL;
}
