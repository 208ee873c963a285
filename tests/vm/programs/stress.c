// SPDX-License-Identifier: MIT
/*
 * stress FOLDER SECONDS READERS: right compounds from many at once over files that
 * others replace, remove and push out of the page cache meanwhile. A file is put in
 * place whole, by rename, and each byte of it says which file it is: what is read
 * must be all of one file, never another's, and as long as its attributes say.
 *
 * READERS processes of two threads each: a context of their own for each, and one
 * that both want. Prints what was done as a line of JSON; exit code 1 and a line
 * for each on stderr: what is not as it must be.
 */
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "context.h"
#include "fuzz_random.h"

#define FILES 48
#define LARGEST 20000
#define BUFFER (2u << 20)
#define OUT 4096 /* in front of it are names */
#define WRITERS 2
#define CHECKED_EVERY 61 /* bytes; a wrong one is one of a whole page */
#define CACHE_DROP_US 200000

static struct shared {
	unsigned long long operations, files, bytes, ahead, names, absent, busy, wrong;
} *shared;

#define COUNT(field, n) __atomic_add_fetch(&shared->field, n, __ATOMIC_RELAXED)
#define WRONG(...)                                                                                 \
	do {                                                                                       \
		if (COUNT(wrong, 1) <= 20)                                                         \
			dprintf(STDERR_FILENO, "stress: " __VA_ARGS__);                            \
	} while (0)

static int dir;

static unsigned char byte_of(const char *name)
{
	return (unsigned char)(atoi(name + 1) + 1);
}

