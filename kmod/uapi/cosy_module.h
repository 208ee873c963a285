/* SPDX-License-Identifier: (GPL-2.0 WITH Linux-syscall-note) OR MIT */
/*
 * /dev/cosy: compounds that run in the kernel, next to the VFS.
 * docs/kernel-module.md tells the whole; this file is the binary interface.
 *
 * A context is one open of the device. It belongs to the address space that
 * opened it: after fork or exec, or handed to another process, it answers
 * EPERM. Threads may share it; one compound runs at a time, the next gets EBUSY.
 *
 *	fd = open(COSY_DEVICE, O_RDWR | O_CLOEXEC)
 *	ioctl(fd, COSY_IOC_SETUP, &setup)	give it a buffer
 *	mmap(NULL, setup.buffer_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
 *	ioctl(fd, COSY_IOC_LOAD, &load)		check a program, keep a copy
 *	ioctl(fd, COSY_IOC_RUN, &run)		run it
 *	ioctl(fd, COSY_IOC_FUSED, &fused)	or one fused operation, without a program
 *
 * Without a descriptor: a door outlives the descriptor that it was opened by, and ends
 * with the address space. msync() of it is COSY_IOC_FUSED with the struct
 * cosy_fused at address A, which begins a page, and returns what the ioctl would.
 *
 *	mmap(NULL, page size, PROT_NONE, MAP_SHARED, fd, COSY_DOOR | A)
 *	close(fd)
 *	msync(door, page size, MS_SYNC)
 *
 * An ioctl that fails changed nothing. Its errno:
 *	ENOTTY		unknown request: another version of this file
 *	EINVAL		a field out of range, or reserved and not 0; LOAD: the program
 *			is refused, load.error_at and load.reason say where and why
 *	EPERM		not the address space that opened the context, or the caller
 *			is watched (ptrace, seccomp, audit, user dispatch)
 *	EBUSY		the context runs a compound, or is set up already
 *	ENOENT		no such program
 *	EFAULT		memory that cannot be read or written
 *	ENOMEM		or a limit of the administrator is reached
 *	EOPNOTSUPP	the kernel does not let the module do this
 * An ioctl that succeeds says in `status` how the compound ended.
 */
#ifndef COSY_MODULE_H
#define COSY_MODULE_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define COSY_DEVICE "/dev/cosy"
#define COSY_MODULE_ABI 2

#define COSY_MAX_INSNS 4096 /* per program */
#define COSY_MAX_PROGRAMS 64 /* per context */
#define COSY_N_REGS 32
#define COSY_MAX_XATTRS 4 /* names that COSY_OP_ENTRIES asks for */
#define COSY_MAX_DEPTH 8 /* levels of subdirectories */
#define COSY_MAX_USER_BYTES (1u << 20) /* COSY_FUSED_USER: of each memory range */

#define COSY_DOOR (1ull << 62) /* in the offset of mmap */

/* --- the context ---------------------------------------------------------- */

/* cosy_info.features */
#define COSY_FEATURE_CALLS 0x1 /* COSY_I_CALL works: system call handlers are reachable */

struct cosy_info {
	__u32 abi; /* out: COSY_MODULE_ABI */
	__u32 reserved;
	__u64 features;
	/* what this machine's administrator allows at most */
	__u64 max_buffer_bytes;
	__u64 max_deadline_ns; /* of one run */
	__u64 max_ops; /* of one run */
};

struct cosy_setup {
	__u32 abi; /* in: COSY_MODULE_ABI */
	__u32 flags; /* in: 0 */
	__u64 buffer_bytes; /* in: wanted, > 0; out: rounded up to pages */
};

/* --- results of fused operations ------------------------------------------ */

/*
 * An operation writes blocks, one behind the other, each aligned to 8 bytes: a
 * struct cosy_block, then n struct cosy_entry, each with what belongs to it.
 */
struct cosy_block {
	__u32 bytes; /* of the whole block, this header included */
	__u32 n; /* entries that follow */
	__u32 parent; /* offset from the first block of the entry it belongs to; ~0: none */
	__u32 flags; /* COSY_BLOCK_* */
	__u64 next; /* not at the end: where to go on, args[4] of the next call */
	__u64 ino; /* ENTRIES: of the directory */
	__u32 dev; /* ENTRIES: of the directory, as in struct stat */
	__u32 error; /* the block ended early by this errno; n entries are good */
}; /* 40 bytes */
#define COSY_BLOCK_END 0x1 /* nothing is missing behind the last entry */

