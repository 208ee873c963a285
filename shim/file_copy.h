/* SPDX-License-Identifier: MIT */
/*
 * copy_file_range() out of a file that is held. What it copies is the kernel's to do, but that it refuses
 * to copy can be known: cat tries it first, whatever its output is.
 */
#ifndef COSY_FILE_COPY_H
#define COSY_FILE_COPY_H

#include "sys.h"

/* Would the kernel say EXDEV to this call, if its source is a regular file on `dev`, open for reading? */
HIDDEN bool file_copy_refused(const struct regs *r, u32 dev);
/* It said so. */
HIDDEN void file_copy_learn(const struct regs *r);

#endif
