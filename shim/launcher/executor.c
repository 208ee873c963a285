// SPDX-License-Identifier: MIT
/*
 * Makes the eBPF executor ready: root loads it once per boot, and then everyone
 * may use it. When all is in place this is two stat calls.
 */
#include "launcher.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cosy_bpf.h"
#include "cosy_module.h"

#define RETRY_S 3600 /* after a failure: a machine without BPF must not pay at each start */

static bool pinned(void)
{
	struct stat st;

	return !stat(COSY_BPF_PIN_LINK, &st) && !stat(COSY_BPF_PIN_BUFFERS, &st);
}

static bool run_loader(const char *loader)
{
	int status;
	pid_t pid = fork();

	if (pid < 0)
		return false;
	if (!pid) {
		int null = open("/dev/null", O_RDWR);

		for (int fd = 0; fd < 3; fd++)
			dup2(null, fd);
		execl(loader, loader, (char *)NULL);
		_exit(EXIT_NOT_FOUND);
	}
	return waitpid(pid, &status, 0) == pid && WIFEXITED(status) && !WEXITSTATUS(status);
}

static bool failed_lately(const char *marker)
{
	struct stat st;

	return *marker && !lstat(marker, &st) && st.st_mtime + RETRY_S > time(NULL);
}

bool executor_module(void)
{
	return !access(COSY_DEVICE, R_OK | W_OK);
}

/* NULL: the executor is ready; else why not, and what would change it. */
const char *executor_prepare(const struct places *places)
{
	char marker[PATH_MAX] = "";
	int fd;

	if (pinned())
		return NULL;
	if (!places->loader[0])
		return "bpf is not built here: install clang and libbpf, build again";
	if (geteuid())
		return "bpf is not loaded: `sudo cosy-bpf-load` loads it until the next boot";
	if (places->cache[0])
		print_path(marker, "%s/bpf-load-failed", places->cache);
	if (failed_lately(marker))
		return "bpf could not be loaded lately: `cosy-bpf-load` says why";
	if (run_loader(places->loader) && pinned()) {
		unlink(marker);
		return NULL;
	}
	fd = *marker ? open(marker, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600) : -1;
	if (fd >= 0) {
		futimens(fd, NULL);
		close(fd);
	}
	return "bpf cannot be loaded: `cosy-bpf-load` says why";
}