/* cosy_entry.flags */
#define COSY_ENTRY_MOUNT 0x1 /* a mount point: attributes are the mounted root's */
#define COSY_ENTRY_DATA 0x2 /* data was asked for and tried: see data */
#define COSY_ENTRY_DATA_END 0x4 /* data reaches to the end of the file */
#define COSY_ENTRY_SPECIAL 0x8 /* never read: a device, FIFO, socket, file or link of /proc */
/*
 * A regular file, whole, that nobody can tell to have been read: its access time would not move, no
 * watch of inotify or fanotify is on it, its directory or its file system, and no lease or POSIX lock.
 */
#define COSY_ENTRY_AHEAD 0x10

/*
 * Behind the fixed part: n_xattrs __s32, padded to 8 bytes; the name and a NUL,
 * padded to 8 bytes; data, padded to 8 bytes. cosy_entry_*() below find them.
 */
struct cosy_entry {
	__u32 bytes; /* of the whole record */
	__s32 error; /* 0, or -errno: there are no attributes */
	__u16 flags; /* COSY_ENTRY_* */
	__u16 mode;
	__u16 name_len; /* bytes, without the NUL */
	__u8 type; /* DT_*, as getdents64 says; FILES: of the mode */
	__u8 n_xattrs;
	/*
	 * Bytes of data (contents of a file, target of a symbolic link), or
	 * -errno of open, read or readlink.
	 */
	__s32 data;
	__u32 mask; /* attributes that are valid, as statx's stx_mask */
	__u64 ino;
	__u64 size; /* bytes */
	__u64 blocks; /* of 512 bytes */
	__s64 atime_sec, mtime_sec, ctime_sec, btime_sec;
	__u32 atime_nsec, mtime_nsec, ctime_nsec, btime_nsec;
	__u64 attributes, attributes_mask; /* as statx's */
	__u32 nlink, uid, gid;
	__u32 dev, rdev; /* as in struct stat */
	__u32 blksize;
}; /* 136 bytes */

/* The result of getxattr(name, NULL, 0) for each name asked for: bytes or -errno. */
static inline const __s32 *cosy_entry_xattrs(const struct cosy_entry *e)
{
	return (const __s32 *)(e + 1);
}

static inline const char *cosy_entry_name(const struct cosy_entry *e)
{
	return (const char *)(e + 1) + (e->n_xattrs + 1u) / 2 * 8;
}

static inline const char *cosy_entry_data(const struct cosy_entry *e)
{
	return cosy_entry_name(e) + (e->name_len + 8u) / 8 * 8;
}

/* RECEIVE and SEND: one socket's; data follow, padded to 8 bytes. */
struct cosy_message {
	__s32 fd;
	__s32 result; /* bytes, or -errno */
};

/* --- fused operations ----------------------------------------------------- */

enum cosy_fused_op {
	COSY_OP_NONE = 0,
	/*
	 * A directory's entries ("." and ".." left out) with their attributes, as
	 * newfstatat(dirfd, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) gives them:
	 * args: dirfd (open for reading; its offset is neither used nor moved),
	 * COSY_WANT_*, out, out bytes, position (0: the start; else next), depth,
	 * xattr names (each ended by NUL, the last by two; only with WANT_XATTR),
	 * most bytes of data per file. Subdirectories down to `depth` levels follow
	 * as blocks of their own while there is room, each whole, level by level.
	 * A pure program gets EOPNOTSUPP where a server might have to be asked.
	 * Returns the number of entries in all blocks.
	 */
	COSY_OP_ENTRIES = 1,
	/*
	 * Files by name: open, fstat, read, close, without a descriptor. args:
	 * dirfd or AT_FDCWD, COSY_WANT_*, out, out bytes, names (each ended by NUL),
	 * bytes of names, offset in each file, most bytes of data per file.
	 * One block; next counts the bytes of names that are done.
	 * Returns the number of entries.
	 */
	COSY_OP_FILES = 2,
	/*
	 * Copy between two regular files, as copy_file_range does, until `bytes` are
	 * done or the source ends. args: source fd, target fd, bytes, 0, and with
	 * COSY_WANT_AT the two offsets; without it the descriptors' own offsets are
	 * used and moved. Returns bytes copied. Never in a pure program.
	 */
	COSY_OP_COPY = 3,
	/*
	 * What the kernel knows of a directory's children without reading it, which may
	 * be none or all of them, with their attributes, as the eBPF executor tells it
	 * (cosy_bpf.h). args: dirfd (open for reading), COSY_WANT_HINTS or 0, out, out
	 * bytes, children to skip. `out` gets a struct cosy_bpf_run (cookie and mnt_id are
	 * 0), behind it pages of records, as many as fit. An error of the directory is the
	 * run's status. Returns the number of records. No plain call tells the same.
	 */
	COSY_OP_SCAN = 4,
	/*
	 * What a server does for all connections that are ready: none of the three waits, raises
	 * SIGPIPE, or is allowed in a pure program. ACCEPT: args: a listening socket (O_NONBLOCK, else
	 * EINVAL), COSY_WANT_NONBLOCK and COSY_WANT_CLOEXEC for the connections, out, out
	 * bytes. `out` gets their descriptors, a __s32 each. Returns how many, or -errno if
	 * there is none. Not with COSY_FUSED_USER; EOPNOTSUPP without COSY_FEATURE_CALLS.
	 */
	COSY_OP_ACCEPT = 5,
	/*
	 * recv(MSG_DONTWAIT) of each socket. args: 0, 0, out, out bytes, descriptors (a __s32
	 * each), bytes of descriptors, most bytes of data per socket (64 KiB at most). `out`
	 * gets a struct cosy_message each, as long as there is room for another one. Returns
	 * how many. Not with COSY_FUSED_USER.
	 */
	COSY_OP_RECEIVE = 6,
	/*
	 * send(MSG_DONTWAIT | MSG_NOSIGNAL) of each message. args: 0, 0, out, out bytes, messages
	 * (struct cosy_message, as RECEIVE leaves them; of each 64 KiB at most are sent, and those
	 * whose result is not above 0 are passed over with 0), bytes of messages. `out` gets a
	 * __s32 each: bytes sent, or -errno. Returns how many.
	 */
	COSY_OP_SEND = 7,
	COSY_OP_MAX
};
#define COSY_FUSED_ARGS 8

