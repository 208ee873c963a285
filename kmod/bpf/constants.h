/* SPDX-License-Identifier: GPL-2.0 */
/* What the loader finds out for the program: it lies in the program's .rodata, alone. */
#ifndef COSY_CONSTANTS_H
#define COSY_CONSTANTS_H

struct cosy_constants {
	/* 1 << (32 + EXT4_STATE_XATTR), in ext4_inode_info.i_flags: the enum has no name,
	   so CO-RE cannot relocate it. 0: not known. */
	unsigned long long ext4_state_xattr;
	/* Huge pages are forced on all of tmpfs: it then reports another block size. */
	unsigned long long shmem_huge_forced;
};

#endif
