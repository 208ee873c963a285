/* SPDX-License-Identifier: MIT */
#ifndef COSY_PATH_H
#define COSY_PATH_H

#include "core.h"

/*
 * `path`, as it is named from the folder `base`, in lexical normal form where it has "." or "//" in it (Python's
 * posixpath.normpath). `to` has room for both and two bytes more; returns the length.
 */
u64 path_join(const u8 *base, u64 base_len, const u8 *path, u64 len, u8 *to);

#endif
