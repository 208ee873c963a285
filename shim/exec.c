// SPDX-License-Identifier: MIT
/*
 * The execution mode: what each call means for results, by its number. The
 * class in the system call table decides; a few calls say more by their
 * arguments than their class does.
 */
#include <asm/unistd_64.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <sys/mman.h>

#include "compound.h"
#include "dirs.h"
#include "fence.h"
#include "leaf.h"
#include "mem.h"
#include "reference.h"
#include "stats.h"
#include "syscall_table.h"

enum action {
	ACTION_PASS, // straight to the kernel
	ACTION_ATTR, // compounds may answer it
	ACTION_OPEN,
	ACTION_CREATE, // creat: always a mutation
	ACTION_GETDENTS,
	ACTION_READ,
	ACTION_WRITE,
	ACTION_CLOSE,
	ACTION_DUP,
	ACTION_FCNTL = COSY_ACTION_FCNTL,
	ACTION_IOCTL,
	ACTION_MMAP,
	ACTION_MEMORY, // the address space changes
	ACTION_MOVE, // chdir and its kin
	ACTION_SYNC,
	ACTION_FUTEX,
	ACTION_MUTATE,
	ACTION_BOTH, // mutates, and brings news
	ACTION_LEAVE, // nothing that the shim could follow
	ACTION_PRCTL,
	ACTION_SIGACTION,
	ACTION_EXEC,
	ACTION_CLONE, // cosy_hook_before
	ACTION_LOOK, // to the kernel; the reference executor wants to see it
};

// Calls whose class alone does not say enough; the rest follow their class.
static const u8 special[COSY_NR_MAX] = {
	[__NR_open] = ACTION_OPEN,
	[__NR_openat] = ACTION_OPEN,
	[__NR_openat2] = ACTION_BOTH,
	[__NR_open_by_handle_at] = ACTION_BOTH,
	[__NR_creat] = ACTION_CREATE,
	[__NR_getdents64] = ACTION_GETDENTS,
	[__NR_getdents] = ACTION_GETDENTS,
	[__NR_close] = ACTION_CLOSE,
	[__NR_close_range] = ACTION_CLOSE,
	[__NR_dup] = ACTION_DUP,
	[__NR_dup2] = ACTION_DUP,
	[__NR_dup3] = ACTION_DUP,
	[__NR_fcntl] = ACTION_FCNTL,
	[__NR_ioctl] = ACTION_IOCTL,
	[__NR_mmap] = ACTION_MMAP,
	[__NR_munmap] = ACTION_MEMORY,
	[__NR_mremap] = ACTION_MEMORY,
	[__NR_mprotect] = ACTION_MEMORY,
	[__NR_pkey_mprotect] = ACTION_MEMORY,
	[__NR_brk] = ACTION_MEMORY,
	[__NR_shmdt] = ACTION_MEMORY,
	[__NR_madvise] = ACTION_MEMORY,
	[__NR_chdir] = ACTION_MOVE,
	[__NR_fchdir] = ACTION_MOVE,
	[__NR_chroot] = ACTION_MOVE,
	[__NR_pivot_root] = ACTION_MOVE,
	[__NR_setns] = ACTION_MOVE,
	[__NR_futex] = ACTION_FUTEX,
	[__NR_splice] = ACTION_BOTH,
	[__NR_sendfile] = ACTION_BOTH,
	[__NR_copy_file_range] = ACTION_BOTH,
	[__NR_io_setup] = ACTION_LEAVE,
	[__NR_io_uring_setup] = ACTION_LEAVE,
	[__NR_unshare] = ACTION_LEAVE,
	[__NR_seccomp] = ACTION_LEAVE,
	[__NR_prctl] = ACTION_PRCTL,
	[__NR_rt_sigaction] = ACTION_SIGACTION,
	[__NR_execve] = ACTION_EXEC,
	[__NR_execveat] = ACTION_EXEC,
	[__NR_clone] = ACTION_CLONE,
	[__NR_clone3] = ACTION_CLONE,
	[__NR_fork] = ACTION_SYNC,
	[__NR_vfork] = ACTION_CLONE,
	// No news, whatever the class: the process ends, or its parent is elsewhere.
	[__NR_exit] = ACTION_PASS,
	[__NR_exit_group] = ACTION_PASS,
	[__NR_rt_sigreturn] = ACTION_PASS,
};

static bool is_special(u32 nr)
{
	return special[nr] || nr == __NR_exit || nr == __NR_exit_group || nr == __NR_rt_sigreturn;
}

// The most frequent calls of all are watched only while results can exist.
static const struct {
	u16 nr;
	u8 action;
} when_armed[] = {
	{ __NR_read, ACTION_READ },	{ __NR_readv, ACTION_READ },
	{ __NR_pread64, ACTION_READ },	{ __NR_preadv, ACTION_READ },
	{ __NR_preadv2, ACTION_READ },	{ __NR_write, ACTION_WRITE },
	{ __NR_writev, ACTION_WRITE },	{ __NR_pwrite64, ACTION_WRITE },
	{ __NR_pwritev, ACTION_WRITE }, { __NR_pwritev2, ACTION_WRITE },
};

