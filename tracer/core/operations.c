// SPDX-License-Identifier: MIT
#include "operations.h"

#include <asm/unistd_64.h>
#include <fcntl.h>
#include <sys/mman.h>

#include "descriptors.h"

#define FIONCLEX 0x5450
#define FIOCLEX 0x5451
#define CLOSE_RANGE_CLOEXEC 4

static const u8 here[] = ".";

static bool is_pair(u16 nr)
{
	return nr == __NR_pipe || nr == __NR_pipe2 || nr == __NR_socketpair;
}

/* Leaves out failures, the many calls of fcntl and ioctl that only ask, and dup2 to itself. */
static bool changes(const struct cosy_effect *effect, u16 nr, u64 what, s64 ret, u64 sizes,
		    const u64 *args)
{
	u32 command = (u32)args[1];

	// An exec that is known to have returned has failed.
	if (effect->does == DOES_EXEC ? !(what_flags(what) & COSY_EVENT_NO_RETURN) : ret < 0)
		return false;
	switch (nr) {
	case __NR_fcntl:
		return command == F_DUPFD || command == F_SETFD || command == F_DUPFD_CLOEXEC;
	case __NR_ioctl:
		return command == FIOCLEX || command == FIONCLEX;
	case __NR_dup2:
		return (s32)args[0] != ret;
	case __NR_pipe:
	case __NR_pipe2:
	case __NR_socketpair:
		return out_len(sizes) == 2 * sizeof(s32);
	}
	return true;
}

/* What is particular to single calls. */
static void special(u16 nr, const u64 *args, u64 flags, struct operation *to)
{
	switch (nr) {
	case __NR_open:
	case __NR_creat:
		to->other = AT_CWD;
		break;
	case __NR_openat2: // struct open_how is not recorded: most set it
		to->cloexec = true;
		break;
	case __NR_memfd_create:
		to->cloexec = flags & MFD_CLOEXEC;
		break;
	case __NR_chdir:
		to->fd = to->other = AT_CWD;
		break;
	case __NR_fchdir:
		to->fd = AT_CWD;
		break;
	case __NR_fcntl:
		to->cloexec = (u32)args[1] == F_DUPFD_CLOEXEC;
		if ((u32)args[1] == F_SETFD) {
			to->cloexec = args[2] & FD_CLOEXEC;
			to->fd = to->other;
		}
		break;
	case __NR_ioctl:
		to->cloexec = (u32)args[1] == FIOCLEX;
		to->fd = to->other;
		break;
	case __NR_close_range:
		to->fd = (u32)args[0];
		to->other = (u32)args[1];
		to->cloexec = args[2] & CLOSE_RANGE_CLOEXEC;
		break;
	}
}

static void set_path(const struct cosy_chunk *c, u64 i, u16 nr, u64 sizes, struct operation *to)
{
	to->path_len = path_len(sizes);
	to->path = to->path_len ? payload(c, i, to->path_len) : NULL;
	if (nr == __NR_chdir && !to->path_len) {
		to->path = here;
		to->path_len = 1;
	}
}

u32 operations_of(const struct cosy_chunk *c, u64 i, const struct cosy_effect *effect,
		  struct operation *to)
{
	u64 what = row(c, WHAT)[i], sizes = row(c, SIZES)[i], flags = 0, args[6];
	s64 ret = (s64)row(c, RET)[i];
	u16 nr = what_nr(what);

	for (u32 k = 0; k < 6; k++)
		args[k] = row(c, ARGS + k)[i];
	if (!changes(effect, nr, what, ret, sizes, args))
		return 0;
	if (effect->flags_at < NO_ARGUMENT)
		flags = args[effect->flags_at];
	*to = (struct operation){
		.tsc = (s64)(row(c, TSC)[i] + (effect->late ? row(c, DUR)[i] : 0)),
		.fd = effect->does == DOES_CLOSE ? (s32)args[0] : ret,
		.other = (s32)args[0],
		.does = effect->does,
		.kind = effect->kind,
		.cloexec = flags & O_CLOEXEC,
	};
	if (effect->opens) {
		set_path(c, i, nr, sizes, to);
		if (nr != __NR_chdir && flags & O_DIRECTORY)
			to->kind = DIRECTORY;
	}
	special(nr, args, flags, to);
	if (is_pair(nr)) {
		const u8 *out = payload(c, i, payload_size(sizes));
		s32 fds[2];

		if (!out)
			return 0;
		memcpy(fds, out + path_len(sizes) + path2_len(sizes), sizeof(fds));
		to[1] = to[0];
		to[0].fd = fds[0];
		to[1].fd = fds[1];
		return 2;
	}
	return 1;
}
