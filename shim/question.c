// SPDX-License-Identifier: MIT
#include "question.h"

#include <asm/unistd_64.h>
#include <fcntl.h>
#include <linux/stat.h>

#include "mem.h"
#include "syscall_table.h"

#define STAT_BYTES 144
#define STATX_BYTES 256
#define MAX_XATTR_NAME 255
// Flags of an open that can make it fail; the others only shape the descriptor.
#define OPEN_MATTERS (O_NOFOLLOW | O_DIRECTORY | O_NOATIME)

static bool want_of(u32 nr, enum want *want)
{
	switch (nr) {
	case __NR_stat:
	case __NR_lstat:
	case __NR_fstat:
	case __NR_newfstatat:
		*want = WANT_STAT;
		return true;
	case __NR_statx:
		*want = WANT_STATX;
		return true;
	case __NR_access:
	case __NR_faccessat:
	case __NR_faccessat2:
		*want = WANT_ACCESS;
		return true;
	case __NR_readlink:
	case __NR_readlinkat:
		*want = WANT_LINK;
		return true;
	case __NR_getxattr:
	case __NR_lgetxattr:
		*want = WANT_XATTR;
		return true;
	case __NR_open:
	case __NR_openat:
		*want = WANT_OPEN;
		return true;
	case __NR_read:
	case __NR_pread64:
		*want = WANT_DATA;
		return true;
	}
	return false;
}

bool question_take(const struct regs *r, struct question *to)
{
	const struct cosy_syscall *s = &cosy_syscalls[r->nr < COSY_NR_MAX ? r->nr : 0];

	*to = (struct question){ .regs = r, .nr = (u32)r->nr, .fd = -1, .dirfd = AT_FDCWD };
	if (r->nr >= COSY_NR_MAX || !want_of(to->nr, &to->want))
		return false;
	for (u32 i = 0; i < s->n_args; i++) {
		switch (s->args[i]) {
		case COSY_ARGT_FD:
			to->fd = (int)r->a[i];
			to->about_fd = true;
			break;
		case COSY_ARGT_DIRFD:
			to->dirfd = (int)r->a[i];
			break;
		case COSY_ARGT_PATH:
			to->path = (const char *)r->a[i];
			break;
		case COSY_ARGT_NAME:
			to->name = (const char *)r->a[i];
			break;
		case COSY_ARGT_AT_FLAGS:
		case COSY_ARGT_OPEN_FLAGS:
			to->said = (u32)r->a[i];
			break;
		case COSY_ARGT_STATX_MASK:
			to->detail = (u32)r->a[i];
			break;
		case COSY_ARGT_MODE:
			if (to->want == WANT_ACCESS)
				to->detail = (u32)r->a[i];
			break;
		case COSY_ARGT_STAT_OUT:
		case COSY_ARGT_STATX_OUT:
		case COSY_ARGT_BUF_OUT:
			to->out = (void *)r->a[i];
			break;
		case COSY_ARGT_SIZE:
			to->size = r->a[i];
			break;
		case COSY_ARGT_OFFSET:
			to->offset = r->a[i];
			to->at_offset = true;
			break;
		}
	}
	to->flags = to->said & ~(u32)AT_NO_AUTOMOUNT;
	if (to->want == WANT_OPEN)
		to->flags = to->said & OPEN_MATTERS;
	if (to->nr == __NR_lstat || to->nr == __NR_lgetxattr)
		to->flags = AT_SYMLINK_NOFOLLOW;
	if (to->want == WANT_STAT)
		to->size = STAT_BYTES;
	if (to->want == WANT_STATX)
		to->size = STATX_BYTES;
	return true;
}

bool question_read(struct question *q)
{
	long len;

	if (q->about_fd)
		return true;
	len = mem_strlen(q->path, QUESTION_TEXT - 1);
	if (len < 0 || (q->name && mem_strlen(q->name, MAX_XATTR_NAME) <= 0))
		return false;
	q->path_len = (u32)len;
	// glibc's fstat: no path, but the descriptor itself.
	if (!len && q->said & AT_EMPTY_PATH && q->dirfd >= 0) {
		q->about_fd = true;
		q->fd = q->dirfd;
		q->flags &= ~(u32)(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW);
		return true;
	}
	q->flags &= ~(u32)(q->want == WANT_OPEN ? 0 : AT_EMPTY_PATH);
	return len > 0;
}

bool question_matches(const struct question *q, const struct cosy_pattern *p, const char *strings)
{
	if (p->nr != q->nr || q->said & ~p->flags_allowed ||
	    (q->want == WANT_STATX && q->detail & ~p->mask_within))
		return false;
	return !q->name || str_equal(q->name, strings + p->string);
}
