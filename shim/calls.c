// SPDX-License-Identifier: MIT
/* What a call means for results: what is answered, what is learnt, what ends. */
#include "calls.h"

#include <asm/unistd_64.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>

#include "ahead.h"
#include "compound.h"
#include "dirs.h"
#include "fence.h"
#include "files.h"
#include "leaf.h"
#include "mem.h"
#include "opened.h"
#include "runs.h"
#include "watch.h"

// --- descriptors -----------------------------------------------------------

// A file that gets shorter takes pages of its mappings away.
static long cut_call(struct regs *r)
{
	long ret = mutate(r);

	mem_forget_all();
	return ret;
}

/*
 * A directory is opened in a way that tells whether its path is one to be known by. What is wrong
 * with a path is the same either way; all else the program's own call says.
 */
static long open_it(struct regs *r, u64 flags, struct opening *o)
{
	long ret;

	if (o->directory && o->dirfd == AT_FDCWD && !(flags & O_PATH)) {
		ret = open_plain(AT_FDCWD, o->path, flags);
		o->plain = ret >= 0;
		if (o->plain || ret == -ENOENT || ret == -ENOTDIR || ret == -EACCES)
			return ret;
	}
	return sys_regs(r);
}

static long open_call(struct regs *r)
{
	bool at = r->nr == __NR_openat;
	u64 flags = r->a[at ? 2 : 1];
	struct opening o = {
		.dirfd = at ? (int)r->a[0] : AT_FDCWD,
		.path = (const char *)r->a[at],
		.directory = flags & O_DIRECTORY,
		.epoch = epoch_now(),
		.tsc = rdtsc(),
	};
	long ret;

	if (flags & O_TRUNC)
		return cut_call(r);
	if (flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE)
		return mutate(r);
	ret = open_it(r, flags, &o);
	if (ret < 0)
		return ret;
	fd_forget((u64)ret, (u64)ret);
	if (flags & O_PATH)
		return ret;
	o.fd = (int)ret;
	opened_files += !o.directory;
	if (armed || o.directory)
		compound_opened(&o);
	if (armed && !o.directory && results_alive())
		opened_later((u32)ret);
	if (!o.directory)
		files_opened(&(struct file_open){ o.dirfd, o.path, flags, o.fd });
	return ret;
}

static long close_call(struct regs *r)
{
	bool range = r->nr == __NR_close_range;

	if (range && r->a[2] & 2 /* CLOSE_RANGE_UNSHARE */)
		exec_disarm(COSY_NATIVE_SHARING);
	// First: afterwards the number may be another thread's new file.
	opened_closing((u32)r->a[0], (u32)r->a[range]);
	if (fence_on(FENCE_CLOSE_FD))
		fd_forget((u32)r->a[0], (u32)r->a[range]);
	return sys_regs(r);
}

static void duplicated(u64 from, long to)
{
	if (!ground_ours() || !ground_trylock()) {
		dir_lent(from);
		return;
	}
	dir_duplicated(from, (u64)to);
	ground_unlock();
}

static long dup_call(struct regs *r)
{
	long ret;

	if (r->nr != __NR_dup)
		opened_closing((u32)r->a[1], (u32)r->a[1]);
	if (r->nr != __NR_dup && (u32)r->a[0] != (u32)r->a[1] && fence_on(FENCE_DUP_FD))
		fd_forget((u32)r->a[1], (u32)r->a[1]);
	ret = sys_regs(r);
	if (ret >= 0 && (u32)ret != (u32)r->a[0] && fence_on(FENCE_DUP_FD))
		duplicated((u32)r->a[0], ret);
	return ret;
}

static long both(struct regs *r, enum cosy_fence fence)
{
	long ret = mutate(r);

	epoch_end(fence);
	return ret;
}

static long sync_call(struct regs *r, enum cosy_fence fence)
{
	long ret = sys_regs(r);

	epoch_end(fence);
	return ret;
}

static long fcntl_call(struct regs *r)
{
	long ret;

	switch ((int)r->a[1]) {
	case F_GETFD:
	case F_SETFD:
	case F_GETFL:
	case F_SETFL:
		return sys_regs(r);
	case F_DUPFD:
	case F_DUPFD_CLOEXEC:
		ret = sys_regs(r);
		if (ret >= 0) {
			fd_forget((u64)ret, (u64)ret);
			duplicated((u32)r->a[0], ret);
		}
		return ret;
	}
	return both(r, FENCE_LOCK);
}

