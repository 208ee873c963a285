// SPDX-License-Identifier: MIT
/*
 * kmod_limits CASE...: what the module must refuse, stop or leave alone. Each case
 * prints its name when it went well. `hold` keeps a context open until SIGTERM.
 */
#include <pthread.h>
#include <sched.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <time.h>

#include "limits_access.h"
#include "limits_programs.h"
#include "limits_stop.h"

static void case_setup(void)
{
	struct context c = context_open(4096);
	struct cosy_setup setup = { .abi = COSY_MODULE_ABI, .buffer_bytes = 4096 };
	const struct cosy_setup bad[] = {
		{ .abi = COSY_MODULE_ABI + 1, .buffer_bytes = 4096 },
		{ .abi = COSY_MODULE_ABI, .flags = 1, .buffer_bytes = 4096 },
		{ .abi = COSY_MODULE_ABI },
		{ .abi = COSY_MODULE_ABI, .buffer_bytes = 1ull << 40 },
		{ .abi = COSY_MODULE_ABI, .buffer_bytes = ~0ull },
	};
	struct cosy_info info;
	int fd = open(COSY_DEVICE, O_RDWR);

	if (!ioctl(c.fd, COSY_IOC_SETUP, &setup) || errno != EBUSY)
		fail("set up twice");
	if (mmap(NULL, 4096, PROT_READ, MAP_SHARED, c.fd, 0) != MAP_FAILED || errno != EBUSY)
		fail("mapped twice");
	for (size_t i = 0; i < COUNT(bad); i++) {
		setup = bad[i];
		if (!ioctl(fd, COSY_IOC_SETUP, &setup) || errno != EINVAL)
			fail("setup %zu was not refused", i);
	}
	if (mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0) != MAP_FAILED || errno != EINVAL)
		fail("mapped without a buffer");
	if (!ioctl(fd, _IO(0xc5, 99), 0) || errno != ENOTTY)
		fail("unknown request");
	if (ioctl(fd, COSY_IOC_INFO, &info) || info.abi != COSY_MODULE_ABI ||
	    !(info.features & COSY_FEATURE_CALLS))
		fail("info: features %llx", info.features);
	// part of the mapping cannot go away
	setup = (struct cosy_setup){ .abi = COSY_MODULE_ABI, .buffer_bytes = 5000 };
	if (ioctl(fd, COSY_IOC_SETUP, &setup) || setup.buffer_bytes != 8192)
		fail("setup: %s", strerror(errno));
	c.buffer = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (!munmap(c.buffer, 4096) || munmap(c.buffer, 8192))
		fail("munmap");
	c.buffer = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (c.buffer == MAP_FAILED)
		fail("mapped again: %s", strerror(errno));
}

struct other {
	struct context *c;
	volatile int running;
};

static void *run_long(void *arg)
{
	struct other *other = arg;
	struct cosy_run r = { .regs[1] = FOREVER, .limits.deadline_ns = 500000000 };

	other->running = 1;
	while (ioctl(other->c->fd, COSY_IOC_RUN, &r))
		if (errno != EBUSY) // the main thread was a moment earlier
			fail("run: %s", strerror(errno));
	equal("status of the long one", r.outcome.status, -ETIME);
	return NULL;
}

// One context is busy, another is not.
static void case_busy(void)
{
	struct context c = context_open(4096), second = context_open(4096);
	struct other other = { .c = &c };
	struct cosy_run r = { .regs[1] = 3 };
	pthread_t thread;
	int busy = 0;

	load(&c, count_turns);
	load(&second, count_turns);
	pthread_create(&thread, NULL, run_long, &other);
	while (!other.running)
		sched_yield();
	for (int i = 0; i < 1000 && !busy; i++) {
		r.regs[1] = 3;
		busy = ioctl(c.fd, COSY_IOC_RUN, &r) && errno == EBUSY;
		usleep(100);
	}
	equal("busy", busy, 1);
	r = (struct cosy_run){ .regs[1] = 3 };
	run(&second, &r);
	equal("turns", (long long)r.regs[2], 3);
	pthread_join(thread, NULL);
}

