// SPDX-License-Identifier: GPL-2.0
/*
 * System calls from a program: those on this list, through the kernel's own
 * handlers, so that they mean exactly what they mean elsewhere. Not on it:
 * whatever changes who the caller is or what runs (credentials, exec, fork, exit,
 * signals, namespaces, ptrace), its address space, or takes pointers in memory.
 */
#include <asm/syscall.h>
#include <asm/unistd.h>
#include <linux/file.h>
#include <linux/kprobes.h>

#include "cosy.h"

enum kind {
	INT,
	STRING, /* ended by NUL; the handler looks no further than PATH_MAX */
	BUFFER, /* as many bytes as the next argument says; may be NULL, as all below */
	NONE, /* must be NULL */
	/* memory of a fixed size */
	STAT,
	STATX,
	TIMESPEC,
	TIMESPECS, /* two */
	LONG, /* an offset or a length */
	EPOLL_EVENT,
	EPOLL_EVENTS, /* as many as the next argument says */
	POLLFDS, /* as many as the next argument says */
};

static const u16 fixed_bytes[] = {
	[STAT] = 144, [STATX] = 256,	  [TIMESPEC] = 16,     [TIMESPECS] = 32,
	[LONG] = 8,   [EPOLL_EVENT] = 12, [EPOLL_EVENTS] = 12, [POLLFDS] = 8,
};

struct cosy_call {
	u16 nr;
	u8 n_args;
	bool pure;
	u8 kinds[6]; /* enum kind */
};

#define N_ARGS(...) (sizeof((u8[]){ __VA_ARGS__ }))
#define CALL(name, is_pure, ...)                                                                   \
	{                                                                                          \
		.nr = __NR_##name,                                                                 \
		.n_args = N_ARGS(__VA_ARGS__),                                                     \
		.pure = is_pure,                                                                   \
		.kinds = { __VA_ARGS__ },                                                          \
	}
#define PURE(name, ...) CALL(name, true, ##__VA_ARGS__)
#define IMPURE(name, ...) CALL(name, false, ##__VA_ARGS__)

/* pure: as the class in tracer/syscalls.toml says; a test compares the two. */
static const struct cosy_call list[] = {
	PURE(fstat, INT, STAT),
	PURE(newfstatat, INT, STRING, STAT, INT),
	PURE(statx, INT, STRING, INT, INT, STATX),
	PURE(faccessat, INT, STRING, INT),
	PURE(faccessat2, INT, STRING, INT, INT),
	PURE(readlinkat, INT, STRING, BUFFER, INT),
	PURE(pread64, INT, BUFFER, INT, INT),
	PURE(getxattr, STRING, STRING, BUFFER, INT),
	PURE(lgetxattr, STRING, STRING, BUFFER, INT),
	PURE(fgetxattr, INT, STRING, BUFFER, INT),
	PURE(listxattr, STRING, BUFFER, INT),
	PURE(llistxattr, STRING, BUFFER, INT),
	PURE(flistxattr, INT, BUFFER, INT),
	PURE(getcwd, BUFFER, INT),
	PURE(getpid),
	PURE(getppid),
	PURE(gettid),
	PURE(getuid),
	PURE(geteuid),
	PURE(getgid),
	PURE(getegid),
	PURE(clock_gettime, INT, TIMESPEC),
	IMPURE(read, INT, BUFFER, INT),
	IMPURE(write, INT, BUFFER, INT),
	IMPURE(pwrite64, INT, BUFFER, INT, INT),
	IMPURE(openat, INT, STRING, INT, INT),
	IMPURE(close, INT),
	IMPURE(lseek, INT, INT, INT),
	IMPURE(getdents64, INT, BUFFER, INT),
	IMPURE(dup, INT),
	IMPURE(dup3, INT, INT, INT),
	PURE(fadvise64, INT, INT, INT, INT),
	IMPURE(copy_file_range, INT, LONG, INT, LONG, INT, INT),
	IMPURE(sendfile, INT, INT, LONG, INT),
	IMPURE(splice, INT, LONG, INT, LONG, INT, INT),
	IMPURE(fallocate, INT, INT, INT, INT),
	IMPURE(ftruncate, INT, INT),
	IMPURE(fsync, INT),
	IMPURE(fdatasync, INT),
	IMPURE(mkdirat, INT, STRING, INT),
	IMPURE(unlinkat, INT, STRING, INT),
	IMPURE(renameat2, INT, STRING, INT, STRING, INT),
	IMPURE(linkat, INT, STRING, INT, STRING, INT),
	IMPURE(symlinkat, STRING, INT, STRING),
	IMPURE(fchmod, INT, INT),
	IMPURE(fchmodat, INT, STRING, INT),
	IMPURE(fchown, INT, INT, INT),
	IMPURE(fchownat, INT, STRING, INT, INT, INT),
	IMPURE(utimensat, INT, STRING, TIMESPECS, INT),
	IMPURE(accept4, INT, NONE, NONE, INT),
	IMPURE(sendto, INT, BUFFER, INT, INT, BUFFER, INT),
	IMPURE(recvfrom, INT, BUFFER, INT, INT, NONE, NONE),
	IMPURE(shutdown, INT, INT),
	IMPURE(setsockopt, INT, INT, INT, BUFFER, INT),
	IMPURE(poll, POLLFDS, INT, INT),
	IMPURE(epoll_ctl, INT, INT, INT, EPOLL_EVENT),
	IMPURE(epoll_wait, INT, EPOLL_EVENTS, INT, INT),
};

