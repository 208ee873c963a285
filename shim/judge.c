// SPDX-License-Identifier: MIT
/* Little of the stack is used: exec may be called from a handler that has none to spare. */
#include "judge.h"

#include <asm/unistd_64.h>
#include <elf.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "leaf.h"

#define MAX_SCRIPTS 5 /* as the kernel's own limit of nested interpreters */
#define HEAD 256 /* BINPRM_BUF_SIZE: of a script the kernel looks at no more */

_Static_assert(HEAD >= sizeof(Elf64_Ehdr) + 2 * sizeof(Elf64_Phdr), "PT_INTERP comes second");

// Which loader the program asks for.
static u32 judge_interpreter(int fd, const Elf64_Phdr *ph)
{
	char interp[64];
	long n = sys(__NR_pread64, fd, interp, sizeof(interp) - 1, ph->p_offset);

	if (n <= 0)
		return COSY_NATIVE_FOREIGN;
	interp[n] = 0;
	return str_starts(base_name(interp), "ld-linux-x86-64.so") ? COSY_NATIVE_REASONS :
								     COSY_NATIVE_FOREIGN;
}

// `head`: of `n` bytes, ours to use.
static u32 judge_elf(int fd, u8 *head, long n)
{
	Elf64_Ehdr eh;
	Elf64_Phdr ph;
	u64 start = 0, at;

	memcpy(&eh, head, sizeof(eh));
	if (eh.e_ident[EI_CLASS] != ELFCLASS64 || eh.e_machine != EM_X86_64 ||
	    eh.e_phentsize != sizeof(ph))
		return COSY_NATIVE_FOREIGN;
	if (sys(__NR_fgetxattr, fd, "security.capability", 0, 0) > 0)
		return COSY_NATIVE_SETID;
	for (u32 i = 0; i < eh.e_phnum; i++) {
		at = eh.e_phoff + i * sizeof(ph);
		if (at < start || at - start + sizeof(ph) > (u64)n) {
			n = sys(__NR_pread64, fd, head, HEAD, at);
			if (n < (long)sizeof(ph))
				return COSY_NATIVE_FOREIGN;
			start = at;
		}
		memcpy(&ph, head + (at - start), sizeof(ph));
		if (ph.p_type == PT_INTERP)
			return judge_interpreter(fd, &ph);
	}
	return COSY_NATIVE_STATIC;
}

// The interpreter's path behind "#!", cut out in place; NULL: none.
static char *script_interpreter(u8 *head, size_t len)
{
	char *p = (char *)head + 2, *end = (char *)head + len, *q;

	while (p < end && (*p == ' ' || *p == '\t'))
		p++;
	for (q = p; q < end && *q && *q != ' ' && *q != '\t' && *q != '\n'; q++)
		;
	if (q == end || q == p)
		return NULL;
	*q = 0;
	return p;
}

// As exec takes the three; -1: it cannot be read, or is nothing to open.
static int open_program(int dirfd, const char *path, int flags, const struct stat *st)
{
	if (!S_ISREG(st->st_mode))
		return -1;
	if (flags & AT_EMPTY_PATH && !*path)
		return (int)sys(__NR_fcntl, dirfd, F_DUPFD_CLOEXEC, 3);
	return (int)sys(__NR_openat, dirfd, path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
}

u32 judge_program(int dirfd, const char *path, int flags, u64 *key)
{
	u8 head[2][HEAD]; // the path of an interpreter lies in the one before

	*key = 0;
	for (u32 depth = 0; depth < MAX_SCRIPTS; depth++) {
		u8 *buf = head[depth % 2];
		u32 reason = COSY_NATIVE_REASONS;
		struct stat st;
		long n;
		int fd;

		// Looked at first: opening a device or a FIFO for real could have effects.
		if (sys_failed(sys(__NR_newfstatat, dirfd, path, &st,
				   flags & (AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW))))
			return depth ? COSY_NATIVE_REASONS : JUDGE_ABSENT;
		if (!depth)
			*key = leaf_key(&st);
		if (S_ISREG(st.st_mode) && st.st_mode & (S_ISUID | S_ISGID))
			return COSY_NATIVE_SETID;
		fd = open_program(dirfd, path, flags, &st);
		// Executable but not readable, or no descriptor left: likely fine.
		if (fd < 0)
			return COSY_NATIVE_REASONS;
		n = sys(__NR_pread64, fd, buf, HEAD, 0);
		if (n >= (long)sizeof(Elf64_Ehdr) && !memcmp(buf, ELFMAG, SELFMAG)) {
			reason = judge_elf(fd, buf, n);
			n = 0;
		}
		sys(__NR_close, fd);
		if (n < 4 || buf[0] != '#' || buf[1] != '!')
			return reason;
		path = script_interpreter(buf, (size_t)n);
		if (!path)
			return COSY_NATIVE_REASONS;
		dirfd = AT_FDCWD;
		flags = 0;
	}
	return COSY_NATIVE_REASONS;
}