static void case_closes_itself(void)
{
	struct context c = context_open(4096);
	const struct cosy_insn insns[] = {
		{ .op = COSY_I_CALL, .dst = 2, .a = 1, .imm = SYS_close },
		{ .op = COSY_I_CALL, .dst = 3, .imm = SYS_getpid },
		{ .op = COSY_I_EXIT },
	};
	struct cosy_run r = { .program = load(&c, insns), .regs[1] = (unsigned int)c.fd };

	munmap(c.buffer, c.bytes);
	run(&c, &r);
	// without the mapping no call is made: its pointers would have no meaning
	equal("close", (long long)r.regs[2], -EFAULT);
	c = context_open(4096);
	r = (struct cosy_run){ .program = load(&c, insns), .regs[1] = (unsigned int)c.fd };
	run(&c, &r);
	equal("status", r.outcome.status, 0);
	equal("close", (long long)r.regs[2], 0);
	equal("getpid", (long long)r.regs[3], getpid());
	if (fcntl(c.fd, F_GETFD) != -1)
		fail("still open");
}

// Calls mean what they mean elsewhere.
static void case_calls(void)
{
	struct context c = context_open(65536);
	const struct cosy_insn insns[] = {
		// r10 = openat(AT_FDCWD, 0, O_CREAT|O_RDWR, 0600)
		{ .op = COSY_I_MOVI, .dst = 1, .imm = AT_FDCWD },
		{ .op = COSY_I_MOVI, .dst = 3, .imm = O_CREAT | O_RDWR },
		{ .op = COSY_I_MOVI, .dst = 4, .imm = 0600 },
		{ .op = COSY_I_CALL, .dst = 10, .a = 1, .imm = SYS_openat },
		// r11 = write(r10, 100, 5)
		{ .op = COSY_I_MOV, .dst = 5, .a = 10 },
		{ .op = COSY_I_MOVI, .dst = 6, .imm = 100 },
		{ .op = COSY_I_MOVI, .dst = 7, .imm = 5 },
		{ .op = COSY_I_CALL, .dst = 11, .a = 5, .imm = SYS_write },
		// r12 = fstat(r10, 1000); r13 = its size
		{ .op = COSY_I_MOVI, .dst = 6, .imm = 1000 },
		{ .op = COSY_I_CALL, .dst = 12, .a = 5, .imm = SYS_fstat },
		{ .op = COSY_I_LD64, .dst = 13, .a = 6, .imm = offsetof(struct stat, st_size) },
		{ .op = COSY_I_CALL, .dst = 14, .a = 5, .imm = SYS_close },
		// r15 = close again
		{ .op = COSY_I_CALL, .dst = 15, .a = 5, .imm = SYS_close },
		// r16 = fstat into what is no memory; r17 = with NULL
		{ .op = COSY_I_MOVI, .dst = 5 },
		{ .op = COSY_I_MOVI, .dst = 6, .imm = 65536 - 143 },
		{ .op = COSY_I_CALL, .dst = 16, .a = 5, .imm = SYS_fstat },
		{ .op = COSY_I_MOVI, .dst = 6, .imm = -1 },
		{ .op = COSY_I_CALL, .dst = 17, .a = 5, .imm = SYS_fstat },
		// r18 = unlinkat(AT_FDCWD, 0, 0)
		{ .op = COSY_I_MOVI, .dst = 3 },
		{ .op = COSY_I_CALL, .dst = 18, .a = 1, .imm = SYS_unlinkat },
		{ .op = COSY_I_CALL, .dst = 19, .a = 1, .imm = SYS_unlinkat },
		{ .op = COSY_I_EXIT },
	};
	struct cosy_run r = { .program = load(&c, insns) };

	strcpy((char *)c.buffer, "/tmp/by-a-compound");
	memcpy(c.buffer + 100, "12345", 5);
	run(&c, &r);
	equal("status", r.outcome.status, 0);
	if ((long long)r.regs[10] < 3)
		fail("openat: %lld", (long long)r.regs[10]);
	equal("write", (long long)r.regs[11], 5);
	equal("fstat", (long long)r.regs[12], 0);
	equal("size", (long long)r.regs[13], 5);
	equal("close", (long long)r.regs[14], 0);
	equal("second close", (long long)r.regs[15], -EBADF);
	equal("fstat out of the buffer", (long long)r.regs[16], -EFAULT);
	equal("fstat to NULL", (long long)r.regs[17], -EFAULT);
	equal("unlinkat", (long long)r.regs[18], 0);
	equal("second unlinkat", (long long)r.regs[19], -ENOENT);
}

