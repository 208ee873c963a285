/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the caller may do: is it watched, what does its descriptor refer to,
 * may it search a directory. Anything not certain counts as no.
 */
#ifndef COSY_CALLER_H
#define COSY_CALLER_H

#include "kernel_access.h"

struct opened {
	struct dentry *dentry;
	struct vfsmount *mnt;
};

/*
 * Under ptrace, seccomp, audit or user dispatch every system call of the
 * caller means something to somebody. System call tracepoints do not count:
 * they are on for all tasks as soon as one observer anywhere looks.
 */
static __always_inline _Bool is_watched(struct task_struct *task)
{
	__u64 seen = ~(1ULL << bpf_core_enum_value(enum syscall_work_bit,
						   SYSCALL_WORK_BIT_SYSCALL_TRACEPOINT));

	return task->ptrace || (task->thread_info.syscall_work & seen);
}

/* As array_index_nospec(): the index comes from an unprivileged caller. */
static __always_inline __u64 index_nospec(__u64 index, __u64 size)
{
	__s64 mask = index - size;

	barrier_var(mask);
	return index & (__u64)(mask >> 63);
}

/*
 * The directory behind descriptor fd, without taking a reference. Another
 * thread of the caller may close fd meanwhile, and the struct file may then
 * become one of another process within our RCU section (SLAB_TYPESAFE_BY_RCU).
 * So the slot is read again behind the contents, as __fget_files_rcu() does,
 * with preemption off so that nothing fits in between. The dentry and the
 * mount themselves are freed only after an RCU grace period.
 */
static __always_inline _Bool open_directory(struct task_struct *task, __u32 fd,
					    struct opened *opened)
{
	struct fdtable *table;
	struct kiocb *slot;
	struct file *file;
	_Bool found = 0;

	bpf_preempt_disable();
	table = CAST(struct fdtable, task->files->fdt);
	if (fd < table->max_fds) {
		slot = CAST(struct kiocb,
			    (const char *)table->fd +
				    index_nospec(fd, table->max_fds) * sizeof(void *));
		file = READ_ONCE(slot->ki_filp);
		if (file) {
			file = CAST(struct file, file);
			found = (file->f_mode & (FMODE_READ | FMODE_PATH)) == FMODE_READ;
			opened->dentry = READ_ONCE(file->f_path.dentry);
			opened->mnt = READ_ONCE(file->f_path.mnt);
			found &= READ_ONCE(slot->ki_filp) == file;
		}
	}
	bpf_preempt_enable();
	return found;
}

/*
 * generic_permission(dir, MAY_EXEC) as far as it can be decided here: mode
 * bits, owner, and the capabilities that override them. A group or an access
 * control list that would have to be consulted means no.
 */
static __always_inline _Bool may_search(const struct inode *dir, const struct cred *cred,
					_Bool no_acl)
{
	__u32 mode = dir->i_mode;

	if ((mode & 0111) == 0111 && no_acl)
		return 1;
	if (cred->cap_effective.val & (1ULL << CAP_DAC_READ_SEARCH | 1ULL << CAP_DAC_OVERRIDE))
		return dir->i_uid.val != (__u32)-1 && dir->i_gid.val != (__u32)-1;
	return cred->fsuid.val == dir->i_uid.val && (mode & 0100);
}

#endif
