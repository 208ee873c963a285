// SPDX-License-Identifier: MIT
/*
 * A firing over a directory that no run gets to the end of (shim/firing.c), with an executor that
 * takes its time: what it is given, and how often it is asked. The clock is the executor's.
 */
#include "../../../shim/sys.h"

static u64 clock_ns = 1;
#define now_ns(clock) ((void)(clock), clock_ns)
#define rdtsc() clock_ns // as fast as it is taken for before it is calibrated

#include "../../../shim/account.c"
#include "../../../shim/firing.c"
#include "../../../shim/mem.c"
#include "../../../shim/name.c"
#include "../../../shim/results.c"

#include <stdio.h>

#define RUN_NS 1000000u
#define ENTRIES 60000

struct cosy_config cosy_config = { .max_age_ms = 100 };
struct cosy_stats *cosy_stats;
u64 cosy_epoch = 1, touches[TOUCHES];
static struct ground ours = { .alive = 1 };
struct ground *ground = &ours;
bool armed = true;

static struct cosy_compound compound = {
	.limit_ops = ENTRIES, .limit_bytes = 1 << 20, .chunk = 1024, .grow = 4
};
struct image profile = { .compounds = &compound };
static struct dir_slot dir;

static u64 first_ns, last_ns; // what the executor was given
static u32 runs;

long executor_run(struct run_buffers *to, int dirfd, u32 skip, u64 ns)
{
	struct cosy_bpf_child *child = (void *)to->pages[0].data;

	(void)dirfd;
	if (!runs++)
		first_ns = ns;
	last_ns = ns;
	memset(&to->run, 0, sizeof(to->run));
	memset(child, 0, sizeof(*child) + 8);
	child->namelen = 4;
	memcpy(child + 1, &skip, sizeof(skip));
	((u8 *)(child + 1))[3] = 1; // no two names are the same, none is empty
	to->run.used[0] = sizeof(*child) + 8;
	to->run.n_children = 1;
	to->run.seen = skip + 1;
	to->run.status = COSY_BPF_LIMIT;
	clock_ns += RUN_NS;
	return 0;
}

bool ahead_on;

void ahead_walked(void)
{
}

const struct run_buffers *ahead_runs(const struct dir_slot *d, struct run_start *start)
{
	(void)d;
	(void)start;
	return NULL;
}

bool exec_arm(void)
{
	return true;
}

void exec_disarm(int native_reason)
{
	printf("native for reason %d\n", native_reason);
}

bool exec_shares_descriptors(void)
{
	return false;
}

struct dir_slot *dir_of_fd(u64 fd)
{
	(void)fd;
	return &dir;
}

long open_plain(int dirfd, const char *path, u64 flags)
{
	(void)dirfd, (void)path, (void)flags;
	return -1;
}

static void fire_once(struct work *work)
{
	struct child child = { .dir = &dir, .dirfd = 0 };

	runs = 0;
	fire(0, work, &child);
}

static void allow(u64 ns)
{
	struct work work;

	account_open(&work.account);
	dir = (struct dir_slot){ .entries = ENTRIES, .cut = true, .scanned = true };
	compound.limit_time_ns = ns;
	fire_once(&work);
	printf("%llu ns: %u runs, of %llu to %llu ns\n", ns, runs, first_ns, last_ns);
}

// Each run of the fake executor tells one entry; so do the next firings in the same directory.
static void go_further(u32 chunk, u32 grow, u64 limit_ops)
{
	struct work work;

	account_open(&work.account);
	dir = (struct dir_slot){ .entries = ENTRIES, .cut = true, .scanned = true };
	compound.chunk = chunk;
	compound.grow = grow;
	compound.limit_ops = limit_ops;
	printf("chunk %u, grow %u, at most %llu:", chunk, grow, limit_ops);
	for (u32 i = 0; i < 4; i++) {
		fire_once(&work);
		printf(" %u%s", runs, dir.partial ? "" : " the end");
	}
	printf("\n");
}

int main(void)
{
	results_start();
	allow(1);
	allow(RUN_NS);
	allow(RUN_NS * 5 / 2);
	allow(1000000000);
	compound.chunk = 8;
	allow(1000000000);
	go_further(1, 2, ENTRIES);
	go_further(2, 3, ENTRIES);
	go_further(1, 1u << 20, 12);
	return 0;
}
