// SPDX-License-Identifier: MIT
/*
 * The calls that a compound may make, and what their arguments are, as the module's
 * own list says (kmod/module/calls.c; a test compares the two).
 */
#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "plain.h"

#define NULL_OFFSET (~0ull)

/*
 * A letter an argument: i number, s string, b as many bytes as the next argument
 * says, 0 must be NULL, t struct stat, x struct statx, c timespec, u two of them,
 * l 8 bytes, e epoll_event, E as many of them as the next argument says, p pollfds
 * likewise. In front of them '!' if the call changes something.
 */
static const struct {
	short nr;
	const char *args;
} calls[] = {
	{ SYS_fstat, "it" },	     { SYS_newfstatat, "isti" }, { SYS_statx, "isiix" },
	{ SYS_faccessat, "isi" },    { SYS_faccessat2, "isii" }, { SYS_readlinkat, "isbi" },
	{ SYS_pread64, "ibii" },     { SYS_getxattr, "ssbi" },	 { SYS_lgetxattr, "ssbi" },
	{ SYS_fgetxattr, "isbi" },   { SYS_listxattr, "sbi" },	 { SYS_llistxattr, "sbi" },
	{ SYS_flistxattr, "ibi" },   { SYS_getcwd, "bi" },	 { SYS_getpid, "" },
	{ SYS_getppid, "" },	     { SYS_gettid, "" },	 { SYS_getuid, "" },
	{ SYS_geteuid, "" },	     { SYS_getgid, "" },	 { SYS_getegid, "" },
	{ SYS_clock_gettime, "ic" }, { SYS_read, "!ibi" },	 { SYS_write, "!ibi" },
	{ SYS_pwrite64, "!ibii" },   { SYS_openat, "!isii" },	 { SYS_close, "!i" },
	{ SYS_lseek, "!iii" },	     { SYS_getdents64, "!ibi" }, { SYS_dup, "!i" },
	{ SYS_dup3, "!iii" },	     { SYS_fadvise64, "!iiii" }, { SYS_copy_file_range, "!ililii" },
	{ SYS_sendfile, "!iili" },   { SYS_splice, "!ililii" },	 { SYS_fallocate, "!iiii" },
	{ SYS_ftruncate, "!ii" },    { SYS_fsync, "!i" },	 { SYS_fdatasync, "!i" },
	{ SYS_mkdirat, "!isi" },     { SYS_unlinkat, "!isi" },	 { SYS_renameat2, "!isisi" },
	{ SYS_linkat, "!isisi" },    { SYS_symlinkat, "!sis" },	 { SYS_fchmod, "!ii" },
	{ SYS_fchmodat, "!isi" },    { SYS_fchown, "!iii" },	 { SYS_fchownat, "!isiii" },
	{ SYS_utimensat, "!isui" },  { SYS_accept4, "!i00i" },	 { SYS_sendto, "!ibiibi" },
	{ SYS_recvfrom, "!ibii00" }, { SYS_shutdown, "!ii" },	 { SYS_setsockopt, "!iiibi" },
	{ SYS_poll, "!pii" },	     { SYS_epoll_ctl, "!iiie" }, { SYS_epoll_wait, "!iEii" },
};

static const char *args_of(int32_t nr)
{
	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		if (calls[i].nr == nr)
			return calls[i].args;
	}
	return NULL;
}

bool plain_call_is_pure(int32_t nr)
{
	const char *args = args_of(nr);

	return args && *args != '!';
}

int plain_call_args(int32_t nr)
{
	const char *args = args_of(nr);

	return args ? (int)strlen(args) - (*args == '!') : -1;
}

static uint64_t bytes_of(char kind, uint64_t next)
{
	switch (kind) {
	case 's':
		return 1;
	case 'b':
		return next;
	case 't':
		return 144;
	case 'x':
		return 256;
	case 'c':
		return 16;
	case 'u':
		return 32;
	case 'e':
		return 12;
	case 'E':
		return 12ull * (uint32_t)next;
	default:
		return 8ull * (kind == 'p' ? (uint32_t)next : 1);
	}
}

/* An argument as the call wants it. A string must end in the buffer. */
static long argument(const struct cosy *c, char kind, const uint64_t *arg, uint64_t *value)
{
	*value = *arg;
	if (kind == 'i')
		return 0;
	*value = 0;
	if (*arg == NULL_OFFSET && kind != 's')
		return 0;
	if (kind == '0')
		return -EINVAL;
	if (!plain_range_ok(c, *arg, bytes_of(kind, arg[1])))
		return -EFAULT;
	if (kind == 's' && !memchr(c->buffer + *arg, 0, c->bytes - *arg))
		return -EFAULT;
	*value = (uint64_t)(uintptr_t)(c->buffer + *arg);
	return 0;
}

uint64_t plain_call(const struct cosy *c, int32_t nr, const uint64_t *args)
{
	const char *kinds = args_of(nr);
	uint64_t values[7] = { 0 };
	int n = plain_call_args(nr);
	long ret;

	kinds += *kinds == '!';
	for (int i = 0; i < n; i++) {
		// no argument follows the last one, whose kind does not ask for it
		uint64_t pair[2] = { args[i], i + 1 < n ? args[i + 1] : 0 };

		ret = argument(c, kinds[i], pair, &values[i]);
		if (ret)
			return (uint64_t)ret;
	}
	ret = syscall(nr, values[0], values[1], values[2], values[3], values[4], values[5]);
	return ret < 0 ? (uint64_t)-errno : (uint64_t)ret;
}
