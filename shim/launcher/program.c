// SPDX-License-Identifier: MIT
/*
 * Which file a command names, and whether the shim can live in it. Whatever
 * cannot be read or understood here is simply run.
 */
#include "launcher.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define MAX_SCRIPTS 5 /* nested interpreters, as the kernel allows */
#define MAX_HEADERS 512
#define MAX_NOTE 4096 /* bytes of one note segment that are looked at */

static const char loader_path[] = "/lib64/ld-linux-x86-64.so.2";

/* 0 or an errno: whether exec would take this file. */
static int executable(const char *path)
{
	struct stat st;

	if (stat(path, &st))
		return errno;
	if (!S_ISREG(st.st_mode) || faccessat(AT_FDCWD, path, X_OK, AT_EACCESS))
		return EACCES;
	return 0;
}

/* The file that execvp(3) would run: 0, or ENOENT, or why it cannot be executed. */
int program_find(const char *name, char path[PATH_MAX])
{
	const char *at = getenv("PATH");
	int error = ENOENT;

	if (!*name)
		return ENOENT;
	if (strchr(name, '/')) {
		if (!print_path(path, "%s", name))
			return ENAMETOOLONG;
		return executable(path);
	}
	for (at = at ? at : "/bin:/usr/bin";; at++) {
		int len = (int)strcspn(at, ":");
		int found = ENOENT;

		if (print_path(path, "%.*s%s%s", len, at, len ? "/" : "", name))
			found = executable(path);
		if (!found)
			return 0;
		if (found == EACCES)
			error = EACCES;
		at += len;
		if (!*at)
			return error;
	}
}

static bool privileged(int fd, const struct stat *st)
{
	return st->st_mode & (S_ISUID | S_ISGID) ||
	       fgetxattr(fd, "security.capability", NULL, 0) > 0;
}

/* The first line of a script: the interpreter's path. */
static bool script_interpreter(const char *head, size_t size, char path[PATH_MAX])
{
	size_t at = 2, len;

	while (at < size && (head[at] == ' ' || head[at] == '\t'))
		at++;
	for (len = 0; at + len < size && !strchr(" \t\n", head[at + len]); len++)
		;
	return len && at + len < size && print_path(path, "%.*s", (int)len, head + at);
}

static void take_build_id(const unsigned char *note, size_t size, char hex[41])
{
	size_t at = 0;

	while (at + sizeof(Elf64_Nhdr) <= size) {
		Elf64_Nhdr head;
		size_t name, desc;

		memcpy(&head, note + at, sizeof(head));
		name = at + sizeof(head);
		desc = name + ((head.n_namesz + 3ul) & ~3ul);
		at = desc + ((head.n_descsz + 3ul) & ~3ul);
		if (desc > size || head.n_descsz > size - desc)
			return;
		if (head.n_type != NT_GNU_BUILD_ID || head.n_descsz != 20 || head.n_namesz != 4 ||
		    memcmp(note + name, "GNU", 4))
			continue;
		for (size_t i = 0; i < 20; i++)
			sprintf(hex + 2 * i, "%02x", note[desc + i]);
		return;
	}
}

/* What one program header says about the program. */
static void take_header(int fd, const Elf64_Phdr *ph, struct program *p, bool *dynamic)
{
	unsigned char data[MAX_NOTE];
	ssize_t n;

	if (ph->p_type != PT_INTERP && ph->p_type != PT_NOTE)
		return;
	n = pread(fd, data, ph->p_filesz < sizeof(data) ? ph->p_filesz : sizeof(data),
		  (off_t)ph->p_offset);
	if (n <= 0)
		return;
	if (ph->p_type == PT_NOTE) {
		if (!p->build_id[0])
			take_build_id(data, (size_t)n, p->build_id);
		return;
	}
	*dynamic = true;
	if ((size_t)n != sizeof(loader_path) || memcmp(data, loader_path, sizeof(loader_path)))
		p->native = "another C library or ABI";
}

static void inspect_elf(int fd, const Elf64_Ehdr *eh, struct program *p)
{
	Elf64_Phdr headers[MAX_HEADERS];
	bool dynamic = false;
	ssize_t n;

	if (eh->e_ident[EI_CLASS] != ELFCLASS64 || eh->e_machine != EM_X86_64 ||
	    eh->e_phentsize != sizeof(Elf64_Phdr) || eh->e_phnum > MAX_HEADERS) {
		p->native = "not a 64-bit x86 program";
		return;
	}
	n = pread(fd, headers, eh->e_phnum * sizeof(*headers), (off_t)eh->e_phoff);
	for (ssize_t i = 0; (i + 1) * (ssize_t)sizeof(*headers) <= n; i++)
		take_header(fd, &headers[i], p, &dynamic);
	if (!dynamic)
		p->native = "statically linked: it loads no library";
}

/* Follows scripts to their interpreter, and fills in all but the first path. */
void program_inspect(struct program *p)
{
	char path[PATH_MAX];

	p->native = NULL;
	p->build_id[0] = 0;
	strcpy(path, p->path);
	for (int level = 0; level < MAX_SCRIPTS; level++) {
		union {
			char bytes[256]; // BINPRM_BUF_SIZE: all that the kernel looks at
			Elf64_Ehdr elf;
		} head = { 0 };
		int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
		struct stat st;
		ssize_t n;

		if (fd < 0 || fstat(fd, &st)) {
			p->native = "its file cannot be read";
			return;
		}
		if (!level)
			p->file = st;
		n = pread(fd, head.bytes, sizeof(head.bytes), 0);
		if (n >= (ssize_t)sizeof(head.elf) && !memcmp(head.bytes, ELFMAG, SELFMAG)) {
			if (privileged(fd, &st))
				p->native =
					"set-id or file capabilities: the loader refuses libraries";
			else
				inspect_elf(fd, &head.elf, p);
			close(fd);
			return;
		}
		close(fd);
		if (n < 4 || memcmp(head.bytes, "#!", 2) ||
		    !script_interpreter(head.bytes, (size_t)n, path))
			return; // execvp(3) gives a plain text file to the shell
	}
}
