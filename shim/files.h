/* SPDX-License-Identifier: MIT */
/*
 * Files that are answered without a descriptor. A program that opens one small file after
 * the other, reads it to its end and closes it, gets all of that from what an executor read
 * ahead (file_batch.h). The number that open returns is the one that the kernel would give; it
 * is made real, by the same open, before any call that could tell the difference.
 */
#ifndef COSY_FILES_H
#define COSY_FILES_H

#include "image.h"
#include "sys.h"

/* What an open was that the kernel made. */
struct file_open {
	int dirfd;
	const char *path;
	u64 flags;
	int fd;
};

/* Files are answered in this process: every call comes through files_call(). */
extern HIDDEN bool files_on;

/* Does this compound say that files may be read ahead? Then it is the one that lets us. */
HIDDEN bool files_adopt(u32 ci, const struct cosy_compound *c);
/* While files_on: may this call be about descriptors in any way? */
HIDDEN bool files_wants(u64 nr);
/* The kernel opened something: perhaps one file of many. */
HIDDEN void files_opened(const struct file_open *o);
/* While files_on: any call, by us or by `kernel`. */
HIDDEN __attribute__((noinline)) long files_call(struct regs *r, long (*kernel)(struct regs *));
/* A child or a thread is about to be made. For good: it will have our memory. */
HIDDEN void files_before_child(bool for_good);

/* exec.c */
/* Let all calls come here from now on. False: nothing may run ahead in this process. */
HIDDEN bool exec_watch_files(void);
/* No more than before. */
HIDDEN void exec_leave_files(void);

#endif
