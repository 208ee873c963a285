// SPDX-License-Identifier: MIT
#include "watch.h"

#include <asm/unistd_64.h>
#include <fcntl.h>
#include <linux/prctl.h>
#include <linux/ptrace.h>
#include <linux/seccomp.h>
#include <linux/time.h>
#include <sys/stat.h>

#include "shim.h"

/*
 * Looking into /proc makes the kernel build its folder of a new process: 25 us for each exec. So
 * it is done only if this process, or the one that it came from by fork, has called ptrace; or if
 * any of the user's has attached itself to another lately, as the date of a file in the cache folder says.
 */
#define MARK "/tracers"
#define LATELY_S 86400u

u32 filters AT_START;
static bool called_ptrace;

u32 task_watched(void)
{
	char text[TASK_STATUS_PIECE];
	struct task_status status;
	int fd = (int)sys(__NR_openat, AT_FDCWD, "/proc/thread-self/status", O_RDONLY | O_CLOEXEC);
	long n;

	task_status_init(&status);
	if (fd < 0)
		return status.watched;
	do {
		n = sys(__NR_read, fd, text, sizeof(text));
		if (n > 0)
			task_status_take(&status, text, (size_t)n);
	} while (n > 0 && status.watched);
	sys(__NR_close, fd);
	return status.watched;
}

static void mark_path(struct text *path)
{
	text_add(path, cosy_config.cache);
	text_add(path, MARK);
}

static size_t mark_size(void)
{
	return strlen(cosy_config.cache) + sizeof(MARK);
}

static bool somebody_traces(void)
{
	struct text path;
	struct stat st;

	if (called_ptrace || !cosy_config.cache)
		return true;
	path = (struct text){ .at = __builtin_alloca(mark_size()), .size = mark_size() };
	mark_path(&path);
	return !sys(__NR_newfstatat, AT_FDCWD, path.at, &st, 0) &&
	       now_ns(CLOCK_REALTIME_COARSE) / 1000000000 - (u64)st.st_mtime < LATELY_S;
}

bool task_traced(void)
{
	return somebody_traces() && task_watched() & TASK_TRACED;
}

void note_ptrace(const struct regs *r)
{
	struct text path;
	int fd;

	called_ptrace = true;
	if ((r->a[0] != PTRACE_ATTACH && r->a[0] != PTRACE_SEIZE) || !cosy_config.cache ||
	    sandboxed())
		return;
	path = (struct text){ .at = __builtin_alloca(mark_size()), .size = mark_size() };
	mark_path(&path);
	fd = (int)sys(__NR_openat, AT_FDCWD, path.at, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW,
		      0600);
	if (fd < 0)
		return;
	sys(__NR_utimensat, fd, 0, 0, 0);
	sys(__NR_close, fd);
}

bool is_sandboxing(const struct regs *r)
{
	if (r->nr == __NR_seccomp)
		return r->a[0] == SECCOMP_SET_MODE_STRICT || r->a[0] == SECCOMP_SET_MODE_FILTER;
	return r->a[0] == PR_SET_SECCOMP || (r->a[0] == PR_SET_TSC && r->a[1] == PR_TSC_SIGSEGV);
}

long follow_sandbox(struct regs *r)
{
	long ret;

	if (!is_sandboxing(r))
		return sys_regs(r);
	// First: from the moment it holds, no thread may go on as before.
	__atomic_fetch_add(&filters, 1, __ATOMIC_RELAXED);
	ret = sys_regs(r);
	if (sys_failed(ret))
		__atomic_fetch_sub(&filters, 1, __ATOMIC_RELAXED);
	return ret;
}
