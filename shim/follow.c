// SPDX-License-Identifier: MIT
/*
 * exec: the new program gets the orders again, whatever environment the old
 * one hands it, unless it could not use them. A program that would only see
 * two strange variables, or whose loader would complain about our library,
 * gets its environment untouched.
 */
#include <asm/unistd_64.h>
#include <elf.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "adopt.h"
#include "leaf.h"
#include "shim.h"
#include "stats.h"

#define ENV_ON_STACK 256 /* pointers; more go into a mapping */
#define MAX_SCRIPTS 5 /* as the kernel's own limit of nested interpreters */

static int open_program(int dirfd, const char *path, int flags)
{
	int fd;
	struct stat st;

	// O_PATH first: opening a device or a FIFO for real could have effects.
	fd = (int)sys(__NR_openat, dirfd, path,
		      O_PATH | O_CLOEXEC | (flags & AT_SYMLINK_NOFOLLOW ? O_NOFOLLOW : 0));
	if (fd < 0)
		return fd;
	if (sys_failed(sys(__NR_fstat, fd, &st)) || !S_ISREG(st.st_mode)) {
		sys(__NR_close, fd);
		return -1;
	}
	if (st.st_mode & (S_ISUID | S_ISGID)) {
		sys(__NR_close, fd);
		return -COSY_NATIVE_SETID - 4096;
	}
	sys(__NR_close, fd);
	return (int)sys(__NR_openat, dirfd, path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
}

// Which loader the program asks for.
static enum cosy_native_reason judge_interpreter(int fd, const Elf64_Phdr *ph)
{
	char interp[64];
	long n = sys(__NR_pread64, fd, interp, sizeof(interp) - 1, ph->p_offset);

	if (n <= 0)
		return COSY_NATIVE_FOREIGN;
	interp[n] = 0;
	return str_starts(base_name(interp), "ld-linux-x86-64.so") ? COSY_NATIVE_REASONS :
								     COSY_NATIVE_FOREIGN;
}

// COSY_NATIVE_REASONS: nothing speaks against it. `buf` is ours to use.
static enum cosy_native_reason judge_elf(int fd, u8 *buf, size_t size)
{
	const Elf64_Ehdr eh = *(const Elf64_Ehdr *)buf;
	const Elf64_Phdr *ph = (const void *)buf;
	u32 batch = (u32)(size / sizeof(*ph));

	if (eh.e_ident[EI_CLASS] != ELFCLASS64 || eh.e_machine != EM_X86_64 ||
	    eh.e_phentsize != sizeof(*ph))
		return COSY_NATIVE_FOREIGN;
	if (sys(__NR_fgetxattr, fd, "security.capability", 0, 0) > 0)
		return COSY_NATIVE_SETID;
	for (u32 i = 0; i < eh.e_phnum; i++) {
		if (i % batch == 0 && sys(__NR_pread64, fd, buf, batch * sizeof(*ph),
					  eh.e_phoff + i * sizeof(*ph)) < (long)sizeof(*ph))
			return COSY_NATIVE_FOREIGN;
		if (ph[i % batch].p_type == PT_INTERP)
			return judge_interpreter(fd, &ph[i % batch]);
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

// *key: what the program is known by (leaf.h), untouched if that is not known.
static enum cosy_native_reason judge(int dirfd, const char *path, int flags, u64 *key)
{
	u8 head[2][1024]; // all program headers of a usual program: 13 * 56 bytes
	u32 turn = 0;

	for (int depth = 0; depth < MAX_SCRIPTS; depth++) {
		enum cosy_native_reason reason = COSY_NATIVE_REASONS;
		u8 *buf = head[turn];
		struct stat st;
		long n;
		int fd;

		if (flags & AT_EMPTY_PATH && !*path)
			fd = (int)sys(__NR_fcntl, dirfd, F_DUPFD_CLOEXEC, 3);
		else
			fd = open_program(dirfd, path, flags);
		if (fd <= -4096)
			return (enum cosy_native_reason)(-fd - 4096);
		// Executable but not readable, or no descriptor left: likely fine.
		if (fd < 0)
			return COSY_NATIVE_REASONS;
		if (!depth && !sys_failed(sys(__NR_fstat, fd, &st)))
			*key = leaf_key(&st);
		n = sys(__NR_pread64, fd, buf, sizeof(head[0]), 0);
		if (n >= (long)sizeof(Elf64_Ehdr) && !memcmp(buf, ELFMAG, SELFMAG)) {
			reason = judge_elf(fd, buf, sizeof(head[0]));
			sys(__NR_close, fd);
			return reason;
		}
		sys(__NR_close, fd);
		if (n < 4 || buf[0] != '#' || buf[1] != '!')
			return COSY_NATIVE_REASONS;
		path = script_interpreter(buf, (size_t)n);
		if (!path)
			return COSY_NATIVE_REASONS;
		dirfd = AT_FDCWD;
		flags = 0;
		turn ^= 1;
	}
	return COSY_NATIVE_REASONS;
}

// Would ld.so of the new program find our library and have room for it?
static bool library_in_reach(void)
{
	u64 limit[2];

	return !sys(__NR_faccessat2, AT_FDCWD, config_library(), 4 /* R_OK */, AT_EACCESS) &&
	       !sys(__NR_prlimit64, 0, 9 /* RLIMIT_AS */, 0, limit) && limit[0] == ~0ul;
}

static long exec_with(struct regs *r, u64 envp)
{
	struct regs call = *r;

	call.a[r->nr == __NR_execve ? 2 : 3] = envp;
	return sys_regs(&call);
}

/*
 * The environment for the new program: the old one, our library in front of
 * its LD_PRELOAD, and our orders.
 */
static long exec_with_orders(struct regs *r, const char *const *envp, u32 n, const char **out,
			     char *preload, size_t preload_size)
{
	struct text t = { .at = preload, .size = preload_size };
	u32 k = 0;
	bool placed = false;

	text_add(&t, "LD_PRELOAD=");
	text_add(&t, config_library());
	for (u32 i = 0; i < n; i++) {
		if (!placed && str_starts(envp[i], "LD_PRELOAD=")) {
			const char *rest = envp[i] + sizeof("LD_PRELOAD=") - 1;

			if (*rest) {
				text_add(&t, ":");
				text_add(&t, rest);
			}
			out[k++] = preload;
			placed = true;
		} else {
			out[k++] = envp[i];
		}
	}
	if (!placed)
		out[k++] = preload;
	out[k++] = config_orders();
	out[k] = NULL;
	return exec_with(r, t.cut ? (u64)envp : (u64)out);
}

long follow_exec(struct regs *r)
{
	bool at = r->nr == __NR_execveat;
	const char *const *envp = (const void *)r->a[at ? 3 : 2];
	const char *path = (const void *)r->a[at ? 1 : 0];
	int dirfd = at ? (int)r->a[0] : AT_FDCWD, flags = at ? (int)r->a[4] : 0;
	enum cosy_native_reason reason;
	u64 key = 0;
	u32 n = 0;
	long there;

	// The kernel has its own word for what is no program at all.
	if (!path)
		return sys_regs(r);
	there = sys(__NR_faccessat, dirfd, path, 1 /* X_OK */);
	if (there == -14 /* EFAULT */ || there == -20 /* ENOTDIR */ ||
	    (there == -2 /* ENOENT */ && !(flags & AT_EMPTY_PATH)))
		return sys_regs(r);
	leaf_execs();
	reason = judge(dirfd, path, flags, &key);
	if (reason == COSY_NATIVE_REASONS && !library_in_reach())
		reason = COSY_NATIVE_LIMITED;
	if (reason == COSY_NATIVE_REASONS && key && leaf_pointless(key))
		reason = COSY_NATIVE_LEAF;
	if (reason != COSY_NATIVE_REASONS) {
		stats_native(reason);
		if (cosy_config.mode == COSY_MODE_TRACE)
			adopt_ask(reason == COSY_NATIVE_SETID);
		return sys_regs(r);
	}
	// Whoever set orders itself knows what it does: cosy-auto within cosy-auto.
	for (; envp && envp[n]; n++)
		if (str_starts(envp[n], "COSY_SHIM="))
			return sys_regs(r);
	if (n < ENV_ON_STACK) {
		const char *out[ENV_ON_STACK + 3];
		char preload[1024];

		return exec_with_orders(r, envp, n, out, preload, sizeof(preload));
	}
	// A mapping: it goes with the program that exec replaces. A child of vfork
	// leaves it to its parent, which pays with a few pages once per such exec.
	size_t size = PAGE_UP((n + 3) * sizeof(char *) + 65536);
	char *map = (char *)sys(__NR_mmap, 0, size, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	long ret;

	if (sys_failed((long)map))
		return sys_regs(r);
	ret = exec_with_orders(r, envp, n, (const char **)(map + 65536), map, 65536);
	sys(__NR_munmap, map, size);
	return ret;
}