static bool threads; // there were some, or a child of vfork

static bool is_when_armed(u32 nr)
{
	for (u32 i = 0; i < ARRAY_SIZE(when_armed); i++)
		if (when_armed[i].nr == nr)
			return true;
	return false;
}

// Single-threaded, no such call is under way now; with threads this came first.
static void watch_reads(void)
{
	for (u32 i = 0; i < ARRAY_SIZE(when_armed); i++)
		cosy_actions[when_armed[i].nr] = when_armed[i].action;
}

// A profile of AppArmor may refuse what the executor, which cannot see it, would answer.
static bool is_confined(void)
{
	char label[16] = "";
	int fd = (int)sys(__NR_openat, AT_FDCWD, "/proc/self/attr/apparmor/current",
			  O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return false;
	sys(__NR_read, fd, label, sizeof(label) - 1);
	sys(__NR_close, fd);
	return !str_starts(label, "unconfined");
}

bool exec_arm(void)
{
	if (armed)
		return true;
	if (is_confined()) {
		exec_disarm(COSY_NATIVE_WATCHED);
		return false;
	}
	armed = true;
	watch_reads();
	return true;
}

// Calls that are of no interest to the other executors.
static u8 pass_action(u64 nr)
{
	return reference_wants(nr) ? ACTION_LOOK : ACTION_PASS;
}

static void watch_attributes(bool watch)
{
	for (u32 nr = 0; nr < COSY_NR_MAX; nr++)
		if (compounds_want(nr))
			cosy_actions[nr] = watch ? ACTION_ATTR : pass_action(nr);
}

// Nothing is known of any descriptor while nobody looks at what is opened and closed.
static void watch_descriptors(bool watch)
{
	static const u16 calls[] = { __NR_open, __NR_openat, __NR_close, __NR_close_range,
				     __NR_dup,	__NR_dup2,   __NR_dup3 };

	if (!watch)
		fd_forget(0, ~0ul);
	for (u32 i = 0; i < ARRAY_SIZE(calls); i++)
		cosy_actions[calls[i]] = watch ? special[calls[i]] : pass_action(calls[i]);
}

void exec_rest(void)
{
	epoch_end(FENCE_PROCESS);
	armed = false;
	watch_attributes(false);
	// Another thread's call that nobody saw could end when we look again.
	if (!threads && !reference_wants(__NR_openat))
		watch_descriptors(false);
	// With threads, one may be reading now and come back when there are results again.
	for (u32 i = 0; i < ARRAY_SIZE(when_armed) && !threads; i++)
		cosy_actions[when_armed[i].nr] = pass_action(when_armed[i].nr);
}

void exec_wake(void)
{
	watch_descriptors(true);
	watch_attributes(true);
}

void exec_disarm(int native_reason)
{
	stats_native((enum cosy_native_reason)native_reason);
	pass_start();
}

// --- descriptors -----------------------------------------------------------

static long open_call(struct regs *r)
{
	bool at = r->nr == __NR_openat;
	u64 flags = r->a[at ? 2 : 1], epoch = epoch_now(), tsc = rdtsc(), dev, ino;
	long ret;

	if (flags & (O_CREAT | O_TRUNC) || (flags & O_TMPFILE) == O_TMPFILE)
		return mutate(r);
	ret = sys_regs(r);
	if (ret < 0)
		return ret;
	fd_forget((u64)ret, (u64)ret);
	if (flags & O_PATH)
		return ret;
	if (armed || flags & O_DIRECTORY)
		compound_opened(at ? (int)r->a[0] : AT_FDCWD, (const char *)r->a[at], (int)ret,
				flags & O_DIRECTORY, epoch, tsc);
	if (armed && !(flags & O_DIRECTORY) && results_alive() &&
	    fd_kind((u64)ret, &dev, &ino) == FD_NEWS)
		epoch_end(FENCE_OPEN_FIFO);
	return ret;
}

static long close_call(struct regs *r)
{
	bool range = r->nr == __NR_close_range;

	if (range && r->a[2] & 2 /* CLOSE_RANGE_UNSHARE */)
		exec_disarm(COSY_NATIVE_SHARING);
	// First: afterwards the number may be another thread's new file.
	if (fence_on(FENCE_CLOSE_FD))
		fd_forget((u32)r->a[0], (u32)r->a[range]);
	return sys_regs(r);
}

static void duplicated(u64 from, long to)
{
	if (!ground_ours() || !ground_trylock())
		return;
	dir_duplicated(from, (u64)to);
	ground_unlock();
}

static long dup_call(struct regs *r)
{
	long ret;

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
	long ret = sys_regs(r);

	touch(TOUCH_DIR);
	if (ret > 0 && r->nr == __NR_getdents64)
		compound_scanned((u32)r->a[0], (const void *)r->a[1], (u64)ret, r->a[2]);
	return ret;
}

static long read_call(struct regs *r)
{
	long ret = sys_regs(r);
	enum fd_kind kind;
	u64 dev, ino;

	if (!armed || !results_alive())
		return ret;
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
		mem_forget();
	if (shared && fence_on(FENCE_MMAP_WRITE)) {
		flags = sys(__NR_fcntl, r->a[4], F_GETFL);
		if (flags >= 0 && (flags & O_ACCMODE) != O_RDONLY &&
		    fd_kind((u32)r->a[4], &dev, &ino) == FD_FILE && !mapped_add(dev, ino))
			exec_disarm(COSY_NATIVE_SHARED_MAPS);
	}
	ret = follow_mmap(r);
	if (r->a[3] & MAP_FIXED)
		mem_forget();
	if (!(r->a[3] & MAP_ANONYMOUS))
		touch(TOUCH_FILE);
	return ret;
}

static long memory_call(struct regs *r)
{
	long ret;

	mem_forget();
	ret = sys_regs(r);
	mem_forget();
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
	case 22: // PR_SET_SECCOMP
	case 26: // PR_SET_TSC: reading it may kill
		exec_disarm(COSY_NATIVE_SANDBOX);
		return sys_regs(r);
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

	if (r->nr == __NR_seccomp)
		why = COSY_NATIVE_SANDBOX;
	else if (r->nr == __NR_unshare)
		why = COSY_NATIVE_SHARING;
	exec_disarm(why);
	return sys_regs(r);
}

static long by_action(struct regs *r)
{
	switch ((enum action)(r->nr < COSY_ACTIONS ? cosy_actions[r->nr] : ACTION_BOTH)) {
	case ACTION_ATTR:
		return compound_call(r);
	case ACTION_OPEN:
		return open_call(r);
	case ACTION_GETDENTS:
		return getdents_call(r);
	case ACTION_READ:
		return read_call(r);
	case ACTION_WRITE:
		return write_call(r);
	case ACTION_CLOSE:
		return close_call(r);
	case ACTION_DUP:
		return dup_call(r);
	case ACTION_FCNTL:
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
	case ACTION_CREATE:
	case ACTION_MUTATE:
		return mutate(r);
	case ACTION_BOTH:
		return both(r, FENCE_PROCESS);
	case ACTION_LEAVE:
		return leave_call(r);
	case ACTION_PRCTL:
		return prctl_call(r);
	case ACTION_SIGACTION:
		return signal_action(r);
	case ACTION_EXEC:
		return follow_exec(r);
	case ACTION_PASS:
	case ACTION_LOOK:
	case ACTION_CLONE:
		break;
	}
	return sys_regs(r);
}

static long exec_hook(struct regs *r)
{
	return unlikely(reference_wants(r->nr)) ? reference_call(r, by_action) : by_action(r);
}

/*
 * A thread shares memory and descriptors, a child of fork neither, a child of
 * vfork our memory for a while. Anything in between cannot be followed.
 */
static void exec_before(struct regs *r)
{
	u64 flags = r->a[0];

	if (r->nr == __NR_clone3)
		flags = mem_readable((void *)r->a[0], 8) ? *(const u64 *)r->a[0] : 0;
	if (r->nr == __NR_vfork)
		flags = CLONE_VM | CLONE_VFORK;
	epoch_end(FENCE_PROCESS);
	if (flags & CLONE_VFORK)
		ground_lend();
	else if (!(flags & CLONE_VM) != !(flags & CLONE_FILES) ||
		 !(flags & CLONE_VM) != !(flags & CLONE_FS))
		exec_disarm(COSY_NATIVE_SHARING);
	if (flags & CLONE_VM && cosy_hook == exec_hook) {
		threads = true;
		watch_descriptors(true);
		if (!(flags & CLONE_VFORK))
			reference_stop();
		watch_reads();
	}
}

static u8 action_of_class(u8 class)
{
	switch (class) {
	case COSY_CLASS_PURE:
	case COSY_CLASS_POSITIONAL:
		return ACTION_PASS;
	case COSY_CLASS_MUTATING:
		return ACTION_MUTATE;
	case COSY_CLASS_SYNC:
		return ACTION_SYNC;
	}
	return ACTION_BOTH; // process, and what nobody knows
}

void exec_start(void)
{
	if (!compounds_start() || !results_start() || !fence_start())
		return;
	for (u32 nr = 0; nr < COSY_NR_MAX; nr++) {
		if (compounds_want(nr))
			cosy_actions[nr] = ACTION_ATTR;
		else if (is_special(nr))
			cosy_actions[nr] = special[nr];
		else if (is_when_armed(nr))
			cosy_actions[nr] = pass_action(nr);
		else
			cosy_actions[nr] = action_of_class(cosy_syscalls[nr].cls);
		if (cosy_actions[nr] == ACTION_PASS)
			cosy_actions[nr] = pass_action(nr);
	}
	leaf_start();
	_Static_assert(F_GETFD == 1 && F_SETFL == 4, "as entry.S has it");
	cosy_hook_before = exec_before;
	cosy_hook = exec_hook;
}
