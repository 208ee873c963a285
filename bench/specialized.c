// SPDX-License-Identifier: GPL-2.0
/*
 * specialized ROUNDS LOADS GENERIC.o SPECIAL.o FOLDER: times two builds of the directory scan on all
 * directories below a folder. Each is loaded several times, since where its code lies matters as
 * much as what it does. They all hang on the tracepoint at once; the one whose map knows our memory
 * runs. Prints for each load: build (0 or 1), ns per child on directories just run over, ns per
 * child on a walk of them all; of each directory the least of all rounds counts.
 */
#define main loader_main
#include "../kmod/bpf/cosy_bpf_load.c"
#undef main

#include <ftw.h>
#include <time.h>
#include <x86intrin.h>

#define LOADS_MOST 16

static struct {
	struct cosy_bpf_run run __attribute__((aligned(COSY_BPF_PAGE)));
	struct cosy_bpf_page pages[COSY_BPF_PAGES] __attribute__((aligned(COSY_BPF_PAGE)));
} memory;

static struct build {
	int map;
	unsigned long long *best; /* ticks, of each folder */
} builds[2 * LOADS_MOST];

static char **folders;
static unsigned int *children;
static size_t n_folders, n_builds;

static int add_folder(const char *path, const struct stat *st, int type, struct FTW *walk)
{
	(void)st, (void)walk;
	if (type != FTW_D)
		return 0;
	folders = realloc(folders, (n_folders + 1) * sizeof(*folders));
	if (!folders || !(folders[n_folders] = strdup(path)))
		return -1;
	n_folders++;
	return 0;
}

static int load_build(const char *path)
{
	struct bpf_object *object = bpf_object__open_file(path, NULL);
	struct bpf_program *program;

	if (!object)
		return complain(EXIT_FAILED, "not a BPF object: %s", path);
	program = bpf_object__find_program_by_name(object, PROGRAM);
	if (set_constants(object) || bpf_object__load(object) < 0 || !program ||
	    !bpf_program__attach(program))
		return complain(EXIT_KERNEL, "load: %s: %s", path, strerror(errno));
	builds[n_builds].map = bpf_object__find_map_fd_by_name(object, BUFFERS);
	builds[n_builds].best = calloc(n_folders, sizeof(*builds->best));
	return builds[n_builds++].best ? EXIT_OK : complain(EXIT_FAILED, "no memory");
}

/* From now on this build answers, or none of them. */
static void choose(const struct build *build, bool on)
{
	struct cosy_bpf_buffers buffers = { .run = &memory.run };
	_cleanup_fd_ int self = (int)syscall(SYS_pidfd_open, getpid(), 0);

	for (int i = 0; i < COSY_BPF_PAGES; i++)
		buffers.pages[i] = &memory.pages[i];
	if (on ? bpf_map_update_elem(build->map, &self, &buffers, BPF_ANY) :
		 bpf_map_delete_elem(build->map, &self))
		exit(complain(EXIT_FAILED, "register memory: %s", strerror(errno)));
}

static void run_over(struct build *build, size_t folder)
{
	_cleanup_fd_ int fd = open(folders[folder], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct cosy_bpf_run *run = &memory.run;
	unsigned long long ticks = 0;
	unsigned int found = 0;

	do {
		unsigned int skip = found ? run->seen : 0;
		unsigned long long start;

		run->cookie = 1;
		run->status = COSY_BPF_NOT_RUN;
		start = __rdtsc();
		prctl(COSY_BPF_OPTION, run->cookie, fd, skip, 0);
		ticks += __rdtsc() - start;
		found += run->n_children;
	} while ((run->status == COSY_BPF_FULL || run->status == COSY_BPF_LIMIT) &&
		 run->n_children);
	children[folder] = found;
	if (!build->best[folder] || ticks < build->best[folder])
		build->best[folder] = ticks;
}

/* ns per child; the next measurement begins anew. */
static double result(struct build *build, double ns_per_tick)
{
	double ticks = 0, all = 0;

	for (size_t i = 0; i < n_folders; i++) {
		ticks += (double)build->best[i];
		all += children[i];
		build->best[i] = 0;
	}
	return all ? ticks * ns_per_tick / all : 0;
}

static double now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

int main(int argc, char **argv)
{
	double warm[2 * LOADS_MOST], start = now_ns();
	unsigned long long ticks = __rdtsc();
	int rounds = argc == 6 ? atoi(argv[1]) : 0, loads = argc == 6 ? atoi(argv[2]) : 0;

	if (rounds < 1 || loads < 1 || loads > LOADS_MOST)
		return complain(EXIT_USAGE, "ROUNDS LOADS GENERIC.o SPECIAL.o FOLDER");
	if (nftw(argv[5], add_folder, 64, FTW_PHYS) || !n_folders)
		return complain(EXIT_FAILED, "cannot walk: %s", argv[5]);
	children = calloc(n_folders, sizeof(*children));
	for (int i = 0; i < 2 * loads; i++)
		if (load_build(argv[3 + i % 2]))
			return EXIT_FAILED;
	for (int round = 0; round < rounds; round++)
		for (size_t i = 0; i < n_builds; i++) {
			struct build *build = &builds[(i + (size_t)round) % n_builds];

			choose(build, true);
			for (size_t folder = 0; folder < n_folders; folder++)
				for (int twice = 0; twice < 2; twice++)
					run_over(build, folder);
			choose(build, false);
		}
	double ns_per_tick = (now_ns() - start) / (double)(__rdtsc() - ticks);

	for (size_t i = 0; i < n_builds; i++)
		warm[i] = result(&builds[i], ns_per_tick);
	for (int round = 0; round < rounds; round++)
		for (size_t i = 0; i < n_builds; i++) {
			struct build *build = &builds[(i + (size_t)round) % n_builds];

			choose(build, true);
			for (size_t folder = 0; folder < n_folders; folder++)
				run_over(build, folder);
			choose(build, false);
		}
	for (size_t i = 0; i < n_builds; i++)
		printf("%zu %.2f %.2f\n", i % 2, warm[i], result(&builds[i], ns_per_tick));
	return EXIT_OK;
}
