/* SPDX-License-Identifier: MIT */
/* What the shim's files share: configuration, modes, and the process state. */
#ifndef COSY_SHIM_H
#define COSY_SHIM_H

#include "gate.h"
#include "sys.h"

/* What every process writes as it starts lies together: a page less costs an exec a fault less. */
#define AT_START __attribute__((section(".data")))

enum cosy_mode { COSY_MODE_OFF, COSY_MODE_PASS, COSY_MODE_TRACE, COSY_MODE_EXEC };

/*
 * The orders of this process, from the environment variable COSY_SHIM
 * (docs/architecture.md). Strings point into storage of the shim's own.
 */
struct cosy_config {
	enum cosy_mode mode;
	const char *cache; /* folder of pre-patched text, or NULL */
	const char *dir; /* folder of raw trace files (trace mode) */
	const char *image; /* profile image (exec mode) */
	const char *stats; /* file of struct cosy_stats, or NULL */
	const char *program; /* what was executed, or NULL; valid until the program runs */
	const char *end_of_arguments; /* of their strings, which lie behind each other */
	const void *headers; /* of the program, as it is mapped (Elf64_Phdr) */
	u64 n_headers;
	bool no_record; /* of the run */
	u64 max_age_ms;
	bool block; /* trace mode: wait for room rather than lose events */
	bool strict; /* every read of a file ends the epoch */
	u32 executors; /* COSY_EXECUTOR_*: those that may be used */
	u64 nofence; /* fences left out, by enum cosy_fence; tests only */
};

extern HIDDEN struct cosy_config cosy_config;

/* What to do with a call, by number; 0: straight to the kernel, from the stub. */
extern HIDDEN u8 cosy_actions[COSY_ACTIONS] AT_START;
/* stub.c: stubs look at copies, which follow. */
HIDDEN void action_change(u64 nr, u8 action);
/* All of it was written anew, and nobody else does that. */
HIDDEN void actions_changed(void);
extern HIDDEN long (*cosy_hook)(struct regs *r);
extern HIDDEN void (*cosy_hook_before)(struct regs *r);
/* Before a handler of the program, unless NULL; gets its ucontext_t. */
extern HIDDEN void (*cosy_hook_signal)(void *context);
extern HIDDEN u64 cosy_epoch;
extern HIDDEN void *cosy_handlers[65];
extern HIDDEN u8 cosy_entry[], cosy_signal_entry[], cosy_gates[];

/* config.c: read the orders and hide them from the program. */
HIDDEN bool config_take(char **envp);
/* What to add at exec: "COSY_SHIM=..." and our own file for LD_PRELOAD. */
HIDDEN const char *config_orders(void);
HIDDEN const char *config_library(void);

/* gate.c: patch the text of the libraries that make system calls. */
HIDDEN bool gates_open(void);
/* A library came by dlopen: its text is at [text, text + len), file at fd. */
HIDDEN void gates_add(u8 *text, size_t len, int fd);

/* follow.c, pass.c: into new programs and new libraries. */
HIDDEN long follow_exec(struct regs *r);
/* mmap, and patching of what it maps for execution (dlopen). */
HIDDEN long follow_mmap(struct regs *r);

/* signal.c: rt_sigaction, with every handler entered through entry.S; not `ours`: of a process that has our memory. */
HIDDEN long signal_action(struct regs *r, bool ours);
/* Nothing is put in between any more, but what was may still be there. */
HIDDEN long signal_action_passed(struct regs *r);

/* pass.c, trace.c, exec.c: the three modes. */
/* Of the calls that every mode follows: make it, with what that takes. */
HIDDEN long pass_call(struct regs *r);
HIDDEN void pass_start(void);
HIDDEN void trace_start(void);
HIDDEN void exec_start(void);

#endif
