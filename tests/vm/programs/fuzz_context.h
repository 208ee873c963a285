/* SPDX-License-Identifier: MIT */
/* One worker's context, and what all processes count together. */
#ifndef FUZZ_CONTEXT_H
#define FUZZ_CONTEXT_H

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/time.h>

#include "cosy_module.h"
#include "fuzz_random.h"
#include "fuzz_tree.h"

#define BUFFER_MAX (4u << 20)
#define FAILURES_SHOWN 20
#define DOOR_BYTES 4096
#define LONGEST_NS 3600000000000ull /* a negative time is longer */

/* What overran a deadline by how much; indices of worst_ns. */
enum kind {
	PROGRAM_PLAIN,
	PROGRAM_CALLS,
	FUSED_ENTRIES,
	FUSED_FILES,
	FUSED_COPY,
	FUSED_SCAN,
	FUSED_SOCKETS,
	N_KINDS
};
static const char *const kind_names[] = {
	"program", "program with calls", "entries", "files", "copy", "scan", "sockets"
};

static struct shared {
	unsigned long long requests, loads, refused, runs, fused, ahead, denied, signals, killed;
	unsigned long long status_0, status_intr, status_time, status_ops, failures;
	unsigned long long worst_ns[N_KINDS];
} *shared;

#define COUNT(field) __atomic_add_fetch(&shared->field, 1, __ATOMIC_RELAXED)

static int errors = STDERR_FILENO;

#define BROKEN(...)                                                                                \
	do {                                                                                       \
		if (COUNT(failures) <= FAILURES_SHOWN)                                             \
			dprintf(errors, "fuzz: " __VA_ARGS__);                                     \
	} while (0)

static struct {
	int fd;
	unsigned char *buffer; /* NULL: not mapped */
	size_t bytes;
	bool scribbled; /* another thread writes to it */
	void *door; /* NULL: none */
} context;

static volatile sig_atomic_t interrupted;

static void on_alarm(int signal)
{
	(void)signal;
	interrupted = 1;
}

static void alarm_in_us(long us)
{
	struct itimerval timer = { .it_value = { .tv_usec = us } };

	setitimer(ITIMER_REAL, &timer, NULL);
}

static void overshoot(enum kind kind, const struct cosy_limits *limits, uint64_t time_ns)
{
	unsigned long long over, worst = __atomic_load_n(&shared->worst_ns[kind], __ATOMIC_RELAXED);

	if (!limits->deadline_ns || time_ns <= limits->deadline_ns)
		return;
	over = time_ns - limits->deadline_ns;
	while (over > worst &&
	       !__atomic_compare_exchange_n(&shared->worst_ns[kind], &worst, over, false,
					    __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
}

static void check_outcome(const char *what, const struct cosy_limits *limits,
			  const struct cosy_outcome *outcome)
{
	if (limits->ops && outcome->ops > limits->ops)
		BROKEN("%s: %llu ops of %llu\n", what, (unsigned long long)outcome->ops,
		       (unsigned long long)limits->ops);
	if (outcome->time_ns > LONGEST_NS)
		BROKEN("%s: took %llu ns\n", what, (unsigned long long)outcome->time_ns);
	switch (outcome->status) {
	case 0:
		COUNT(status_0);
		break;
	case -EINTR:
		COUNT(status_intr);
		break;
	case -ETIME:
		COUNT(status_time);
		break;
	case -E2BIG:
		COUNT(status_ops);
		break;
	default:
		if (outcome->status > 0 || outcome->status < -133)
			BROKEN("%s: status %d is no errno\n", what, outcome->status);
	}
}

static struct cosy_limits random_limits(void)
{
	struct cosy_limits limits = { .deadline_ns = 1 + below(20000000), .ops = below(100000) };

	if (one_in(16))
		limits.ops = nasty();
	if (one_in(16))
		limits.deadline_ns = 1 + below(1000);
	return limits;
}

/* --- the context ------------------------------------------------------------ */

static void *scribble(void *arg)
{
	(void)arg;
	for (;;) {
		// Offsets that move while the kernel looks at them: only aligned words tear nothing.
		size_t at = below(context.bytes / 8) * 8;

		*(volatile uint64_t *)(context.buffer + at) = one_in(2) ? nasty() : random64();
		if (one_in(4096))
			usleep(100);
	}
	return NULL;
}

/* A compound may have closed the descriptor, or put another in its place. */
static bool context_is_there(void)
{
	struct stat device, st;

	return !fstat(context.fd, &st) && !stat(COSY_DEVICE, &device) &&
	       st.st_rdev == device.st_rdev;
}

static _Alignas(DOOR_BYTES) union {
	struct cosy_fused call;
	unsigned char page[DOOR_BYTES];
} request;

static void open_door(void)
{
	context.door = mmap(NULL, DOOR_BYTES, PROT_NONE, MAP_SHARED, context.fd,
			    (off_t)(COSY_DOOR |
				    (one_in(16) ? nasty() & ~0xfffull : (unsigned long)&request)));
	if (context.door == MAP_FAILED)
		context.door = NULL;
}

static bool context_start(void)
{
	struct cosy_setup setup = { .abi = COSY_MODULE_ABI };
	pthread_t thread;

	context.fd = open(COSY_DEVICE, O_RDWR | O_CLOEXEC);
	if (context.fd < 0 && errno == EACCES)
		return false; // a compound of root's changed its mode
	if (context.fd < 0) {
		BROKEN("%s: %s\n", COSY_DEVICE, strerror(errno));
		return false;
	}
	open_door();
	setup.buffer_bytes = one_in(16) ? nasty() : 4096 + below(BUFFER_MAX);
	if (one_in(16))
		return true; // no buffer at all
	if (ioctl(context.fd, COSY_IOC_SETUP, &setup))
		return true;
	context.bytes = setup.buffer_bytes;
	context.buffer =
		mmap(NULL, context.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, context.fd, 0);
	if (context.buffer == MAP_FAILED) {
		context.buffer = NULL;
		BROKEN("mmap of %zu bytes: %s\n", context.bytes, strerror(errno));
		return true;
	}
	context.scribbled = one_in(3);
	if (context.scribbled && !pthread_create(&thread, NULL, scribble, NULL))
		pthread_detach(thread);
	return true;
}

#endif