// inotify sees the same as with plain calls; a pure read leaves the access time.
static unsigned int events(int inotify)
{
	char buffer[4096];
	ssize_t got = read(inotify, buffer, sizeof(buffer));
	unsigned int all = 0;

	for (ssize_t at = 0; at < got;) {
		struct inotify_event *e = (void *)(buffer + at);

		// merged or not: which kinds, and how many openings
		all |= e->mask & ~IN_OPEN;
		if (e->mask & IN_OPEN)
			all += 0x10000000;
		at += (ssize_t)(sizeof(*e) + e->len);
	}
	return all;
}

// By the module, or (c is NULL) by plain calls.
static void read_file(const struct context *c, const char *name, unsigned int flags)
{
	char byte;
	int fd;

	if (c) {
		strcpy((char *)c->buffer, name);
		equal("files",
		      fused(c, (struct cosy_fused){ .op = COSY_OP_FILES,
						    .flags = flags,
						    .args = { (unsigned int)AT_FDCWD,
							      COSY_WANT_DATA, 4096, 32768, 0,
							      strlen(name) + 1, 0, 4096 } })
			      .result,
		      1);
		return;
	}
	fd = open(name, O_RDONLY);
	if (read(fd, &byte, 1) != 1)
		fail("read");
	close(fd);
}

// The file was read at `atime`, and is read again when the clock is `later` seconds ahead.
static bool atime_changes(const struct context *c, const char *name, unsigned int flags, long atime,
			  long later)
{
	struct timespec times[2] = { { atime, 0 }, { 2000, 0 } }, clock;
	struct stat st;

	if (utimensat(AT_FDCWD, name, times, 0))
		fail("utimensat: %s", strerror(errno));
	clock_gettime(CLOCK_REALTIME, &clock);
	clock.tv_sec += later;
	if (later && clock_settime(CLOCK_REALTIME, &clock))
		fail("clock_settime: %s", strerror(errno));
	read_file(c, name, flags);
	clock.tv_sec -= later;
	if (later)
		clock_settime(CLOCK_REALTIME, &clock);
	stat(name, &st);
	return st.st_atime != atime;
}

// relatime: changed if the file changed since, or a day later. As plain calls have it.
static void check_access_times(const struct context *c, const char *name)
{
	static const struct {
		long atime, later; // from now on
		bool changes;
	} cases[] = {
		{ -100, 0, true },     { 100, 0, false },      { 100, 1000, false },
		{ 100, 80000, false }, { 100, 90000, true },   { 100, 200000, true },
		{ 300000, 0, false },  { 300000, 200, false },
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		long atime = time(NULL) + cases[i].atime;

		equal("plain", atime_changes(NULL, name, 0, atime, cases[i].later),
		      cases[i].changes);
		equal("access time", atime_changes(c, name, 0, atime, cases[i].later),
		      cases[i].changes);
	}
	equal("pure", atime_changes(c, name, COSY_FUSED_PURE, 1000, 0), false);
}

static void case_traces(void)
{
	struct context c = context_open(65536);
	int inotify = inotify_init1(IN_NONBLOCK), fd;
	unsigned int plain;
	char data[100];

	mkdir("/tmp/traces", 0755);
	for (int i = 0; i < 3; i++) {
		snprintf(data, sizeof(data), "/tmp/traces/%d", i);
		fd = open(data, O_CREAT | O_WRONLY, 0644);
		if (write(fd, "some text", 9) != 9)
			fail("write");
		close(fd);
	}
	inotify_add_watch(inotify, "/tmp/traces", IN_ALL_EVENTS);
	for (int i = 0; i < 3; i++) {
		snprintf(data, sizeof(data), "/tmp/traces/%d", i);
		fd = open(data, O_RDONLY);
		if (read(fd, data, sizeof(data)) != 9)
			fail("read");
		close(fd);
	}
	plain = events(inotify);
	if (plain != 0x30000000 + (IN_ACCESS | IN_CLOSE_NOWRITE))
		fail("plain calls: events %x", plain);
	memcpy(c.buffer, "/tmp/traces/0\0/tmp/traces/1\0/tmp/traces/2", 42);
	fused(&c, (struct cosy_fused){
			  .op = COSY_OP_FILES,
			  .args = { (unsigned int)AT_FDCWD, COSY_WANT_DATA, 4096, 32768, 0, 42, 0,
				    4096 },
		  });
	equal("events", events(inotify), plain);
	check_access_times(&c, "/tmp/traces/0");
	// nothing stays open
	if (unlink("/tmp/traces/0") || unlink("/tmp/traces/1") || unlink("/tmp/traces/2") ||
	    rmdir("/tmp/traces"))
		fail("unlink: %s", strerror(errno));
}

