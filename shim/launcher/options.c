// SPDX-License-Identifier: MIT
#include "launcher.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
	"Usage: cosy-auto [OPTION]... [--] COMMAND [ARGUMENT]...\n"
	"\n"
	"Run COMMAND with its hot system call sequences fused. Same output, exit\n"
	"code, signals and process id as without.\n"
	"\n"
	"  --stats          afterwards, say on stderr what was fused, and why not\n"
	"  --learn          trace this run, and learn a profile from it afterwards\n"
	"  --explain        say what would be done; do not run COMMAND\n"
	"  --executor LIST  use only these: module,bpf,inline; none: only watch. Off unless\n"
	"                   named: ahead, beside bpf: a thread on another processor reads\n"
	"                   directories ahead; reference: plain calls, which prove a profile\n"
	"                   right but gain nothing. One that is not here is no error:\n"
	"                   COMMAND runs as it is, and --stats says why\n"
	"  --profile FILE   use this profile image instead of the program's own\n"
	"  --max-age MS     answers older than this are never used [100]\n"
	"  --strict         let every read of a file end what is known: slower, and safe\n"
	"                   even for processes that signal each other through file contents\n"
	"  --no-record      leave no record of what this run saved (see cosy-mine --validate)\n"
	"  --help, --version\n"
	"\n"
	"Exit code: COMMAND's own; 126 it cannot be executed, 127 it was not found,\n"
	"2 wrong usage.\n";

static const struct {
	const char *name;
	uint32_t bit;
} executors[] = {
	{ "bpf", COSY_EXECUTOR_BPF },
	{ "module", COSY_EXECUTOR_MODULE },
	{ "ahead", COSY_EXECUTOR_AHEAD },
	{ "inline", COSY_EXECUTOR_INLINE },
	{ "reference", COSY_EXECUTOR_REFERENCE },
};

static void __attribute__((noreturn)) usage(const char *what, const char *on, const char *advice)
{
	fprintf(stderr, "cosy-auto: %s: %s: %s\n", what, on, advice);
	exit(EXIT_USAGE);
}

const char *executor_names(uint32_t set, const char *between)
{
	static char names[64];

	names[0] = 0;
	for (size_t i = 0; i < ARRAY_SIZE(executors); i++) {
		if (!(set & executors[i].bit))
			continue;
		if (names[0])
			strcat(names, between);
		strcat(names, executors[i].name);
	}
	return names[0] ? names : "none";
}

static uint32_t parse_executors(const char *list)
{
	uint32_t set = 0;

	if (!strcmp(list, "none"))
		return 0;
	while (*list) {
		size_t len = strcspn(list, ",");
		uint32_t bit = 0;

		for (size_t i = 0; i < ARRAY_SIZE(executors); i++) {
			if (strlen(executors[i].name) == len &&
			    !strncmp(list, executors[i].name, len))
				bit = executors[i].bit;
		}
		if (!bit)
			usage("no such executor", list,
			      "use bpf, module, inline, ahead, reference or none");
		set |= bit;
		list += len;
		list += *list == ',';
	}
	return set;
}

static unsigned int parse_age(const char *text)
{
	char *end;
	long value = strtol(text, &end, 10);

	if (end == text || *end || value < 1 || value > 60000)
		usage("wrong --max-age", text, "give milliseconds, 1 to 60000");
	return (unsigned int)value;
}

/* The value of `--name VALUE` or `--name=VALUE`, NULL: another option. */
static const char *value_of(const char *name, char ***at)
{
	size_t len = strlen(name);
	const char *value;

	if (strncmp(**at, name, len) || ((**at)[len] && (**at)[len] != '='))
		return NULL;
	value = (**at)[len] ? **at + len + 1 : *++*at;
	if (!value || !*value)
		usage("option without a value", name, "see cosy-auto --help");
	return value;
}

/* A traced run answers nothing and says no profile: what is asked of it would be ignored. */
static void refuse_with_learn(const struct options *opt)
{
	const char *other = opt->profile		      ? "--profile" :
			    opt->executors != EXECUTORS_USUAL ? "--executor" :
			    opt->max_age_ms		      ? "--max-age" :
			    opt->strict			      ? "--strict" :
			    opt->explain		      ? "--explain" :
								NULL;

	if (opt->learn && other)
		usage("not together with --learn", other, "a traced run is served by no profile");
}

void options_parse(struct options *to, int argc, char **argv)
{
	char **at = argv + (argc > 0);
	const char *value;

	*to = (struct options){ .executors = EXECUTORS_USUAL };
	for (; *at && (*at)[0] == '-'; at++) {
		if (!strcmp(*at, "--")) {
			at++;
			break;
		}
		if (!strcmp(*at, "--help")) {
			fputs(help, stdout);
			exit(output_end());
		}
		if (!strcmp(*at, "--version")) {
			puts("cosy-auto " COSY_VERSION);
			exit(output_end());
		}
		if (!strcmp(*at, "--stats"))
			to->stats = true;
		else if (!strcmp(*at, "--strict"))
			to->strict = true;
		else if (!strcmp(*at, "--learn"))
			to->learn = true;
		else if (!strcmp(*at, "--no-record"))
			to->no_record = true;
		else if (!strcmp(*at, "--explain"))
			to->explain = true;
		else if ((value = value_of("--executor", &at)))
			to->executors = parse_executors(value);
		else if ((value = value_of("--profile", &at)))
			to->profile = value;
		else if ((value = value_of("--max-age", &at)))
			to->max_age_ms = parse_age(value);
		else
			usage("no such option", *at, "see cosy-auto --help");
	}
	refuse_with_learn(to);
	if (!*at)
		usage("nothing to run", "no command given", "see cosy-auto --help");
	to->command = at;
}
