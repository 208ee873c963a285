// SPDX-License-Identifier: MIT
/* Which executor runs: the module where this process may use it, else eBPF. */
#include "executor.h"

#include <errno.h>

#include "shim.h"

static bool no_module;

u32 executor_used(void)
{
	bool module = cosy_config.executors & COSY_EXECUTOR_MODULE && !no_module;

	return module ? COSY_EXECUTOR_MODULE : COSY_EXECUTOR_BPF;
}

long executor_run(struct run_buffers *to, int dirfd, u32 skip, u64 ns)
{
	long ret = -ENOENT;

	if (cosy_config.executors & COSY_EXECUTOR_MODULE && !no_module) {
		ret = module_run(to, dirfd, skip, ns);
		switch (ret) {
		case -ENOENT: // not loaded
		case -ENXIO:
		case -ENODEV:
		case -EACCES: // not for this user
		case -EPERM:
		case -ENOTTY: // of another version
		case -EINVAL:
			no_module = true;
			break;
		default:
			return ret;
		}
	}
	if (cosy_config.executors & COSY_EXECUTOR_BPF)
		ret = bpf_run(to, dirfd, skip);
	return ret;
}