static long ioctl_call(struct regs *r)
{
	switch ((u32)r->a[1]) {
	case 0x5401: // TCGETS
	case 0x5413: // TIOCGWINSZ
	case 0x5450: // FIONCLEX
	case 0x5451: // FIOCLEX
		return sys_regs(r);
	}
	return both(r, FENCE_POLL);
}

// --- data ------------------------------------------------------------------

static long getdents_call(struct regs *r)
{
	long ret;

	if (r->nr == __NR_getdents64 && dir_ended((u32)r->a[0]))
		return 0;
	if (unlikely(ahead_on) && ahead_entries(r, &ret)) {
		if (ret)
			compound_scanned((u32)r->a[0], (const void *)r->a[1], (u64)ret, r->a[2]);
		return ret;
	}
	ret = sys_regs(r);
	touch(TOUCH_DIR);
	if (ret > 0 && r->nr == __NR_getdents64)
		compound_scanned((u32)r->a[0], (const void *)r->a[1], (u64)ret, r->a[2]);
	return ret;
}

static long seek_call(struct regs *r)
{
	dir_moves((u32)r->a[0]);
	return sys_regs(r);
}

static long read_call(struct regs *r)
{
	long ret = sys_regs(r);
	enum fd_kind kind;
	u64 dev, ino;

	if (!armed || !results_alive())
		return ret;
	watched_transfers++;
	kind = fd_kind((u32)r->a[0], &dev, &ino);
	if (kind == FD_FILE)
		read_add(dev, ino);
	if (cosy_config.strict || kind == FD_NEWS)
		epoch_end(FENCE_READ_SYNC);
	return ret;
}

static void note_written(u64 fd)
{
	u64 dev, ino;

	if (armed && fence_on(FENCE_WRITE_INODE) && results_alive() &&
	    fd_kind(fd, &dev, &ino) == FD_FILE)
		written_add(dev, ino);
}

static long write_call(struct regs *r)
{
	long ret;

	watched_transfers += armed;
	note_written((u32)r->a[0]);
	ret = sys_regs(r);
	note_written((u32)r->a[0]);
	return ret;
}

/*
 * A mapping that can be written changes its file's times without any call.
 * It may outlive the descriptor and grow rights by mprotect, so what counts is
 * how the file was opened.
 */
static long mmap_call(struct regs *r)
{
	bool shared = (r->a[3] & MAP_TYPE) != MAP_PRIVATE && !(r->a[3] & MAP_ANONYMOUS);
	long flags, ret;
	u64 dev, ino;

	if (r->a[3] & MAP_FIXED)
		mem_forget(r->a[0], r->a[1]);
	if (shared && fence_on(FENCE_MMAP_WRITE)) {
		flags = sys(__NR_fcntl, r->a[4], F_GETFL);
		if (flags >= 0 && (flags & O_ACCMODE) != O_RDONLY &&
		    fd_kind((u32)r->a[4], &dev, &ino) == FD_FILE && !mapped_add(dev, ino))
			exec_disarm(COSY_NATIVE_SHARED_MAPS);
	}
	ret = follow_mmap(r);
	if (r->a[3] & MAP_FIXED)
		mem_forget(r->a[0], r->a[1]);
	if (!(r->a[3] & MAP_ANONYMOUS))
		touch(TOUCH_FILE);
	return ret;
}

static void forget_memory(const struct regs *r)
{
	switch (r->nr) {
	case __NR_munmap:
	case __NR_mprotect:
	case __NR_pkey_mprotect:
	case __NR_madvise:
		mem_forget(r->a[0], r->a[1]);
		return;
	}
	mem_forget_all();
}

static long brk_call(struct regs *r)
{
	u32 number = mem_brk_begins(r->a[0]);
	long ret = sys_regs(r);

	mem_brk_ended(number, (u64)ret);
	return ret;
}

static long memory_call(struct regs *r)
{
	long ret;

	if (r->nr == __NR_brk && !exec_shares_descriptors())
		return brk_call(r);
	forget_memory(r);
	ret = sys_regs(r);
	forget_memory(r);
	return ret;
}

