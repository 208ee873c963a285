// SPDX-License-Identifier: MIT
/*
 * Go's runtime has system call instructions of its own, which nobody sees, in programs that are
 * linked with the C library as well (cgo), and in libraries. Go's linker leaves a note, the build
 * id of cmd/go. Asked once, before anything runs ahead: a start costs nothing more.
 */
#include "foreign.h"

#include <asm/unistd_64.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>

#include "mem.h"

#define NT_GO_BUILD_ID 4
#define AUXV_MOST 64

static bool is_go(const u8 *note, size_t len)
{
	while (len >= sizeof(Elf64_Nhdr)) {
		const Elf64_Nhdr *n = (const void *)note;
		u64 size = sizeof(*n) + ((n->n_namesz + 3ul) & ~3ul) + ((n->n_descsz + 3ul) & ~3ul);

		if (size > len)
			return false;
		if (n->n_type == NT_GO_BUILD_ID && n->n_namesz == 4 && !memcmp(n + 1, "Go\0", 4))
			return true;
		note += size;
		len -= size;
	}
	return false;
}

static bool has_note(u64 base, const Elf64_Phdr *ph, u64 n)
{
	for (u64 i = 0; i < n; i++)
		if (ph[i].p_type == PT_NOTE &&
		    is_go((const u8 *)(base + ph[i].p_vaddr), ph[i].p_memsz))
			return true;
	return false;
}

// Where the program's headers are, only the kernel says: without a fixed place, or with one.
static bool program_has_note(u64 base)
{
	Elf64_auxv_t auxv[AUXV_MOST];
	int fd = (int)sys(__NR_openat, AT_FDCWD, "/proc/self/auxv", O_RDONLY | O_CLOEXEC);
	const Elf64_Phdr *ph = NULL;
	u64 n = 0;
	long bytes;

	if (fd < 0)
		return false;
	bytes = sys(__NR_read, fd, auxv, sizeof(auxv));
	sys(__NR_close, fd);
	for (long i = 0; i < bytes / (long)sizeof(*auxv); i++) {
		if (auxv[i].a_type == AT_PHDR)
			ph = (const void *)auxv[i].a_un.a_val;
		else if (auxv[i].a_type == AT_PHNUM)
			n = auxv[i].a_un.a_val;
	}
	return ph && has_note(base, ph, n);
}

// Headers that are not in the first page, as those of odd linkers, are not looked for.
static bool library_has_note(u64 base)
{
	const Elf64_Ehdr *eh = (const void *)base;

	if (!base || base % PAGE_SIZE || !mem_page_readable(eh) ||
	    memcmp(eh->e_ident, ELFMAG, SELFMAG) || eh->e_phentsize != sizeof(Elf64_Phdr) ||
	    eh->e_phoff + eh->e_phnum * sizeof(Elf64_Phdr) > PAGE_SIZE)
		return false;
	return has_note(base, (const void *)(base + eh->e_phoff), eh->e_phnum);
}

bool foreign_calls(void)
{
	const struct link_map *program = _r_debug.r_map;

	if (!program)
		return false;
	for (const struct link_map *l = program->l_next; l; l = l->l_next)
		if (library_has_note(l->l_addr))
			return true;
	return program_has_note(program->l_addr);
}