static void write_file(unsigned int n, const char *scratch)
{
	static char content[LARGEST];
	size_t bytes = below(LARGEST);
	char name[16];
	int fd = openat(dir, scratch, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	snprintf(name, sizeof(name), "n%u", n);
	memset(content, byte_of(name), bytes);
	if (fd < 0 || write(fd, content, bytes) != (ssize_t)bytes || close(fd) ||
	    renameat(dir, scratch, dir, name))
		fail("%s: %s", name, strerror(errno));
}

static void writer(void)
{
	char scratch[32];

	snprintf(scratch, sizeof(scratch), ".new-%d", getpid());
	for (;;) {
		char name[16];

		write_file((unsigned int)below(FILES), scratch);
		if (one_in(4)) {
			snprintf(name, sizeof(name), "n%u", (unsigned int)below(FILES));
			unlinkat(dir, name, 0);
		}
		usleep(1 + (unsigned int)below(2000));
	}
}

static void cache_dropper(void)
{
	for (;;) {
		int fd = open("/proc/sys/vm/drop_caches", O_WRONLY);

		if (fd >= 0 && write(fd, one_in(2) ? "1" : "3", 1) != 1)
			fail("drop_caches: %s", strerror(errno));
		close(fd);
		usleep(CACHE_DROP_US);
	}
}

/* An emulated CPU may be stopped for as long as a deadline: what is there is good. */
static bool late(const struct cosy_outcome *outcome)
{
	return outcome->status == -ETIME;
}

/* The last one of a run that came too late may be cut. */
static void check_entry(const struct cosy_entry *e, bool may_be_cut)
{
	const char *name = cosy_entry_name(e);
	const unsigned char *data = (const void *)cosy_entry_data(e);

	if (e->error == -ENOENT) {
		COUNT(absent, 1);
		return;
	}
	if (e->error || e->data < 0) {
		WRONG("%s: error %d, data %d\n", name, e->error, e->data);
		return;
	}
	COUNT(files, 1);
	COUNT(bytes, (unsigned long long)e->data);
	if (e->flags & COSY_ENTRY_AHEAD) {
		COUNT(ahead, 1);
		may_be_cut = false;
	}
	if (name[0] != 'n' || !(e->flags & COSY_ENTRY_DATA))
		return;
	if ((unsigned long long)e->data != e->size &&
	    !(may_be_cut && !(e->flags & COSY_ENTRY_DATA_END)))
		WRONG("%s: %d of %llu bytes\n", name, e->data, (unsigned long long)e->size);
	for (int i = 0; i < e->data; i += CHECKED_EVERY) {
		if (data[i] != byte_of(name)) {
			WRONG("%s: byte %d of %d is %u\n", name, i, e->data, data[i]);
			return;
		}
	}
}

/* Nothing was looked at but the directory. */
static void check_name(const struct cosy_entry *e)
{
	COUNT(names, 1);
	if (!e->name_len || e->error || e->flags || e->mask || e->ino || e->data)
		WRONG("%s: more than its name\n", cosy_entry_name(e));
}

static void check(const struct cosy_fused *call, const unsigned char *buffer)
{
	const struct cosy_block *block = (const void *)(buffer + OUT);
	bool names = call->op == COSY_OP_ENTRIES && call->args[1] & COSY_WANT_NAMES;
	const struct cosy_entry *e = (const void *)(block + 1);

	if (call->result < 0 || (!(block->flags & COSY_BLOCK_END) && !late(&call->outcome))) {
		WRONG("operation %u: %lld, status %d\n", call->op, (long long)call->result,
		      call->outcome.status);
		return;
	}
	for (unsigned int i = 0; i < block->n; i++, e = next_entry(e)) {
		if (names)
			check_name(e);
		else
			check_entry(e, i == block->n - 1 && late(&call->outcome));
	}
}

/* One operation; false: another thread has the context. */
static bool operate(const struct context *c)
{
	struct cosy_fused call = { .op = COSY_OP_FILES,
				   .flags = one_in(2) ? COSY_FUSED_PURE : 0,
				   .args = { (unsigned int)dir, COSY_WANT_DATA, OUT, c->bytes - OUT,
					     0, 0, 0, LARGEST } };

	switch (below(4)) {
	case 0:
		call.op = COSY_OP_ENTRIES;
		call.args[1] |= one_in(4) ? COSY_WANT_NAMES : 0;
		call.args[5] = 0;
		break;
	case 1:
		call.op = COSY_OP_SCAN;
		call.args[1] = COSY_WANT_HINTS;
		call.args[4] = 0;
		break;
	default:
		call.args[1] |= one_in(2) ? COSY_WANT_AHEAD : 0;
		for (unsigned int i = 0; i < FILES; i++)
			call.args[5] += (unsigned int)snprintf((char *)c->buffer + call.args[5], 8,
							       "n%u", (unsigned int)below(FILES)) +
					1;
	}
	if (ioctl(c->fd, COSY_IOC_FUSED, &call)) {
		if (errno != EBUSY)
			WRONG("operation %u: %s\n", call.op, strerror(errno));
		return false;
	}
	COUNT(operations, 1);
	if (call.op != COSY_OP_SCAN)
		check(&call, c->buffer);
	else if (call.result < 0)
		WRONG("scan: %lld\n", (long long)call.result);
	return true;
}

/* A program that makes calls in a loop. */
static void compute(const struct context *c)
{
	static const struct cosy_insn insns[] = {
		{ .op = COSY_I_CALL, .dst = 2, .imm = SYS_getppid },
		{ .op = COSY_I_LOOP, .dst = 1, .imm = -2 },
		{ .op = COSY_I_EXIT },
	};
	struct cosy_load load = { .insns = (unsigned long)insns, .n_insns = 3 };
	struct cosy_run run = { .regs[1] = 1 + below(500) };

	if (ioctl(c->fd, COSY_IOC_LOAD, &load)) {
		WRONG("load: %s\n", strerror(errno));
		return;
	}
	run.program = load.program;
	if (ioctl(c->fd, COSY_IOC_RUN, &run) ||
	    (!late(&run.outcome) && (run.outcome.status || run.regs[2] != (unsigned int)getppid())))
		WRONG("run: status %d\n", run.outcome.status);
	ioctl(c->fd, COSY_IOC_UNLOAD, &load.program);
	COUNT(operations, 1);
}

static struct context common;
static pthread_mutex_t common_checked = PTHREAD_MUTEX_INITIALIZER;

static void *reader(void *arg)
{
	(void)arg;
	for (;;) {
		struct context own = context_open(BUFFER);

		for (unsigned int i = 0; i < 50; i++) {
			operate(&own);
			if (one_in(8))
				compute(&own);
			/* its results may be looked at by one thread only; asking is free */
			if (one_in(4) && !pthread_mutex_trylock(&common_checked)) {
				operate(&common);
				pthread_mutex_unlock(&common_checked);
			} else if (one_in(4)) {
				struct cosy_fused call = { .op = COSY_OP_COPY,
							   .args = { 0, 0, 0 } };

				if (ioctl(common.fd, COSY_IOC_FUSED, &call) && errno == EBUSY)
					COUNT(busy, 1);
			}
		}
		munmap(own.buffer, own.bytes);
		close(own.fd);
	}
	return NULL;
}

static void reader_process(void)
{
	pthread_t second;

	common = context_open(BUFFER);
	if (pthread_create(&second, NULL, reader, NULL))
		fail("pthread_create");
	reader(NULL);
}

static pid_t start(void (*what)(void), unsigned int n)
{
	pid_t pid = fork();

	if (!pid) {
		random_state = 1 + n * 2654435761u;
		what();
	}
	return pid;
}

int main(int argc, char **argv)
{
	unsigned int n = 0, readers;
	pid_t children[64];

	if (argc != 4 || chdir(argv[1])) {
		fprintf(stderr, "usage: stress FOLDER SECONDS READERS\n");
		return 2;
	}
	readers = (unsigned int)atoi(argv[3]) % 32;
	random_state = 1;
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	dir = open(".", O_RDONLY | O_DIRECTORY);
	for (unsigned int i = 0; i < FILES; i++)
		write_file(i, ".new");
	for (unsigned int i = 0; i < WRITERS; i++, n++)
		children[n] = start(writer, n);
	children[n] = start(cache_dropper, n);
	n++;
	for (unsigned int i = 0; i < readers; i++, n++)
		children[n] = start(reader_process, n);
	sleep((unsigned int)atoi(argv[2]));
	for (unsigned int i = 0; i < n; i++) {
		if (waitpid(children[i], NULL, WNOHANG))
			WRONG("process %u ended by itself\n", i);
		kill(children[i], SIGKILL);
	}
	while (wait(NULL) > 0)
		;
	printf("{\"operations\": %llu, \"files\": %llu, \"bytes\": %llu, \"ahead\": %llu, "
	       "\"names\": %llu, \"absent\": %llu, \"busy\": %llu, \"wrong\": %llu}\n",
	       shared->operations, shared->files, shared->bytes, shared->ahead, shared->names,
	       shared->absent, shared->busy, shared->wrong);
	return shared->wrong != 0;
}
