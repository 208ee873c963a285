// SPDX-License-Identifier: MIT
/*
 * fuzz FOLDER SECONDS SEED WORKERS: random and nearly right requests to /dev/cosy from
 * several processes, while others change FOLDER, the buffer that a compound
 * works on is written by a second thread, and workers are interrupted and killed
 * at random. Half of the workers are an ordinary user.
 *
 * Prints what was done as one line of JSON. Exit code 1: the module broke its
 * own promises; each case is a line on stderr. What the kernel finds (KASAN,
 * lockdep, oops) is in its log, and so is how far the fuzzer is.
 */
#include <grp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "fuzz_requests.h"

#define USER 1000
#define MUTATORS 2
#define WORKERS_MAX 16
#define WORKER_ALIVE_S 5 /* then it is killed and started again */
#define PROGRESS_S 20

/* One that listens, without a name in the file system, and some that wait to be accepted. */
static void open_sockets(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	socklen_t bytes = sizeof(address);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

	if (bind(fd, (void *)&address, sizeof(sa_family_t)) ||
	    getsockname(fd, (void *)&address, &bytes) || listen(fd, 8))
		BROKEN("listen: %s\n", strerror(errno));
	for (int i = 0; i < 3; i++)
		(void)!connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&address, bytes);
}

static void open_some(void)
{
	char path[96];
	int pair[2];

	for (int i = 0; i < 4; i++)
		(void)!open(tree_dir(path), O_RDONLY | O_DIRECTORY);
	for (int i = 0; i < 6; i++)
		(void)!open(tree_name(path), (one_in(2) ? O_RDWR : O_RDONLY) | O_NONBLOCK);
	(void)!open(".", O_RDONLY);
	(void)!open("/proc/self", O_RDONLY);
	(void)!open("/proc/self/maps", O_RDONLY);
	open_sockets();
	if (!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) && !pipe2(pair, O_NONBLOCK))
		return;
}

static void as_user(void)
{
	if (setgroups(0, NULL) || setgid(USER) || setuid(USER))
		BROKEN("setuid: %s\n", strerror(errno));
}

static void worker(uint64_t seed)
{
	struct sigaction action = { .sa_handler = on_alarm };
	int null = open("/dev/null", O_RDWR);
	uint64_t end = now_ns() + WORKER_ALIVE_S * 1000000000ull / 2;

	random_state = seed | 1;
	errors = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 500);
	for (int fd = 0; fd < 3; fd++)
		dup2(null, fd);
	sigaction(SIGALRM, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
	open_some();
	if (one_in(2))
		as_user();
	if (!context_start())
		_exit(1);
	while (now_ns() < end && context_is_there()) {
		COUNT(requests);
		if (one_in(8)) {
			COUNT(signals);
			alarm_in_us(1 + (long)below(5000));
		}
		switch (below(16)) {
		case 0 ... 6:
			fuzz_program();
			break;
		case 7 ... 13:
			fuzz_fused();
			break;
		case 14:
			fuzz_raw();
			break;
		default:
			fuzz_around();
		}
	}
	_exit(0);
}

static void mutator(uint64_t seed)
{
	random_state = seed | 1;
	for (;;) {
		tree_change();
		if (one_in(4))
			usleep(2000);
	}
}

static pid_t start(void (*what)(uint64_t), uint64_t seed)
{
	pid_t pid = fork();

	if (!pid) {
		what(seed);
		_exit(0);
	}
	return pid;
}

static void print_result(uint64_t seed, uint64_t elapsed_ns)
{
	printf("{\"seed\": %llu, \"seconds\": %.1f, \"requests\": %llu, \"loads\": %llu, "
	       "\"refused\": %llu, \"runs\": %llu, \"fused\": %llu, \"ahead\": %llu, \"denied\": %llu, "
	       "\"signals\": %llu, \"killed\": %llu, \"done\": %llu, \"interrupted\": %llu, "
	       "\"deadline\": %llu, \"ops\": %llu, \"failures\": %llu, \"overshoot_ms\": {",
	       (unsigned long long)seed, (double)elapsed_ns / 1e9, shared->requests, shared->loads,
	       shared->refused, shared->runs, shared->fused, shared->ahead, shared->denied,
	       shared->signals, shared->killed, shared->status_0, shared->status_intr,
	       shared->status_time, shared->status_ops, shared->failures);
	for (int i = 0; i < N_KINDS; i++)
		printf("%s\"%s\": %.3f", i ? ", " : "", kind_names[i],
		       (double)shared->worst_ns[i] / 1e6);
	puts("}}");
}

/* Slow and hung look the same from outside. */
static void tell_progress(int log, uint64_t begin)
{
	static uint64_t told;
	char line[100];
	int n;

	if (told && now_ns() - told < PROGRESS_S * 1000000000ull)
		return;
	told = now_ns();
	n = snprintf(line, sizeof(line), "<4>fuzz: %.0f s, %llu requests\n",
		     (double)(told - begin) / 1e9, shared->requests);
	if (write(log, line, (size_t)n) != n)
		BROKEN("/dev/kmsg: %s\n", strerror(errno));
}

int main(int argc, char **argv)
{
	uint64_t seed, begin = now_ns(), end, born[WORKERS_MAX] = { 0 };
	int log = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
	pid_t workers[WORKERS_MAX] = { 0 }, mutators[MUTATORS];
	unsigned int n;

	if (argc != 5 || chdir(argv[1])) {
		fprintf(stderr, "usage: fuzz FOLDER SECONDS SEED WORKERS\n");
		return 2;
	}
	end = begin + strtoull(argv[2], NULL, 10) * 1000000000ull;
	seed = strtoull(argv[3], NULL, 10);
	n = (unsigned int)strtoul(argv[4], NULL, 10);
	if (n > WORKERS_MAX)
		n = WORKERS_MAX;
	random_state = seed * 2654435761u + 1;
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	tree_create();
	for (int i = 0; i < MUTATORS; i++)
		mutators[i] = start(mutator, random64());
	while (now_ns() < end) {
		tell_progress(log, begin);
		for (unsigned int i = 0; i < n; i++) {
			bool old = now_ns() - born[i] > WORKER_ALIVE_S * 1000000000ull;

			if (workers[i] && (old || one_in(400))) {
				COUNT(killed);
				kill(workers[i], SIGKILL);
				waitpid(workers[i], NULL, 0);
				workers[i] = 0;
			} else if (workers[i] && waitpid(workers[i], NULL, WNOHANG) == workers[i]) {
				workers[i] = 0;
			}
			if (!workers[i]) {
				chmod(COSY_DEVICE, 0666);
				workers[i] = start(worker, random64());
				born[i] = now_ns();
			}
		}
		usleep(20000);
	}
	for (unsigned int i = 0; i < n; i++)
		kill(workers[i], SIGKILL);
	for (int i = 0; i < MUTATORS; i++)
		kill(mutators[i], SIGKILL);
	while (wait(NULL) > 0)
		;
	print_result(seed, now_ns() - begin);
	return shared->failures ? 1 : 0;
}
