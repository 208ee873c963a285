/* SPDX-License-Identifier: MIT */
/* The image's compounds at work: when one fires, and what it answers. */
#ifndef COSY_COMPOUND_H
#define COSY_COMPOUND_H

#include "shim.h"

/* How many compounds of the image can run here. */
HIDDEN u32 compounds_start(void);
/* May this call trigger or be answered by one of them? */
HIDDEN bool compounds_want(u32 nr);
/* Has any of them run in this process? */
HIDDEN bool compounds_ran(void);
/* A call that does: answered, or passed to the kernel. */
HIDDEN long compound_call(struct regs *r);
/* Reads and writes that were watched since a file was opened; about so many, with threads. */
extern HIDDEN u32 watched_transfers;
/* Files that were opened, no directories; about so many, with threads. */
extern HIDDEN u64 opened_files;
/* Something was opened, a directory for certain or perhaps. */
struct opening {
	int dirfd;
	const char *path;
	int fd;
	bool directory; /* for certain */
	bool plain; /* by open_plain() and from the working directory: the path can be known */
	u64 epoch, tsc; /* of before */
};
HIDDEN void compound_opened(const struct opening *o);
/* Entries were read: `bytes` of struct linux_dirent64 at buf, which has room for `size`. */
HIDDEN void compound_scanned(u64 fd, const void *buf, u64 bytes, u64 size);

/* exec.c */
/*
 * Watch the calls that have news only for a process that holds results. False:
 * this process must hold none.
 */
HIDDEN bool exec_arm(void);
/* Give up all results and look at no call that is only about them; begin again. */
HIDDEN void exec_rest(void);
HIDDEN void exec_wake(void);
/* Is there, or was there, another thread that could meet a descriptor of ours? */
HIDDEN bool exec_shares_descriptors(void);
/* A directory was opened, or read: from now on calls are looked at. */
HIDDEN void exec_directory(void);
/*
 * A file in it was asked about: the image, and room for results. False: there is nothing to do in
 * this process.
 */
HIDDEN bool exec_load(void);
/* Something happened that the shim cannot follow: interpose only, from now on. */
HIDDEN void exec_disarm(int native_reason);

#endif
