// SPDX-License-Identifier: MIT
#include "watch.h"

#include <asm/unistd_64.h>
#include <fcntl.h>
#include <linux/prctl.h>
#include <linux/seccomp.h>

u32 filters;

u32 task_watched(void)
{
	char text[TASK_STATUS_PIECE];
	struct task_status status;
	int fd = (int)sys(__NR_openat, AT_FDCWD, TASK_STATUS, O_RDONLY | O_CLOEXEC);
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
