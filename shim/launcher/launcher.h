/* SPDX-License-Identifier: MIT */
/*
 * cosy-auto: runs a program under the shim with the right profile. It is a
 * native program because an interpreter's start alone costs more than all of
 * this. Nothing here is ever a reason not to run the program.
 */
#ifndef COSY_LAUNCHER_H
#define COSY_LAUNCHER_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "cosy_image.h"
#include "cosy_stats.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

enum exit_code {
	EXIT_WORK = 1,
	EXIT_USAGE = 2,
	EXIT_NOT_EXECUTABLE = 126,
	EXIT_NOT_FOUND = 127,
};

/* These run no compound by themselves: one goes along with eBPF, one answers what is known. */
#define EXECUTORS_BESIDE (COSY_EXECUTOR_AHEAD | COSY_EXECUTOR_INLINE)
/* Unless the user says otherwise: the one gains nothing, the other takes another processor's time. */
#define EXECUTORS_USUAL (~(uint32_t)(COSY_EXECUTOR_REFERENCE | COSY_EXECUTOR_AHEAD))
/* What the shim uses without an order: it looks for no module that is not there. */
#define EXECUTORS_UNSAID (EXECUTORS_USUAL & ~(uint32_t)COSY_EXECUTOR_MODULE)

struct options {
	bool stats;
	bool learn;
	bool explain;
	bool strict;
	bool no_record;
	uint32_t executors; /* COSY_EXECUTOR_*, those that may be used */
	const char *profile; /* NULL: by the program's build-id */
	unsigned int max_age_ms; /* 0: the shim's default */
	char **command;
};

/* What is to be executed; a script's program is its interpreter. */
struct program {
	char path[PATH_MAX];
	char build_id[41]; /* in hex; empty: none */
	struct stat file; /* unless it is native */
	const char *native; /* why it cannot run under the shim; NULL: it can */
};

/* Files and folders; an empty string: not there. */
struct places {
	char library[PATH_MAX];
	char loader[PATH_MAX];
	char shipped[PATH_MAX]; /* profile */
	char store[PATH_MAX]; /* folder of the user's profiles */
	char cache[PATH_MAX]; /* the user's cache folder of ours */
	char text[PATH_MAX]; /* below it: patched library text */
	char log[PATH_MAX]; /* and what the learners say */
};

struct profile {
	char path[PATH_MAX];
	const struct cosy_image *image; /* NULL: refused or absent */
	const char *refused; /* why */
};

/* options.c */
void options_parse(struct options *to, int argc, char **argv);
const char *executor_names(uint32_t executors, const char *between);

/* program.c */
int program_find(const char *name, char path[PATH_MAX]);
void program_inspect(struct program *p);

/* task.c */
/* Why nothing runs under the shim here; NULL: it may. Who watches also sees what cosy-auto itself does. */
const char *task_watched(void);
const char *task_trouble(void);

/* places.c */
bool print_path(char path[PATH_MAX], const char *format, ...) __attribute__((format(printf, 2, 3)));
void places_find(struct places *to);

/* profile.c */
void profile_open(struct profile *to, const char *path);
void profile_choose(struct profile *to, const struct options *opt, const struct program *program,
		    const struct places *places);
const struct cosy_compound *profile_compound(const struct profile *p, uint32_t index);
const char *profile_string(const struct profile *p, uint32_t offset);
uint32_t profile_executors(const struct profile *p);

/* executor.c */
/* The kernel module is there, and this user may use it. */
bool executor_module(void);
const char *executor_prepare(const struct places *places);

/* leaf.c */
/* It is short and has never gained anything. Now and then this is false, so that it is tried again. */
bool leaf_asked_in_vain(const struct program *program, const struct places *places);

/* environment.c */
bool environment_loader_tells(void);
char **environment_with(const char *library, const char *orders);

/* run.c */
/* Become the program at `path`, or if that is empty, the one that execvp(3) finds; else a line, and the exit code. */
int be_command(const char *path, char **command, char **env);
int run_wait(const char *path, char **command, char **env, bool *started);
/* `path`: of the file, if there is one. */
int exec_failed(const char *name, const char *path, int error);
void die_as(int status) __attribute__((noreturn));

/* report.c */
struct cosy_stats *stats_create(char path[PATH_MAX]);
void stats_print(const struct cosy_stats *stats, const struct profile *profile, char **command);
/* Of a run that was traced: there is no profile. */
void stats_print_traced(const struct cosy_stats *stats);
/* All that was written to stdout is out: 0, else a line, and the exit code. */
int output_end(void);
void explain(const struct program *program, const struct places *places,
	     const struct profile *profile, const char *native, const char *executor);

/* symbol.c */
/* "function+0x2e" of an address within a library; false: its file does not say. */
bool symbol_name(const char *path, uint64_t offset, char *to, size_t size);

/* learn.c */
const char *learn_prepare(const struct places *places, char dir[PATH_MAX]);
const char *learn_start(void);
void learn_say(const char *command, const struct places *places);

#endif
