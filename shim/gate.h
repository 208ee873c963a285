/* SPDX-License-Identifier: MIT */
/* Where stubs live and what one looks like; shared by C and assembly. */
#ifndef COSY_GATE_H
#define COSY_GATE_H

#define COSY_ACTIONS 512 /* entries of cosy_actions[] */
/* Actions that entry.S knows, the only ones with the highest bit set. */
#define COSY_ACTION_FCNTL 0x80 /* its commands 1 to 4 (get and set flags) pass unseen */
#define COSY_ACTION_CLONE 0x81 /* cosy_hook_before: the call may return twice or on another stack */

/*
 * The gate area: 64 MiB of address space inside the library's own mapping. A
 * library's stubs lie at a constant distance from its load address, so that
 * its patched text can come from a file shared by all processes.
 */
#define GATES_SIZE 0x4000000

#define STUB_SIZE 64
#define STUB_SYSCALL 2 /* bytes in front of the tail: the call itself */
#define STUB_SITE 56 /* quad: from itself to behind the system call instruction */

#endif