// Partial results of a fused operation are good, and say where to go on.
static void case_partial(void)
{
	struct context c = context_open(1 << 20);
	int fd = open("/proc/self/fd/.", O_RDONLY | O_DIRECTORY), n = 0, rounds = 0;
	struct cosy_fused call = { .op = COSY_OP_ENTRIES };
	const struct cosy_block *block = (const void *)c.buffer;
	char name[32];

	mkdir("/tmp/partial", 0755);
	for (int i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "/tmp/partial/%d", i);
		close(open(name, O_CREAT | O_WRONLY, 0644));
	}
	close(fd);
	fd = open("/tmp/partial", O_RDONLY | O_DIRECTORY);
	call.args[0] = (unsigned int)fd;
	call.args[3] = c.bytes;
	do {
		call.limits.ops = 7;
		call = fused(&c, call);
		if (call.outcome.status && call.outcome.status != -E2BIG)
			fail("status %d", call.outcome.status);
		n += (int)block->n;
		call.args[4] = block->next;
	} while (!(block->flags & COSY_BLOCK_END) && ++rounds < 100);
	equal("entries", n, 100);
	equal("rounds", rounds, 14);
	call.args[1] = 0x8000;
	call = fused(&c, call);
	equal("unknown flag", call.result, -EINVAL);
	call.args[1] = 0;
	call.args[2] = 4;
	equal("unaligned results", fused(&c, call).result, -EFAULT);
	call.args[2] = c.bytes;
	equal("results behind the buffer", fused(&c, call).result, -EFAULT);
	call.args[2] = c.bytes - 8;
	call.args[3] = 8;
	equal("no room for a block", fused(&c, call).result, -ENOSPC);
	call.args[3] = ~0ull;
	equal("too much room", fused(&c, call).result, -EFAULT);
	call.args[0] = 12345;
	call.args[3] = 8;
	equal("no such descriptor", fused(&c, call).result, -EBADF);
}

static void hold(void)
{
	struct context c = context_open(65536);

	load(&c, count_turns);
	printf("held\n");
	fflush(stdout);
	pause();
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} cases[] = {
		{ "refusals", case_refusals },
		{ "arithmetic", case_arithmetic },
		{ "faults", case_faults },
		{ "ops", case_ops },
		{ "deadline", case_deadline },
		{ "signal", case_signal },
		{ "signal-copy", case_signal_copy },
		{ "restart", case_restart },
		{ "kill", case_kill },
		{ "seccomp", case_seccomp },
		{ "dispatch", case_dispatch },
		{ "ptrace", case_ptrace },
		{ "attach", case_attach },
		{ "fork", case_fork },
		{ "setup", case_setup },
		{ "busy", case_busy },
		{ "calls", case_calls },
		{ "closes-itself", case_closes_itself },
		{ "landlock", case_landlock },
		{ "traces", case_traces },
		{ "partial", case_partial },
	};

	self = argv[0];
	if (argc == 3 && !strcmp(argv[1], "inherited"))
		inherited(atoi(argv[2]));
	if (argc == 2 && !strcmp(argv[1], "audited"))
		audited();
	if (argc == 2 && !strcmp(argv[1], "hold"))
		hold();
	for (size_t i = 0; i < COUNT(cases); i++) {
		bool wanted = argc == 1;

		for (int k = 1; k < argc; k++)
			wanted = wanted || !strcmp(argv[k], cases[i].name);
		if (!wanted)
			continue;
		cases[i].run();
		printf("%s\n", cases[i].name);
		fflush(stdout);
	}
	return 0;
}
