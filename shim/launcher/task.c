// SPDX-License-Identifier: MIT
/* What speaks against the shim whatever the command is: this very task, which becomes it. */
#include "launcher.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "task_status.h"

const char *task_watched(void)
{
	char text[TASK_STATUS_PIECE];
	struct task_status status;
	int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : 1;

	task_status_init(&status);
	while (n > 0 && status.watched) {
		n = read(fd, text, sizeof(text));
		if (n > 0)
			task_status_take(&status, text, (size_t)n);
	}
	if (fd >= 0)
		close(fd);
	return status.watched ? "watched by ptrace or seccomp, or without /proc" : NULL;
}

static bool unlimited(int resource)
{
	struct rlimit limit;

	return !getrlimit(resource, &limit) && limit.rlim_cur == RLIM_INFINITY;
}

const char *task_trouble(void)
{
	if (!unlimited(RLIMIT_AS) || !unlimited(RLIMIT_DATA))
		return "its address space is limited (ulimit -v, -d)";
	if (getuid() != geteuid() || getgid() != getegid())
		return "the effective ids are not the real ones: the loader refuses libraries";
	if (environment_loader_tells())
		return "the loader says what it loads (LD_TRACE_LOADED_OBJECTS, LD_DEBUG, LD_AUDIT)";
	return NULL;
}
