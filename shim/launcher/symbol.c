// SPDX-License-Identifier: MIT
/* Names of functions, from the dynamic symbol table of a library's file. */
#include "launcher.h"

#include <elf.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct file {
	const unsigned char *data;
	size_t size;
};

static const void *part(const struct file *f, uint64_t at, uint64_t size)
{
	return at <= f->size && size <= f->size - at ? f->data + at : NULL;
}

static const Elf64_Shdr *section(const struct file *f, const Elf64_Ehdr *eh, uint32_t index)
{
	if (index >= eh->e_shnum || eh->e_shentsize != sizeof(Elf64_Shdr))
		return NULL;
	return part(f, eh->e_shoff + index * sizeof(Elf64_Shdr), sizeof(Elf64_Shdr));
}

/* Of several names of one function: the public one, the shorter one. */
static bool better(const char *name, const char *than)
{
	return !than || (name[0] != '_' && than[0] == '_') ||
	       ((name[0] == '_') == (than[0] == '_') && strlen(name) < strlen(than));
}

static const char *find(const struct file *f, const Elf64_Shdr *table, const Elf64_Shdr *strings,
			uint64_t offset, uint64_t *start)
{
	uint64_t n = table->sh_size / sizeof(Elf64_Sym);
	const Elf64_Sym *symbols = part(f, table->sh_offset, n * sizeof(Elf64_Sym));
	const char *text = part(f, strings->sh_offset, strings->sh_size), *found = NULL;

	if (!symbols || !text || !strings->sh_size || text[strings->sh_size - 1])
		return NULL;
	for (uint64_t i = 0; i < n; i++) {
		const Elf64_Sym *s = &symbols[i];

		if (ELF64_ST_TYPE(s->st_info) != STT_FUNC || offset < s->st_value ||
		    offset - s->st_value > s->st_size || s->st_name >= strings->sh_size ||
		    !better(text + s->st_name, found))
			continue;
		found = text + s->st_name;
		*start = s->st_value;
	}
	return found;
}

static bool name_in(const struct file *f, uint64_t offset, char *to, size_t size)
{
	const Elf64_Ehdr *eh = part(f, 0, sizeof(*eh));
	const Elf64_Shdr *table, *strings;
	const char *name;
	uint64_t start;

	if (!eh || memcmp(eh->e_ident, ELFMAG, SELFMAG) || eh->e_ident[EI_CLASS] != ELFCLASS64)
		return false;
	for (uint32_t i = 0; (table = section(f, eh, i)); i++) {
		if (table->sh_type != SHT_DYNSYM || !(strings = section(f, eh, table->sh_link)))
			continue;
		name = find(f, table, strings, offset, &start);
		if (name)
			snprintf(to, size, "%s+0x%" PRIx64, name, offset - start);
		return name;
	}
	return false;
}

bool symbol_name(const char *path, uint64_t offset, char *to, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct file f;
	struct stat st;
	bool found;

	if (fd < 0)
		return false;
	f.size = !fstat(fd, &st) && S_ISREG(st.st_mode) ? (size_t)st.st_size : 0;
	f.data = f.size ? mmap(NULL, f.size, PROT_READ, MAP_PRIVATE, fd, 0) : MAP_FAILED;
	close(fd);
	if (f.data == MAP_FAILED)
		return false;
	found = name_in(&f, offset, to, size);
	munmap((void *)f.data, f.size);
	return found;
}