// --- everything else -------------------------------------------------------

static enum cosy_fence fence_of(u64 nr)
{
	switch (nr) {
	case __NR_wait4:
	case __NR_waitid:
		return FENCE_WAIT;
	case __NR_poll:
	case __NR_ppoll:
	case __NR_select:
	case __NR_pselect6:
	case __NR_epoll_wait:
	case __NR_epoll_pwait:
	case __NR_epoll_pwait2:
		return FENCE_POLL;
	case __NR_nanosleep:
	case __NR_clock_nanosleep:
	case __NR_sched_yield:
		return FENCE_SLEEP;
	case __NR_flock:
		return FENCE_LOCK;
	case __NR_pause:
	case __NR_rt_sigsuspend:
	case __NR_rt_sigtimedwait:
	case __NR_kill:
	case __NR_tkill:
	case __NR_tgkill:
		return FENCE_SIGNAL;
	}
	return FENCE_RECV;
}

static long futex_call(struct regs *r)
{
	switch (r->a[1] & FUTEX_CMD_MASK) {
	case FUTEX_WAKE:
	case FUTEX_WAKE_OP:
	case FUTEX_UNLOCK_PI:
	case FUTEX_REQUEUE:
	case FUTEX_CMP_REQUEUE:
	case FUTEX_WAKE_BITSET:
		return sys_regs(r);
	}
	return sync_call(r, FENCE_FUTEX);
}

static long prctl_call(struct regs *r)
{
	switch (r->a[0]) {
	case 15: // PR_SET_NAME
	case 16: // PR_GET_NAME
		return sys_regs(r);
	}
	if (is_sandboxing(r)) {
		exec_disarm(COSY_NATIVE_SANDBOX);
		return follow_sandbox(r);
	}
	return both(r, FENCE_PROCESS);
}

static long move_call(struct regs *r)
{
	long ret;

	dirs_moved();
	ret = both(r, FENCE_PROCESS);
	dirs_moved();
	return ret;
}

static long leave_call(struct regs *r)
{
	enum cosy_native_reason why = COSY_NATIVE_IO_URING;

	if (r->nr == __NR_unshare)
		why = COSY_NATIVE_SHARING;
	exec_disarm(why);
	return sys_regs(r);
}

long call_by_action(struct regs *r)
{
	switch ((enum action)(r->nr < COSY_ACTIONS ? cosy_actions[r->nr] : ACTION_BOTH)) {
	case ACTION_ATTR:
		return compound_call(r);
	case ACTION_OPEN:
		return open_call(r);
	case ACTION_GETDENTS:
		return getdents_call(r);
	case ACTION_SEEK:
		return seek_call(r);
	case ACTION_READ:
		return read_call(r);
	case ACTION_WRITE:
		return write_call(r);
	case ACTION_CLOSE:
		return close_call(r);
	case ACTION_DUP:
		return dup_call(r);
	case ACTION_FCNTL:
	case ACTION_FCNTL_ALL:
		return fcntl_call(r);
	case ACTION_IOCTL:
		return ioctl_call(r);
	case ACTION_MMAP:
		return mmap_call(r);
	case ACTION_MEMORY:
		return memory_call(r);
	case ACTION_MOVE:
		return move_call(r);
	case ACTION_SYNC:
		return sync_call(r, fence_of(r->nr));
	case ACTION_FUTEX:
		return futex_call(r);
	case ACTION_CUT:
		return cut_call(r);
	case ACTION_MUTATE:
		return mutate(r);
	case ACTION_PTRACE:
		note_ptrace(r);
		return both(r, FENCE_PROCESS);
	case ACTION_BOTH:
		return both(r, FENCE_PROCESS);
	case ACTION_LEAVE:
		return leave_call(r);
	case ACTION_PRCTL:
		return prctl_call(r);
	case ACTION_SIGACTION:
		return signal_action(r, fence_on(FENCE_SIGNAL) && ground_ours());
	case ACTION_EXEC:
		return follow_exec(r);
	case ACTION_EXIT:
		leaf_exit();
		runs_exit();
		break;
	case ACTION_PASS:
	case ACTION_LOOK:
	case ACTION_CLONE:
		break;
	}
	return sys_regs(r);
}