/* How a fused operation is asked. */
#define COSY_WANT_XATTR 0x1 /* ENTRIES: look for extended attributes */
#define COSY_WANT_LINK 0x2 /* the target of a symbolic link as data */
#define COSY_WANT_DATA 0x4 /* the contents of regular files as data */
#define COSY_WANT_NOFOLLOW 0x8 /* FILES: a symbolic link as the last component is not followed */
#define COSY_WANT_NOATIME 0x10 /* access times stay; a pure program implies it */
#define COSY_WANT_AT 0x20 /* COPY: at given offsets */
#define COSY_WANT_HINTS 0x40 /* SCAN: say which children have no extended attribute */
#define COSY_WANT_NONBLOCK 0x80 /* ACCEPT: SOCK_NONBLOCK */
#define COSY_WANT_CLOEXEC 0x100 /* ACCEPT: SOCK_CLOEXEC */
/*
 * ENTRIES: nothing but names and types, without a look at the entries themselves; EOPNOTSUPP where
 * somebody watches the directory and would see it read.
 */
#define COSY_WANT_NAMES 0x400
#define COSY_WANT_AHEAD 0x200 /* FILES: contents only of those that COSY_ENTRY_AHEAD is said of */

/* --- limits and how it ended ---------------------------------------------- */

/* 0: the most that is allowed. Larger values are cut to that. */
struct cosy_limits {
	__u64 deadline_ns; /* from the start of the run, sleeping included */
	__u64 ops; /* loop turns, calls, and items of fused operations */
};

/*
 * status, both below:
 *	0		the program reached COSY_I_EXIT, or the operation is done
 *	-EINTR		a signal waits for the caller
 *	-ETIME		the deadline
 *	-E2BIG		the cap on ops
 *	-EPERM		the caller became watched
 *	-EFAULT		memory outside the buffer: the instruction at pc
 *	-EDOM		a division by 0
 * FUSED also: any errno of the operation itself.
 * After all of them the results so far are good. RUN goes on where it stopped
 * when called again with COSY_RUN_RESUME, pc and regs as they are.
 */
struct cosy_outcome {
	__s32 status;
	__u32 pc; /* RUN: of the instruction that comes next, or failed */
	__u64 ops; /* that counted */
	__u64 time_ns; /* inside the kernel */
};

/* cosy_fused.flags */
#define COSY_FUSED_USER 0x1 /* out and names are addresses, not offsets in the buffer */
#define COSY_FUSED_PURE 0x2 /* as in a pure program */

struct cosy_fused {
	__u32 op; /* enum cosy_fused_op */
	__u32 flags; /* COSY_FUSED_* */
	__u64 args[COSY_FUSED_ARGS];
	struct cosy_limits limits;
	struct cosy_outcome outcome; /* out */
	__s64 result; /* out: what the operation returns, or -errno */
	__u64 used; /* out: bytes of out that were written */
};

/* --- programs -------------------------------------------------------------- */

/*
 * 32 registers of 64 bits; memory is the context's buffer, addressed by offset.
 * Jumps go forward only, the one way back is COSY_I_LOOP. imm of a jump counts
 * instructions from the next one. The last instruction is COSY_I_EXIT.
 */
struct cosy_insn {
	__u8 op; /* enum cosy_insn_op */
	__u8 dst, a, b; /* registers */
	__s32 imm;
};

