/* SPDX-License-Identifier: MIT */
/* The number by which a build of a program, or of a library, is known. */
#ifndef COSY_BUILD_ID_H
#define COSY_BUILD_ID_H

#include <elf.h>

#include "sys.h"

#define BUILD_ID_SIZE 20

/* From the notes of what is mapped `bias` above its addresses; zero-padded. False: it has none. */
HIDDEN bool build_id_take(u8 id[BUILD_ID_SIZE], const Elf64_Phdr *headers, size_t n, u64 bias);

#endif
