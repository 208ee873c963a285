// SPDX-License-Identifier: MIT
/* What --stats and --explain print: the one reader of struct cosy_stats. */
#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "cosy_bpf.h"

#define STATS_SIZE 16384
#define SITE_WIDTH 28

static const char *const natives[] = {
	[COSY_NATIVE_STATIC] = "statically linked",
	[COSY_NATIVE_FOREIGN] = "another ABI or C library",
	[COSY_NATIVE_SETID] = "set-id, file capabilities, other effective ids",
	[COSY_NATIVE_LIMITED] = "no room in the address space or the arguments",
	[COSY_NATIVE_SANDBOX] = "went under seccomp",
	[COSY_NATIVE_WATCHED] = "watched by ptrace, seccomp or audit",
	[COSY_NATIVE_IMAGE_ABSENT] = "no profile",
	[COSY_NATIVE_IMAGE_OWNER] = "profile is someone else's, or others may write to it",
	[COSY_NATIVE_IMAGE_CORRUPT] = "profile is corrupt",
	[COSY_NATIVE_NO_EXECUTOR] = "no executor",
	[COSY_NATIVE_UNPATCHED] = "C library could not be patched",
	[COSY_NATIVE_IO_URING] = "drives io_uring itself",
	[COSY_NATIVE_OWN_CALLS] = "makes system calls of its own (Go)",
	[COSY_NATIVE_SHARING] = "shares descriptors or memory beyond our sight",
	[COSY_NATIVE_SHARED_MAPS] = "too many files mapped for writing",
	[COSY_NATIVE_LEAF] = "never gained before",
	[COSY_NATIVE_LOADER] = "the loader says what it loads",
};
_Static_assert(ARRAY_SIZE(natives) == COSY_NATIVE_REASONS, "a reason without a text");

static const char *const declines[] = {
	[COSY_DECLINE_STATUS] = "executor refused the directory",
	[COSY_DECLINE_ABSENT] = "not in the result",
	[COSY_DECLINE_USED] = "answered once already",
	[COSY_DECLINE_EPOCH] = "epoch had ended",
	[COSY_DECLINE_AGE] = "too old",
	[COSY_DECLINE_RECORD] = "attributes not certain",
	[COSY_DECLINE_BUSY] = "another thread held the table",
	[COSY_DECLINE_WRITTEN] = "written to, or read, since",
};
_Static_assert(ARRAY_SIZE(declines) == COSY_DECLINES, "a decline without a text");

static const char *const statuses[] = {
	[COSY_BPF_OK] = "ok",
	[COSY_BPF_BADFD] = "bad descriptor",
	[COSY_BPF_NOTDIR] = "no directory",
	[COSY_BPF_FS] = "file system not known",
	[COSY_BPF_IDMAP] = "idmapped mount",
	[COSY_BPF_USERNS] = "user namespace",
	[COSY_BPF_PERM] = "permission not certain",
	[COSY_BPF_FULL] = "result full, resumed",
	[COSY_BPF_MOVED] = "directory changed meanwhile",
	[COSY_BPF_LIMIT] = "run long enough, resumed",
	[COSY_BPF_WATCHED] = "watched task",
	[COSY_BPF_NOT_RUN] = "not loaded",
};

/* All of it, beforehand: a hole of a full disk would be a bus error, and more than the limit a signal. */
static bool allocate(int fd)
{
	struct rlimit limit;

	return !getrlimit(RLIMIT_FSIZE, &limit) && limit.rlim_cur >= STATS_SIZE &&
	       !posix_fallocate(fd, 0, STATS_SIZE);
}

static struct cosy_stats *create_in(const char *folder, char path[PATH_MAX])
{
	struct cosy_stats *s = MAP_FAILED;
	int fd = -1;

	// In the orders a semicolon would end the path.
	if (folder && folder[0] == '/' && !strchr(folder, ';') &&
	    print_path(path, "%s/cosy-stats-XXXXXX", folder))
		fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0)
		return NULL;
	if (allocate(fd))
		s = mmap(NULL, STATS_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (s != MAP_FAILED)
		return s;
	unlink(path);
	return NULL;
}

/* A file for the shim to count in; NULL: no folder has room for one, and that was said. */
struct cosy_stats *stats_create(char path[PATH_MAX])
{
	const char *folders[] = { getenv("XDG_RUNTIME_DIR"), getenv("TMPDIR"), "/tmp" };
	struct cosy_stats *s = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(folders) && !s; i++)
		s = create_in(folders[i], path);
	if (!s) {
		path[0] = 0;
		fputs("cosy-auto: no statistics: no temporary folder takes a file of 16 KiB\n",
		      stderr);
		return NULL;
	}
	_Static_assert(sizeof(*s) <= STATS_SIZE, "the counters outgrew their file");
	_Static_assert((int)COSY_NATIVE_REASONS <= COSY_STATS_NATIVE, "no room for all reasons");
	memcpy(s->magic, COSY_STATS_MAGIC, sizeof(s->magic));
	return s;
}

/* "LABEL  17,277 text, 12 text", nothing when all are zero. */
static void print_counts(const char *label, const char *const *texts, size_t n, const __u64 *counts)
{
	bool any = false;

	for (size_t i = 0; i < n; i++) {
		if (!counts[i])
			continue;
		fprintf(stderr, any ? "; " : "  %-20s", label);
		fprintf(stderr, "%'" PRIu64 " %s", (uint64_t)counts[i], texts[i]);
		any = true;
	}
	if (any)
		fputc('\n', stderr);
}