enum cosy_insn_op {
	COSY_I_EXIT = 0, /* all done; the caller finds the registers in run.regs */
	COSY_I_MOV, /* dst = a */
	COSY_I_MOVI, /* dst = imm, sign extended */
	COSY_I_MOVHI, /* the upper half of dst = imm */
	COSY_I_ADD, /* dst = a + b */
	COSY_I_ADDI, /* dst = a + imm */
	COSY_I_SUB, /* dst = a - b */
	COSY_I_MUL, /* dst = a * b */
	COSY_I_DIV, /* dst = a / b, unsigned */
	COSY_I_MOD, /* dst = a % b, unsigned */
	COSY_I_AND, /* dst = a & b */
	COSY_I_ANDI, /* dst = a & imm */
	COSY_I_OR, /* dst = a | b */
	COSY_I_XOR, /* dst = a ^ b */
	COSY_I_SHLI, /* dst = a << imm, imm in 0..63 */
	COSY_I_SHRI, /* dst = a >> imm, imm in 0..63 */
	/* loads extend with zeros; the address a + imm need not be aligned */
	COSY_I_LD8, /* dst = the byte at a + imm */
	COSY_I_LD16,
	COSY_I_LD32,
	COSY_I_LD64,
	COSY_I_ST8, /* the byte at a + imm = b */
	COSY_I_ST16,
	COSY_I_ST32,
	COSY_I_ST64,
	COSY_I_JMP, /* always, by imm > 0 */
	COSY_I_JEQ, /* if a == b */
	COSY_I_JNE,
	COSY_I_JLT, /* unsigned a < b */
	COSY_I_JGE,
	COSY_I_JSLT, /* signed a < b */
	COSY_I_JSGE,
	/*
	 * If dst > 1: dst -= 1 and go on by imm < 0; else dst = 0. The body, from
	 * there to here, neither writes dst otherwise nor is entered but at its
	 * start; loops nest whole.
	 */
	COSY_I_LOOP,
	COSY_I_STRLEN, /* dst = length of the string at a, without the NUL; at most imm, 1..1 MiB */
	COSY_I_MOVE, /* imm bytes, or (imm 0) as many as dst says, from b to a; they may overlap */
	COSY_I_COMPARE, /* dst = 0 if imm bytes at a and at b are equal, else 1 */
	/*
	 * dst = the result of system call imm, with arguments in registers a, a + 1,
	 * ...; -errno on failure. A pointer is an offset in the buffer, -1 is NULL.
	 */
	COSY_I_CALL,
	/* dst = the result of fused operation imm, arguments from register a on */
	COSY_I_FUSED,
	COSY_I_MAX
};

/* cosy_load.flags */
#define COSY_LOAD_PURE 0x1 /* refuse what could change anything: a speculative compound */

enum cosy_refusal {
	COSY_REFUSED_NOT = 0,
	COSY_REFUSED_LENGTH, /* no instruction, or too many */
	COSY_REFUSED_OP, /* unknown instruction */
	COSY_REFUSED_REGISTER, /* there is no such register */
	COSY_REFUSED_IMM, /* out of range */
	COSY_REFUSED_JUMP, /* not forward, out of the program, or into a loop */
	COSY_REFUSED_LOOP, /* counter written in the body, or not nested */
	COSY_REFUSED_END, /* the last instruction is not COSY_I_EXIT */
	COSY_REFUSED_CALL, /* not on the list of allowed calls */
	COSY_REFUSED_IMPURE, /* a pure program must not */
	COSY_REFUSED_UNUSED, /* a field that the instruction does not use is not 0 */
};

struct cosy_load {
	__u64 insns; /* in: address of struct cosy_insn[] */
	__u32 n_insns;
	__u32 flags; /* in: COSY_LOAD_* */
	__u32 program; /* out: its number */
	__u32 error_at; /* out with EINVAL: index of the instruction that is refused */
	__u32 reason; /* out with EINVAL: enum cosy_refusal */
	__u32 reserved; /* 0 */
};

/* cosy_run.flags */
#define COSY_RUN_RESUME 0x1 /* start at outcome.pc, not at 0 */

struct cosy_run {
	__u32 program;
	__u32 flags; /* COSY_RUN_* */
	struct cosy_limits limits;
	struct cosy_outcome outcome; /* out; pc: in with COSY_RUN_RESUME */
	__u64 regs[COSY_N_REGS]; /* in and out */
};

#define COSY_IOC_INFO _IOR(0xc5, 0, struct cosy_info)
#define COSY_IOC_SETUP _IOWR(0xc5, 1, struct cosy_setup)
#define COSY_IOC_LOAD _IOWR(0xc5, 2, struct cosy_load)
#define COSY_IOC_UNLOAD _IOW(0xc5, 3, __u32) /* address of the program's number */
#define COSY_IOC_RUN _IOWR(0xc5, 4, struct cosy_run)
#define COSY_IOC_FUSED _IOWR(0xc5, 5, struct cosy_fused)

#endif
