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
#include "file_batch.h"

#define NOT_RUN 1
#define FILES_NS 20000000 // of reading files ahead

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

// A buffer that the module shares, `bytes` long.
static long map_buffer(int fd, u32 bytes)
{
	struct cosy_setup setup = { .abi = COSY_MODULE_ABI, .buffer_bytes = bytes };
	long ret = sys(__NR_ioctl, fd, COSY_IOC_SETUP, &setup);

	return ret < 0 ? ret : sys(__NR_mmap, 0, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
}

/*
 * Of this process: a child of fork has another. The descriptor is there for the moment only.
 * `buffer`: with one of so many bytes.
 */
static long open_door(void **door, void **buffer, u32 bytes)
{
	int fd = (int)sys(__NR_openat, AT_FDCWD, COSY_DEVICE, O_RDWR | O_CLOEXEC);
	long ret, at = 0;

	if (fd < 0)
		return fd;
	ret = map_door(fd);
	if (!sys_failed(ret) && buffer) {
		at = map_buffer(fd, bytes);
		if (sys_failed(at)) {
			sys(__NR_munmap, ret, PAGE_SIZE);
			ret = at;
		}
	}
	sys(__NR_close, fd);
	if (sys_failed(ret))
		return ret;
	*door = (void *)ret;
	if (buffer)
		*buffer = (void *)at;
	return 0;
}

// -ENXIO: where the door was there is something else, by the program's doing.
static long knock(void *door)
{
	long ret;

	call.outcome.status = NOT_RUN;
	ret = sys(__NR_msync, door, PAGE_SIZE, MS_SYNC);
	if (ret == -ENOMEM || (!ret && call.outcome.status == NOT_RUN))
		return -ENXIO;
	return ret;
}

static long ask(void)
{
	long ret = ground->door ? 0 : open_door(&ground->door, NULL, 0);

	return ret < 0 ? ret : knock(ground->door);
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

u8 *module_files_buffer(u32 bytes, bool *fresh)
{
	*fresh = !ground->files;
#ifdef COSY_FENCE_TESTS
	if (*fresh && sys(__NR_access, COSY_DEVICE, 0)) {
		ground->files = plain_files_buffer(bytes);
		return ground->files;
	}
#endif
	if (*fresh && open_door(&ground->files_door, &ground->files, bytes) < 0)
		return NULL;
	return ground->files;
}

static long ask_files(void)
{
	long ret = knock(ground->files_door);

	if (ret < 0)
		return ret;
	return call.result < 0 ? (long)call.result : (long)call.used;
}

long module_names(int dirfd, u64 position, u32 out, u32 bytes)
{
#ifdef COSY_FENCE_TESTS
	if (!ground->files_door)
		return plain_names(dirfd, position, (u8 *)ground->files + out, bytes);
#endif
	call = (struct cosy_fused){
		.op = COSY_OP_ENTRIES,
		.flags = COSY_FUSED_PURE,
		.args = { (u32)dirfd, COSY_WANT_NAMES, out, bytes, position },
		.limits = { .deadline_ns = FILES_NS },
	};
	return ask_files();
}

long module_files(int dirfd, u32 names, u32 n, u32 out, u32 bytes)
{
#ifdef COSY_FENCE_TESTS
	if (!ground->files_door)
		return plain_files(dirfd, (const char *)ground->files + names, n,
				   (u8 *)ground->files + out, bytes);
#endif
	call = (struct cosy_fused){
		.op = COSY_OP_FILES,
		.flags = COSY_FUSED_PURE,
		.args = { (u32)dirfd, COSY_WANT_DATA | COSY_WANT_AHEAD | COSY_WANT_NOFOLLOW, out,
			  bytes, names, n, 0, FILE_MOST },
		.limits = { .deadline_ns = FILES_NS },
	};
	return ask_files();
}
