// SPDX-License-Identifier: MIT
#include "runs.h"

#include <asm/unistd_64.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "account.h"
#include "build_id.h"
#include "crc32.h"
#include "executor.h"
#include "fence.h"
#include "leaf_table.h"
#include "results.h"
#include "shim.h"

#define WORTH_A_RECORD 256 // calls that a compound might have answered
#define ONE_THREAD 3 // links of /proc/self/task: as of any folder, and one for each
#define LONGEST_PATH 4096

static bool worth_a_record(void)
{
	return (sums.fired || sums.calls >= WORTH_A_RECORD) && cosy_config.cache &&
	       !cosy_config.no_record;
}

// Another thread could close our descriptor, and open a file of its own in its place.
static bool is_alone(void)
{
	struct stat st;

	return ground_ours() && !sys(__NR_stat, "/proc/self/task", &st) &&
	       st.st_nlink == ONE_THREAD;
}

static bool path_of(struct text *path, const char *name)
{
	text_add(path, cosy_config.cache);
	text_add(path, "/");
	text_add(path, name);
	return !path->cut;
}

// A full file becomes the old one. Who comes second finds another in its place.
static void put_away(int fd, const char *path, const struct stat *st)
{
	char old_path[LONGEST_PATH];
	struct text old = { .at = old_path, .size = sizeof(old_path) };
	struct stat now;

	if (path_of(&old, COSY_RUNS_OLD) && !sys(__NR_flock, fd, LOCK_EX | LOCK_NB) &&
	    !sys(__NR_stat, path, &now) && now.st_ino == st->st_ino)
		sys(__NR_rename, path, old_path);
}

static int open_runs(const char *path, struct stat *st)
{
	int fd = (int)sys(__NR_openat, AT_FDCWD, path,
			  O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK |
				  O_NOCTTY,
			  0600);

	if (fd >= 0 && (sys(__NR_fstat, fd, st) || !leaf_file_ours(st, (u32)sys(__NR_geteuid)))) {
		sys(__NR_close, fd);
		return -1;
	}
	return fd;
}

static void append(const struct cosy_run *run)
{
	char path_buf[LONGEST_PATH];
	struct text path = { .at = path_buf, .size = sizeof(path_buf) };
	struct stat st;
	int fd;

	if (!path_of(&path, COSY_RUNS_FILE))
		return;
	fd = open_runs(path_buf, &st);
	if (fd >= 0 && (u64)st.st_size >= COSY_RUNS_MOST * sizeof(*run)) {
		put_away(fd, path_buf, &st);
		sys(__NR_close, fd);
		fd = open_runs(path_buf, &st);
	}
	if (fd < 0)
		return;
	if (file_size_allowed((u64)st.st_size + sizeof(*run)))
		sys(__NR_write, fd, run, sizeof(*run));
	sys(__NR_close, fd);
}

// As the kernel keeps them: programs change the order of their own pointers to them.
static u64 arguments(u64 key)
{
	char words[COSY_RUNS_COMMAND];
	int fd = (int)sys(__NR_openat, AT_FDCWD, "/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
	long n;

	if (fd < 0)
		return key;
	n = sys(__NR_read, fd, words, sizeof(words));
	sys(__NR_close, fd);
	while (n > 0 && !words[n - 1])
		n--;
	return n > 0 ? fnv1a(key, words, (size_t)n) : key;
}

static u64 command(void)
{
	char folder[LONGEST_PATH];
	u64 key = fnv1a(arguments(FNV1A_START), "", 1);
	long n = sys(__NR_getcwd, folder, sizeof(folder)); // with the zero at its end

	return n > 0 ? fnv1a(key, folder, (size_t)n - 1) : key;
}

static bool take_build_id(u8 id[BUILD_ID_SIZE])
{
	const Elf64_Phdr *headers = cosy_config.headers;
	u64 bias = 0;

	for (size_t i = 0; i < cosy_config.n_headers; i++)
		if (headers[i].p_type == PT_PHDR)
			bias = (u64)headers - headers[i].p_vaddr;
	return build_id_take(id, headers, cosy_config.n_headers, bias);
}

void runs_exit(void)
{
	struct cosy_run run = { .magic = COSY_RUNS_MAGIC };

	_Static_assert(!(sizeof(run) % 8), "no padding that the checksum would have to know");
	if (!worth_a_record() || !is_alone() || !take_build_id(run.build_id))
		return;
	run.executor = executor_used();
	run.ended_ns = now_ns(0 /* CLOCK_REALTIME */);
	run.cpu_ns = now_ns(2 /* CLOCK_PROCESS_CPUTIME_ID */);
	results_clock(&run.wall_ticks, &run.wall_ns);
	run.command = command();
	run.pid = (u32)sys(__NR_getpid);
	run.sums = sums;
	account_record(&run.sums);
	run.crc = crc32(&run.executor, sizeof(run) - offsetof(struct cosy_run, executor));
	append(&run);
}