#define NULL_OFFSET (~0ull)
#define N_NRS 512
/* Before Linux 6.6 a closed file stays until the caller is back in user mode. */
#define MAX_CLOSED 4096

static const sys_call_ptr_t *handlers;
static u8 index_of[N_NRS]; /* in list, plus 1 */

const struct cosy_call *cosy_call_find(s32 nr)
{
	if (nr < 0 || nr >= N_NRS || !index_of[nr])
		return NULL;
	return &list[index_of[nr] - 1];
}

bool cosy_call_is_pure(const struct cosy_call *call)
{
	return call->pure;
}

u32 cosy_call_n_args(const struct cosy_call *call)
{
	return call->n_args;
}

bool cosy_calls_work(void)
{
	return handlers;
}

/* An argument as the handler wants it. */
static int argument(const struct cosy_context *c, unsigned long user, enum kind kind,
		    const u64 *arg, u64 *value)
{
	u64 bytes;

	switch (kind) {
	case INT:
		*value = *arg;
		return 0;
	case STRING:
		bytes = 1;
		break;
	case BUFFER:
		bytes = arg[1];
		break;
	case EPOLL_EVENTS:
	case POLLFDS:
		bytes = (u64)fixed_bytes[kind] * (u32)arg[1];
		break;
	default:
		bytes = fixed_bytes[kind];
	}
	*value = 0;
	if (*arg == NULL_OFFSET && kind != STRING)
		return 0;
	if (kind == NONE)
		return -EINVAL;
	if (!cosy_range_ok(c, *arg, bytes))
		return -EFAULT;
	*value = user + *arg;
	return 0;
}

int cosy_call(const struct cosy_context *c, const struct cosy_call *call, const u64 *args,
	      struct cosy_budget *budget, u64 *result)
{
	unsigned long user = READ_ONCE(c->user);
	struct pt_regs regs = { .orig_ax = call->nr };
	u64 values[6] = { 0 };
	long ret = 0;
	u32 i;

	if (call->nr == __NR_close && LINUX_VERSION_CODE < KERNEL_VERSION(6, 6, 0) &&
	    ++budget->closed > MAX_CLOSED)
		return -E2BIG;
	for (i = 0; i < call->n_args && !ret; i++)
		ret = argument(c, user, call->kinds[i], &args[i], &values[i]);
	if (!ret && !user)
		ret = -EFAULT;
	if (!ret && !handlers)
		ret = -ENOSYS;
	if (ret)
		goto out;
	regs.di = values[0];
	regs.si = values[1];
	regs.dx = values[2];
	regs.r10 = values[3];
	regs.r8 = values[4];
	regs.r9 = values[5];
	ret = handlers[call->nr](&regs);
	if (cosy_errno(ret) != ret)
		return -EINTR; /* made again when the run goes on */
out:
	*result = ret;
	return 0;
}

s64 cosy_call_accept(int fd, int flags)
{
	struct pt_regs regs = { .orig_ax = __NR_accept4, .di = fd, .r10 = flags };

	return handlers ? handlers[__NR_accept4](&regs) : -EOPNOTSUPP;
}

/*
 * The address of a kernel symbol, or 0: what a probe is about is looked up even if
 * it is then refused, and a disabled probe changes no code.
 */
static unsigned long address_of(const char *symbol)
{
	struct kprobe probe = { .symbol_name = symbol, .flags = KPROBE_FLAG_DISABLED };
	int err = register_kprobe(&probe);
	unsigned long address = (unsigned long)probe.addr;

	if (!err)
		unregister_kprobe(&probe);
	return address;
}

void cosy_calls_init(void)
{
	const sys_call_ptr_t *table = (const sys_call_ptr_t *)address_of("sys_call_table");
	unsigned long getppid = address_of("__x64_sys_getppid"), handler;
	u32 i;

	for (i = 0; i < ARRAY_SIZE(list); i++)
		index_of[list[i].nr] = i + 1;
	if (!table || !getppid)
		return;
	/* is it that table? A probe may sit behind the function's first instruction */
	handler = (unsigned long)READ_ONCE(table[__NR_getppid]);
	if (handler <= getppid && getppid - handler <= 16)
		handlers = table;
}