static void site_name(const struct cosy_site *s, char to[PATH_MAX])
{
	char path[sizeof(s->module) + 1] = "";
	const char *base;

	memcpy(path, s->module, sizeof(s->module));
	if (path[0] && symbol_name(path, s->offset, to, PATH_MAX))
		return;
	base = strrchr(path, '/');
	if (base)
		snprintf(to, PATH_MAX, "%s+0x%" PRIx64, base + 1, (uint64_t)s->offset);
	else
		strcpy(to, "(elsewhere)");
}

/* By call site, most answers first. */
static int more_served(const void *a, const void *b)
{
	const struct cosy_site *x = *(const struct cosy_site *const *)a,
			       *y = *(const struct cosy_site *const *)b;

	return (x->served < y->served) - (x->served > y->served);
}

static void print_sites(const struct cosy_stats *s)
{
	const struct cosy_site *sites[COSY_STATS_SITES];
	char name[PATH_MAX];
	size_t n = 0;

	for (size_t i = 0; i < COSY_STATS_SITES; i++)
		if (s->site[i].fired || s->site[i].served)
			sites[n++] = &s->site[i];
	if (!n)
		return;
	qsort(sites, n, sizeof(sites[0]), more_served);
	fprintf(stderr, "  %-*s%12s%15s%15s\n", SITE_WIDTH, "call site", "fired", "wasted",
		"served");
	for (size_t i = 0; i < n; i++) {
		site_name(sites[i], name);
		fprintf(stderr, "  %-*.*s%'12" PRIu64 "%'15" PRIu64 "%'15" PRIu64 "\n", SITE_WIDTH,
			SITE_WIDTH - 1, name, (uint64_t)sites[i]->fired,
			(uint64_t)(sites[i]->results - sites[i]->used), (uint64_t)sites[i]->served);
	}
}

static void print_images(const struct cosy_stats *s)
{
	fprintf(stderr, "  %-20s%'" PRIu64 "\n", "program images", (uint64_t)s->processes);
}

static void print_native(const struct cosy_stats *s)
{
	print_counts("ran native", natives, ARRAY_SIZE(natives), s->native);
}

void stats_print_traced(const struct cosy_stats *s)
{
	print_images(s);
	print_native(s);
}

void stats_print(const struct cosy_stats *s, const struct profile *profile, char **command)
{
	fprintf(stderr, "cosy-auto: %s: profile %s\n", command[0], profile->path);
	print_images(s);
	fprintf(stderr, "  %-20s%'" PRIu64 " seen, %'" PRIu64 " epochs ended\n", "calls",
		(uint64_t)s->calls, (uint64_t)s->epochs);
	fprintf(stderr, "  %-20s%'" PRIu64 ", %'" PRIu64 " results\n", "executor runs",
		(uint64_t)s->runs, (uint64_t)s->records);
	if (s->ends)
		fprintf(stderr, "  %-20s%'" PRIu64 " of directories\n", "ends not asked for",
			(uint64_t)s->ends);
	if (s->ahead_threads)
		fprintf(stderr,
			"  read ahead          %'" PRIu64 " directories taken, %" PRIu64
			" of them with results; begun %" PRIu64 " times by %" PRIu64 " threads\n",
			(uint64_t)s->ahead_taken, (uint64_t)s->ahead_runs, (uint64_t)s->ahead_begun,
			(uint64_t)s->ahead_threads);
	print_counts("executor said", statuses, ARRAY_SIZE(statuses), s->executor_status);
	print_counts("left to the kernel", declines, ARRAY_SIZE(declines), s->declines);
	print_native(s);
	fprintf(stderr, "  %-28s%12s%15s%15s\n", "compound", "fired", "results", "served");
	for (uint32_t i = 0; i < COSY_STATS_COMPOUNDS; i++) {
		const struct cosy_compound *c = profile_compound(profile, i);

		if (!c)
			break;
		fprintf(stderr, "  %-28s%'12" PRIu64 "%'15" PRIu64 "%'15" PRIu64 "\n",
			profile_string(profile, c->name), (uint64_t)s->compound[i].fired,
			(uint64_t)s->compound[i].records, (uint64_t)s->compound[i].served);
	}
	print_sites(s);
}

int output_end(void)
{
	if (!fflush(stdout) && !ferror(stdout))
		return 0;
	fprintf(stderr, "cosy-auto: cannot write: stdout: %s: make room\n", strerror(errno));
	return EXIT_WORK;
}

void explain(const struct program *program, const struct places *places,
	     const struct profile *profile, const char *native, const char *executor)
{
	const struct cosy_compound *c;

	printf("program   %s\n", program->path);
	printf("build-id  %s\n", program->build_id[0] ? program->build_id : "none");
	printf("library   %s\n", places->library[0] ? places->library : "not found");
	printf("cache     %s\n", places->text[0] ? places->text : "none: no folder of our own");
	printf("profile   %s%s%s\n", profile->path, profile->refused ? ": refused: " : "",
	       profile->refused ? profile->refused : "");
	for (uint32_t i = 0; (c = profile_compound(profile, i)); i++)
		printf("compound  %s: at call %u in a directory of %u entries or more; by %s\n",
		       profile_string(profile, c->name), c->nth, c->min_entries,
		       executor_names(c->executors, ", "));
	printf("executor  %s\n", executor ? executor : "ready");
	if (native)
		printf("native    the program would run without Cosy: %s\n", native);
	else
		printf("next      cosy-synth show %s\n", profile->path);
}
