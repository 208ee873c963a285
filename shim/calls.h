/* SPDX-License-Identifier: MIT */
/* What the execution mode does about a call, by its number (cosy_actions). */
#ifndef COSY_CALLS_H
#define COSY_CALLS_H

#include "shim.h"

enum action {
	ACTION_PASS, /* straight to the kernel */
	ACTION_ATTR, /* compounds may answer it */
	ACTION_OPEN,
	ACTION_CUT, /* a mutation that may make a file shorter */
	ACTION_GETDENTS,
	ACTION_SEEK,
	ACTION_READ,
	ACTION_WRITE,
	ACTION_CLOSE,
	ACTION_DUP,
	ACTION_IOCTL,
	ACTION_MMAP,
	ACTION_MEMORY, /* the address space changes */
	ACTION_MOVE, /* chdir and its kin */
	ACTION_SYNC,
	ACTION_FUTEX,
	ACTION_MUTATE,
	ACTION_BOTH, /* mutates, and brings news */
	ACTION_LEAVE, /* nothing that the shim could follow */
	ACTION_PRCTL, /* and seccomp */
	ACTION_PTRACE,
	ACTION_SIGACTION,
	ACTION_EXEC,
	ACTION_EXIT, /* the process ends: no news, but the last moment to note anything */
	ACTION_LOOK, /* to the kernel; the reference executor wants to see it, or files.c */
	ACTION_FCNTL_ALL, /* as ACTION_FCNTL, but the commands that pass unseen there are seen */
	ACTION_FCNTL = COSY_ACTION_FCNTL,
	ACTION_CLONE = COSY_ACTION_CLONE,
};

/* Make the call, with all that it means. */
HIDDEN long call_by_action(struct regs *r);

#endif
