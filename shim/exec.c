// SPDX-License-Identifier: MIT
/*
 * The execution mode: which calls are looked at, and when. What each means for
 * results follows from its class in the system call table; a few calls say more
 * by their arguments than their class does (calls.c).
 */
#include "calls.h"

#include <asm/unistd_64.h>
#include <fcntl.h>
#include <linux/sched.h>

#include "ahead.h"
#include "compound.h"
#include "dirs.h"
#include "fence.h"
#include "files.h"
#include "foreign.h"
#include "leaf.h"
#include "mem.h"
#include "reference.h"
#include "stats.h"
#include "syscall_table.h"

// Calls whose class alone does not say enough; the rest follow their class.
static const u8 special[COSY_NR_MAX] = {
	[__NR_open] = ACTION_OPEN,
	[__NR_openat] = ACTION_OPEN,
	[__NR_openat2] = ACTION_BOTH,
	[__NR_open_by_handle_at] = ACTION_BOTH,
	[__NR_creat] = ACTION_CUT,
	[__NR_truncate] = ACTION_CUT,
	[__NR_ftruncate] = ACTION_CUT,
	[__NR_fallocate] = ACTION_CUT,
	[__NR_getdents64] = ACTION_GETDENTS,
	[__NR_getdents] = ACTION_GETDENTS,
	[__NR_lseek] = ACTION_SEEK,
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
	[__NR_seccomp] = ACTION_PRCTL,
	[__NR_prctl] = ACTION_PRCTL,
	[__NR_ptrace] = ACTION_PTRACE,
	[__NR_rt_sigaction] = ACTION_SIGACTION,
	[__NR_execve] = ACTION_EXEC,
	[__NR_execveat] = ACTION_EXEC,
	[__NR_clone] = ACTION_CLONE,
	[__NR_clone3] = ACTION_CLONE,
	[__NR_fork] = ACTION_SYNC,
	[__NR_vfork] = ACTION_CLONE,
	[__NR_exit_group] = ACTION_EXIT,
};

// No news, whatever their class: the thread ends, or its parent is elsewhere.
static const u16 passed[] = { __NR_exit, __NR_rt_sigreturn };

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

static bool threads AT_START; // there were some, or a child of vfork
static bool shared_descriptors AT_START;

// Single-threaded, no such call is under way now; with threads this came first.
static void watch_reads(void)
{
	for (u32 i = 0; i < ARRAY_SIZE(when_armed); i++)
		action_change(when_armed[i].nr, when_armed[i].action);
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
	if (foreign_calls()) {
		exec_disarm(COSY_NATIVE_OWN_CALLS);
		return false;
	}
	armed = true;
	watch_reads();
	return true;
}

bool exec_shares_descriptors(void)
{
	return shared_descriptors;
}

// Calls that are of no interest to the other executors.
static u8 pass_action(u64 nr)
{
	return reference_wants(nr) || files_wants(nr) || ahead_wants(nr) ? ACTION_LOOK :
									   ACTION_PASS;
}

static bool loaded AT_START;

// Before the image says which: those that may ask about a file for the first time.
static bool want_attributes(u32 nr)
{
	return loaded ? compounds_want(nr) :
			nr == __NR_newfstatat || nr == __NR_statx || nr == __NR_stat ||
				nr == __NR_lstat;
}

static void watch_attributes(bool watch)
{
	for (u32 nr = 0; nr < COSY_NR_MAX; nr++)
		if (want_attributes(nr))
			action_change(nr, watch ? ACTION_ATTR : pass_action(nr));
}

// Nothing is known of any descriptor while nobody looks at what is opened and closed.
static void watch_descriptors(bool watch)
{
	static const u16 calls[] = { __NR_open, __NR_openat, __NR_close, __NR_close_range, __NR_dup,
				     __NR_dup2, __NR_dup3,   __NR_fcntl, __NR_lseek };

	if (!watch)
		fd_forget(0, ~0ul);
	for (u32 i = 0; i < ARRAY_SIZE(calls); i++)
		action_change(calls[i], watch ? special[calls[i]] : pass_action(calls[i]));
	if (watch && files_on)
		action_change(__NR_fcntl, ACTION_FCNTL_ALL);
}

/*
 * A program that opens no directory asks nothing that a compound could answer: until it does, only
 * opens are looked at. And one that asks about no file in it has no use for the image and memory for
 * results, which take 30 us. What the reference executor runs may be about files only.
 */
static bool asleep AT_START;

static void fall_asleep(void)
{
	asleep = true;
	watch_descriptors(false);
	action_change(__NR_open, ACTION_OPEN);
	action_change(__NR_openat, ACTION_OPEN);
}

static void leave(void)
{
	ahead_stop();
	pass_start();
	action_change(__NR_rt_sigaction, 1);
}

bool exec_load(void)
{
	// A child of vfork leaves it to its parent.
	if (likely(loaded) || !ground_ours())
		return loaded;
	watch_attributes(false);
	loaded = fence_start() && compounds_start() && results_start();
	if (!loaded)
		leave();
	else if (!asleep)
		watch_attributes(true);
	return loaded;
}

