// SPDX-License-Identifier: MIT
/*
 * The kernel module as executor (kmod/module/): one msync() per directory, of a door
 * (cosy_module.h). The shim holds no descriptor; a mapping is in nobody's way. What
 * the module writes is what the eBPF executor writes.
 */
#include "executor.h"

#include <asm/unistd_64.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/stat.h>
#include <sys/mman.h>

#include "answer.h"
#include "cosy_module.h"
#include "fence.h"

#define NOT_RUN 1

// The door's page: nothing else of it is looked at.
static _Alignas(PAGE_SIZE) struct cosy_fused call;

static long map_door(int fd)
{
	struct cosy_info info;
	long ret = sys(__NR_ioctl, fd, COSY_IOC_INFO, &info);

	if (ret < 0)
		return ret;
	if (info.abi != COSY_MODULE_ABI)
		return -ENOTTY;
	return sys(__NR_mmap, 0, PAGE_SIZE, PROT_NONE, MAP_SHARED, fd, COSY_DOOR | (u64)&call);
}

// Of this process: a child of fork has another. The descriptor is there for the moment only.
static long open_door(void)
{
	int fd = (int)sys(__NR_openat, AT_FDCWD, COSY_DEVICE, O_RDWR | O_CLOEXEC);
	long ret;

	if (fd < 0)
		return fd;
	ret = map_door(fd);
	sys(__NR_close, fd);
	if (sys_failed(ret))
		return ret;
	ground->door = (void *)ret;
	return 0;
}

// -ENXIO: where the door was there is something else, by the program's doing.
static long knock(void)
{
	long ret;

	call.outcome.status = NOT_RUN;
	ret = sys(__NR_msync, ground->door, PAGE_SIZE, MS_SYNC);
	if (ret == -ENOMEM || (!ret && call.outcome.status == NOT_RUN))
		return -ENXIO;
	return ret;
}

static long ask(void)
{
	long ret = ground->door ? 0 : open_door();

	return ret < 0 ? ret : knock();
}

// What statx says of the mount that the directory is in.
static u32 mount_id(int dirfd)
{
	struct statx st;

	if (sys(__NR_statx, dirfd, "", AT_EMPTY_PATH, STATX_MNT_ID, &st) < 0 ||
	    !(st.stx_mask & STATX_MNT_ID))
		return 0;
	return (u32)st.stx_mnt_id;
}

long module_run(struct run_buffers *to, int dirfd, u32 skip, u64 ns)
{
	u32 mnt_id = to->run.mnt_id;
	long ret;

	_Static_assert(offsetof(struct run_buffers, pages) ==
			       offsetof(struct run_buffers, run) + sizeof(to->run),
		       "the module writes both in one piece");
	call = (struct cosy_fused){
		.op = COSY_OP_SCAN,
		.flags = COSY_FUSED_USER | COSY_FUSED_PURE,
		.args = { (u32)dirfd, asks_xattrs() ? COSY_WANT_HINTS : 0, (u64)&to->run,
			  sizeof(to->run) + sizeof(to->pages), skip },
		.limits = { .deadline_ns = ns },
	};
	ret = ask();
	if (ret == -EPERM) {
		to->run.status = COSY_BPF_WATCHED;
		return 0;
	}
	if (ret < 0)
		return ret;
	if (call.result < 0)
		return (long)call.result;
	if (asks_statx())
		to->run.mnt_id = skip ? mnt_id : mount_id(dirfd);
	return 0;
}
