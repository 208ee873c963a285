// SPDX-License-Identifier: MIT
#include "launcher.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <locale.h>
#include <unistd.h>

#include "cosy_module.h"

#define MAX_ORDERS 4000 /* the shim keeps 4096 bytes with the variable's name */

/* All that was found out about the command, and what will be done with it. */
struct plan {
	struct options opt;
	struct program program;
	struct places places;
	struct profile profile;
	const char *native; /* why the program runs without us; NULL: it does not */
	const char *executor; /* why the executor is not there; NULL: it is */
	uint32_t executors; /* COSY_EXECUTOR_*: those to be used, of those that are there */
	char trace[PATH_MAX]; /* --learn: folder for the raw trace */
	char stats[PATH_MAX];
	char orders[MAX_ORDERS];
};

static const char profile_refused[] = "its profile is refused";

static const char *library_trouble(const char *library)
{
	int fd;

	if (!library[0])
		return "libcosy.so is not where it belongs (COSY_NATIVE_DIR names its folder)";
	// ld.so(8): the list is separated by colons and spaces, without any quoting.
	if (strpbrk(library, ": "))
		return "the library's path holds a colon or a space";
	// The loader would complain. Permission alone does not say it: Landlock lets access pass.
	fd = open(library, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return "libcosy.so cannot be read";
	close(fd);
	return NULL;
}

static void plan_execution(struct plan *p)
{
	uint32_t executors;

	profile_choose(&p->profile, &p->opt, &p->program, &p->places);
	executors = profile_executors(&p->profile);
	// What scans a directory for one does so for the other.
	if (executors & COSY_EXECUTOR_BPF)
		executors |= COSY_EXECUTOR_MODULE;
	executors &= p->opt.executors;
	p->executors = p->opt.executors;
	if (!(executors & COSY_EXECUTOR_MODULE && executor_module()))
		p->executors &= ~(uint32_t)COSY_EXECUTOR_MODULE;
	if (!p->opt.executors)
		p->executor = "none: only watching, as asked";
	else if (p->executors & COSY_EXECUTOR_MODULE)
		p->executor = NULL;
	else if (executors & COSY_EXECUTOR_BPF)
		p->executor = executor_prepare(&p->places);
	else if (executors & COSY_EXECUTOR_MODULE)
		p->executor = "the kernel module is not loaded, or " COSY_DEVICE
			      " is not for this user: see docs/kernel-module.md";
	else if (!(executors & COSY_EXECUTOR_REFERENCE))
		p->executor = p->opt.executors & ~(uint32_t)EXECUTORS_BESIDE ?
				      "none of the profile's is among those allowed" :
				      "ahead and inline go along with another: allow bpf or module";
	// Plain calls need nobody else.
	if (executors & COSY_EXECUTOR_REFERENCE)
		p->executor = NULL;
	if (p->native)
		return;
	if (p->profile.refused)
		p->native = profile_refused;
	else if (p->executor && p->opt.executors)
		p->native = p->executor;
	else if (strchr(p->profile.path, ';'))
		p->native = "the profile's path holds a semicolon";
}

static void plan_orders(struct plan *p)
{
	size_t at = 0;
	const char *mode = p->opt.learn ? "trace" : p->executor ? "pass" : "exec";

#define ADD(...)                                                                                   \
	do {                                                                                       \
		if (at < sizeof(p->orders))                                                        \
			at += (size_t)snprintf(p->orders + at, sizeof(p->orders) - at,             \
					       __VA_ARGS__);                                       \
	} while (0)
	ADD("mode=%s", mode);
	if (p->opt.learn)
		ADD(";dir=%s", p->trace);
	else if (!p->executor)
		ADD(";image=%s", p->profile.path);
	if (p->places.text[0] && !strchr(p->places.text, ';'))
		ADD(";cache=%s", p->places.text);
	if (p->opt.max_age_ms)
		ADD(";max_age_ms=%u", p->opt.max_age_ms);
	if (p->opt.strict)
		ADD(";strict=1");
	if (p->opt.no_record)
		ADD(";record=0");
	if (p->executors && p->executors != EXECUTORS_UNSAID)
		ADD(";executors=%s", executor_names(p->executors, "+"));
	if (p->stats[0])
		ADD(";stats=%s", p->stats);
#undef ADD
	if (at >= sizeof(p->orders))
		p->native = "its paths are too long";
}

static void say_native(const struct plan *p)
{
	const char *what = p->opt.command[0];

	if (p->native == profile_refused)
		fprintf(stderr, "cosy-auto: %s ran native: profile %s is refused: %s\n", what,
			p->profile.path, p->profile.refused);
	else
		fprintf(stderr, "cosy-auto: %s ran native: %s\n", what, p->native);
}

/* Start to learn, and say what is to be said after the program's end. */
static void tell(const struct plan *p, const struct cosy_stats *stats)
{
	const char *what = p->opt.command[0], *trouble = p->native;

	setlocale(LC_NUMERIC, "");
	if (p->opt.learn && !trouble)
		trouble = learn_start();
	if (p->opt.learn && trouble)
		fprintf(stderr, "cosy-auto: %s: nothing learnt: %s\n", what, trouble);
	else if (p->opt.learn && p->opt.stats)
		learn_say(what, &p->places);
	else if (trouble)
		say_native(p);
	if (!stats || p->native)
		return;
	if (p->opt.learn)
		stats_print_traced(stats);
	else
		stats_print(stats, &p->profile, p->opt.command);
}

/* --stats and --learn: the program is a child, and there is work after its end. */
static int run_and_tell(struct plan *p)
{
	struct cosy_stats *stats = NULL;
	char **env = environ;
	bool started;
	int status;

	if (p->opt.learn && !p->native)
		p->native = learn_prepare(&p->places, p->trace);
	if (p->opt.stats && !p->native)
		stats = stats_create(p->stats);
	plan_orders(p);
	if (!p->native)
		env = environment_with(p->places.library, p->orders) ?: environ;
	status = run_wait(p->program.path, p->opt.command, env, &started);
	if (started)
		tell(p, stats);
	else if (p->opt.learn)
		rmdir(p->trace); // the keeper has nothing to keep
	if (stats)
		unlink(p->stats);
	die_as(status);
}

/* Nothing but the command: whoever says more wants to see it done. */
static bool usual(const struct options *opt)
{
	return !opt->stats && !opt->learn && !opt->explain && !opt->strict && !opt->profile &&
	       !opt->max_age_ms && opt->executors == EXECUTORS_USUAL;
}

int main(int argc, char **argv)
{
	static struct plan p;
	char **env = environ;
	int error;

	options_parse(&p.opt, argc, argv);
	p.native = task_watched();
	if (!p.native || p.opt.explain) {
		error = program_find(p.opt.command[0], p.program.path);
		if (error)
			return exec_failed(p.opt.command[0], p.program.path, error);
		program_inspect(&p.program);
		places_find(&p.places);
	}
	p.native = p.native ?: p.program.native ?: task_trouble();
	if (!p.native)
		p.native = library_trouble(p.places.library);
	if (!p.native && usual(&p.opt) && leaf_asked_in_vain(&p.program, &p.places))
		p.native = "it is short, and has gained nothing so far";
	if (p.opt.explain || (!p.opt.learn && !p.native))
		plan_execution(&p);
	if (p.opt.explain) {
		explain(&p.program, &p.places, &p.profile, p.native, p.executor);
		return output_end();
	}
	if (p.opt.stats || p.opt.learn)
		return run_and_tell(&p);
	if (!p.native)
		plan_orders(&p);
	if (!p.native)
		env = environment_with(p.places.library, p.orders) ?: environ;
	return be_command(p.program.path, p.opt.command, env);
}