void exec_directory(void)
{
	// With threads it was loaded before; a child of vfork leaves it to its parent.
	if (likely(!asleep) || !ground_ours())
		return;
	asleep = false;
	if (fence_start())
		exec_wake();
	else
		leave();
}

void exec_rest(void)
{
	ahead_stop();
	epoch_end(FENCE_PROCESS);
	watch_attributes(false);
	// They stand on all the rest.
	if (files_on)
		return;
	armed = false;
	// Another thread's call that nobody saw could end when we look again.
	if (!threads && !reference_wants(__NR_openat))
		watch_descriptors(false);
	// With threads, one may be reading now and come back when there are results again.
	for (u32 i = 0; i < ARRAY_SIZE(when_armed) && !threads; i++)
		action_change(when_armed[i].nr, pass_action(when_armed[i].nr));
}

void exec_wake(void)
{
	watch_descriptors(true);
	watch_attributes(true);
}

bool exec_watch_files(void)
{
	if (threads || shared_descriptors || !exec_arm())
		return false;
	asleep = false;
	files_on = true;
	exec_wake();
	for (u32 nr = 0; nr < COSY_NR_MAX; nr++)
		if (cosy_actions[nr] == ACTION_PASS)
			action_change(nr, pass_action(nr));
	return true;
}

bool exec_single(void)
{
	return !threads && !shared_descriptors && ground_ours();
}

void exec_watch_ahead(void)
{
	for (u32 nr = 0; nr < COSY_NR_MAX; nr++)
		if (cosy_actions[nr] == ACTION_PASS || cosy_actions[nr] == ACTION_LOOK)
			action_change(nr, pass_action(nr));
	action_change(__NR_exit, pass_action(__NR_exit));
}

void exec_leave_files(void)
{
	for (u32 nr = 0; nr < COSY_NR_MAX; nr++)
		if (cosy_actions[nr] == ACTION_LOOK)
			action_change(nr, pass_action(nr));
	action_change(__NR_fcntl, ACTION_FCNTL);
	// As before there was anything: a program that only opens files has no use for the rest.
	if (!dirs_known() && !reference_wants(__NR_openat)) {
		exec_rest();
		fall_asleep();
	}
}

void exec_disarm(int native_reason)
{
	stats_native((enum cosy_native_reason)native_reason);
	leave();
}

static long exec_call(struct regs *r)
{
	if (unlikely(reference_wants(r->nr)))
		return reference_call(r, call_by_action);
	// Ahead of the rest: the calls that are answered.
	if (r->nr < COSY_ACTIONS && cosy_actions[r->nr] == ACTION_ATTR)
		return compound_call(r);
	if (unlikely(ahead_on))
		ahead_before(r);
	return call_by_action(r);
}

static long exec_hook(struct regs *r)
{
	return unlikely(files_on) ? files_call(r, exec_call) : exec_call(r);
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
	if (files_on)
		files_before_child(flags & CLONE_VM);
	ahead_stop();
	epoch_end(FENCE_PROCESS);
	// What takes a descriptor for a moment comes before there are threads that could meet it.
	if (!threads)
		leaf_before_fork();
	if (flags & CLONE_VM && !(flags & CLONE_VFORK) && !exec_load() && ground_ours())
		return;
	if (flags & CLONE_VFORK) {
		if (!ground_lend())
			leave();
	} else if (!(flags & CLONE_VM) != !(flags & CLONE_FILES) ||
		   !(flags & CLONE_VM) != !(flags & CLONE_FS)) {
		exec_disarm(COSY_NATIVE_SHARING);
	}
	if (flags & CLONE_FILES)
		shared_descriptors = true;
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
	// Of a process, and what nobody knows: both.
	static const u8 actions[] = {
		[COSY_CLASS_PURE] = ACTION_PASS,       [COSY_CLASS_POSITIONAL] = ACTION_PASS,
		[COSY_CLASS_MUTATING] = ACTION_MUTATE, [COSY_CLASS_SYNC] = ACTION_SYNC,
		[COSY_CLASS_PROCESS] = ACTION_BOTH,    [COSY_CLASS_UNKNOWN] = ACTION_BOTH,
	};

	return actions[class];
}

void exec_start(void)
{
	if (cosy_config.executors & COSY_EXECUTOR_REFERENCE && !exec_load())
		return;
	for (u32 nr = 0; nr < COSY_NR_MAX; nr++)
		cosy_actions[nr] = special[nr] ? special[nr] :
						 action_of_class(cosy_syscalls[nr].cls);
	for (u32 i = 0; i < ARRAY_SIZE(passed); i++)
		cosy_actions[passed[i]] = ACTION_PASS;
	for (u32 i = 0; i < ARRAY_SIZE(when_armed); i++)
		cosy_actions[when_armed[i].nr] = ACTION_PASS;
	for (u32 nr = 0; nr < COSY_NR_MAX; nr++)
		if (cosy_actions[nr] == ACTION_PASS)
			cosy_actions[nr] = pass_action(nr);
	if (reference_wants(__NR_openat))
		watch_attributes(true);
	else
		fall_asleep();
	actions_changed();
	leaf_start();
	_Static_assert(F_GETFD == 1 && F_SETFL == 4, "as entry.S has it");
	cosy_hook_before = exec_before;
	cosy_hook = exec_hook;
}
