// SPDX-License-Identifier: MIT
#include "build_id.h"

static bool take(u8 id[BUILD_ID_SIZE], const u8 *note, size_t len)
{
	while (len >= sizeof(Elf64_Nhdr)) {
		const Elf64_Nhdr *n = (const void *)note;
		size_t name = (n->n_namesz + 3) & ~3ul, desc = (n->n_descsz + 3) & ~3ul;

		if (name > len || desc > len || sizeof(*n) + name + desc > len)
			return false;
		if (n->n_type == NT_GNU_BUILD_ID && n->n_namesz == 4 &&
		    n->n_descsz <= BUILD_ID_SIZE) {
			memcpy(id, note + sizeof(*n) + name, n->n_descsz);
			return true;
		}
		note += sizeof(*n) + name + desc;
		len -= sizeof(*n) + name + desc;
	}
	return false;
}

bool build_id_take(u8 id[BUILD_ID_SIZE], const Elf64_Phdr *headers, size_t n, u64 bias)
{
	memset(id, 0, BUILD_ID_SIZE);
	for (size_t i = 0; i < n; i++)
		if (headers[i].p_type == PT_NOTE &&
		    take(id, (const u8 *)bias + headers[i].p_vaddr, headers[i].p_memsz))
			return true;
	return false;
}
