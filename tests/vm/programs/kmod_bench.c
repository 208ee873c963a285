// SPDX-License-Identifier: MIT
/*
 * kmod_bench DIR [REPEATS [TREE]]: instructions per item, one way after the other, of
 * plain calls and of fused operations over DIR's files, over a tree, and over sockets.
 * Under -icount a clock counts instructions. What was read must be the same both ways.
 */
#include <dirent.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

#include "context.h"

#define MOST_FILES 65536
#define MOST_BYTES 65536
#define MOST_REPEATS 64
#define BUFFER (32u << 20)
#define SETTLE_US 1000000

static struct context c;
static const char *dir;
static int dirfd_;
static char *names;
static size_t names_bytes;
static int n_files;
static char data[MOST_BYTES];
static unsigned long long sum; // over what was read

struct dirent64_ {
	unsigned long long ino;
	long long off;
	unsigned short reclen;
	unsigned char type;
	char name[];
};

static unsigned long long now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (unsigned long long)t.tv_sec * 1000000000 + (unsigned long long)t.tv_nsec;
}

static bool is_dot(const char *name)
{
	return name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2]));
}

static void add_attributes(unsigned long long ino, unsigned long long size, unsigned int mode)
{
	sum += ino * 31 + size * 7 + mode;
}

static void add_data(const char *from, long bytes)
{
	sum = sum * 3 + (unsigned long long)bytes;
	for (long i = 0; i + 8 <= bytes; i += 512) {
		unsigned long long word;

		memcpy(&word, from + i, 8);
		sum += word;
	}
}

static int stat_plain(void)
{
	static char entries[32768];
	struct stat st;
	long got;
	int n = 0;

	lseek(dirfd_, 0, SEEK_SET);
	while ((got = syscall(SYS_getdents64, dirfd_, entries, sizeof(entries))) > 0) {
		for (long at = 0; at < got;) {
			struct dirent64_ *e = (void *)(entries + at);

			at += e->reclen;
			if (is_dot(e->name))
				continue;
			if (syscall(SYS_newfstatat, dirfd_, e->name, &st, AT_SYMLINK_NOFOLLOW))
				fail("stat %s: %s", e->name, strerror(errno));
			add_attributes(st.st_ino, (unsigned long long)st.st_size, st.st_mode);
			n++;
		}
	}
	return n;
}

static int stat_fused(void)
{
	struct cosy_fused r = fused(&c, (struct cosy_fused){
						.op = COSY_OP_ENTRIES,
						.args = { (unsigned int)dirfd_, 0, 0, c.bytes },
					});
	const struct cosy_block *block = (const void *)c.buffer;
	const struct cosy_entry *e = (const void *)(block + 1);

	if (r.result < 0 || !(block->flags & COSY_BLOCK_END))
		fail("entries: %lld, status %d", (long long)r.result, r.outcome.status);
	for (unsigned int i = 0; i < block->n; i++, e = next_entry(e))
		add_attributes(e->ino, e->size, e->mode);
	return (int)block->n;
}

static int read_plain(void)
{
	const char *name = names;
	struct stat st;

	for (int i = 0; i < n_files; i++, name += strlen(name) + 1) {
		int fd = (int)syscall(SYS_openat, dirfd_, name, O_RDONLY);
		long got;

		if (fd < 0 || syscall(SYS_fstat, fd, &st))
			fail("open %s: %s", name, strerror(errno));
		got = syscall(SYS_read, fd, data, sizeof(data));
		syscall(SYS_close, fd);
		add_attributes(st.st_ino, (unsigned long long)st.st_size, st.st_mode);
		add_data(data, got);
	}
	return n_files;
}

static void add_files(const struct cosy_fused *r)
{
	const struct cosy_block *block = (const void *)(c.buffer + r->args[2]);
	const struct cosy_entry *e = (const void *)(block + 1);

	if (r->result < 0 || !(block->flags & COSY_BLOCK_END))
		fail("files: %lld, status %d", (long long)r->result, r->outcome.status);
	for (unsigned int i = 0; i < block->n; i++, e = next_entry(e)) {
		if (e->error || e->data < 0)
			fail("%s: %d %d", cosy_entry_name(e), e->error, e->data);
		add_attributes(e->ino, e->size, e->mode);
		add_data(cosy_entry_data(e), e->data);
	}
}

static struct cosy_fused files_call(size_t bytes)
{
	unsigned long long out = (bytes + 7) & ~7ull;

	return (struct cosy_fused){
		.op = COSY_OP_FILES,
		.args = { (unsigned int)dirfd_, COSY_WANT_DATA, out, c.bytes - out, 0, bytes, 0,
			  MOST_BYTES },
	};
}

static int read_batch(void)
{
	struct cosy_fused r;

	memcpy(c.buffer, names, names_bytes);
	r = fused(&c, files_call(names_bytes));
	add_files(&r);
	return n_files;
}

static int read_single(void)
{
	const char *name = names;

	for (int i = 0; i < n_files; i++) {
		size_t bytes = strlen(name) + 1;
		struct cosy_fused r;

		memcpy(c.buffer, name, bytes);
		r = fused(&c, files_call(bytes));
		add_files(&r);
		name += bytes;
	}
	return n_files;
}

/* The whole directory with contents, in one operation; the order is the directory's. */
static int read_directory(void)
{
	struct cosy_fused r = fused(&c, (struct cosy_fused){
						.op = COSY_OP_ENTRIES,
						.args = { (unsigned int)dirfd_, COSY_WANT_DATA, 0,
							  c.bytes, 0, 0, 0, MOST_BYTES },
					});

	add_files(&r);
	return n_files;
}

// --- a tree ---------------------------------------------------------------------------

static const char *tree;

static int walk_plain(int fd)
{
	char entries[8192];
	struct stat st;
	long got;
	int n = 0;

	if (fd < 0)
		fail("walk: %s", strerror(errno));
	while ((got = syscall(SYS_getdents64, fd, entries, sizeof(entries))) > 0) {
		for (long at = 0; at < got;) {
			struct dirent64_ *e = (void *)(entries + at);

			at += e->reclen;
			if (is_dot(e->name))
				continue;
			if (syscall(SYS_newfstatat, fd, e->name, &st, AT_SYMLINK_NOFOLLOW))
				fail("stat %s: %s", e->name, strerror(errno));
			add_attributes(st.st_ino, (unsigned long long)st.st_size, st.st_mode);
			n++;
			if (S_ISDIR(st.st_mode))
				n += walk_plain((int)syscall(SYS_openat, fd, e->name,
							     O_RDONLY | O_DIRECTORY));
		}
	}
	syscall(SYS_close, fd);
	return n;
}

static int tree_plain(void)
{
	return walk_plain((int)syscall(SYS_openat, AT_FDCWD, tree, O_RDONLY | O_DIRECTORY));
}

/* One crossing for the whole of it. */
static int tree_fused(void)
{
	int fd = open(tree, O_RDONLY | O_DIRECTORY), n = 0;
	struct cosy_fused r =
		fused(&c, (struct cosy_fused){
				  .op = COSY_OP_ENTRIES,
				  .args = { (unsigned int)fd, 0, 0, c.bytes, 0, COSY_MAX_DEPTH },
			  });

	for (unsigned long long at = 0; at < r.used;) {
		const struct cosy_block *block = (const void *)(c.buffer + at);
		const struct cosy_entry *e = (const void *)(block + 1);

		if (!(block->flags & COSY_BLOCK_END))
			fail("tree: error %u", block->error);
		for (unsigned int i = 0; i < block->n; i++, e = next_entry(e), n++)
			add_attributes(e->ino, e->size, e->mode);
		at += block->bytes;
	}
	close(fd);
	return n;
}

// --- sockets --------------------------------------------------------------------------

#define SOCKETS 64
#define MESSAGE 100

static int server[SOCKETS], client[SOCKETS];

static void open_sockets(void)
{
	for (int i = 0; i < SOCKETS; i++) {
		int pair[2];

		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair))
			fail("socketpair: %s", strerror(errno));
		server[i] = pair[0];
		client[i] = pair[1];
	}
}

static void say(const int *from, const char *what)
{
	for (int i = 0; i < SOCKETS; i++)
		if (write(from[i], what, MESSAGE) != MESSAGE)
			fail("write: %s", strerror(errno));
}

static void hear(const int *to)
{
	for (int i = 0; i < SOCKETS; i++)
		if (read(to[i], data, sizeof(data)) != MESSAGE)
			fail("read: %s", strerror(errno));
		else
			add_data(data, MESSAGE);
}

static int receive_plain(void)
{
	for (int i = 0; i < SOCKETS; i++) {
		long got =
			syscall(SYS_recvfrom, server[i], data, MESSAGE, MSG_DONTWAIT, NULL, NULL);

		add_data(data, got);
	}
	return SOCKETS;
}

static int receive_batch(void)
{
	struct cosy_fused r;
	const struct cosy_message *m = (const void *)(c.buffer + 4096);

	memcpy(c.buffer, server, sizeof(server));
	r = fused(&c, (struct cosy_fused){
			      .op = COSY_OP_RECEIVE,
			      .args = { 0, 0, 4096, c.bytes - 4096, 0, sizeof(server), MESSAGE } });
	for (long long i = 0; i < r.result; i++) {
		add_data((const char *)(m + 1), m->result);
		m = (const void *)((const char *)(m + 1) + (m->result + 7) / 8 * 8);
	}
	return (int)r.result;
}

static int send_plain(void)
{
	for (int i = 0; i < SOCKETS; i++)
		if (syscall(SYS_sendto, server[i], data, MESSAGE, MSG_DONTWAIT | MSG_NOSIGNAL, NULL,
			    0) != MESSAGE)
			fail("send: %s", strerror(errno));
	return SOCKETS;
}

static int send_batch(void)
{
	unsigned char *at = c.buffer;

	for (int i = 0; i < SOCKETS; i++) {
		*(struct cosy_message *)at = (struct cosy_message){ server[i], MESSAGE };
		at += sizeof(struct cosy_message);
		memcpy(at, data, MESSAGE);
		at += (MESSAGE + 7) / 8 * 8;
	}
	return (int)fused(&c,
			  (struct cosy_fused){ .op = COSY_OP_SEND,
					       .args = { 0, 0, 1 << 20, 4096, 0,
							 (unsigned long long)(at - c.buffer) } })
		.result;
}

// --- a call -----------------------------------------------------------------------------

static int getppid_plain(void)
{
	for (int i = 0; i < 20000; i++)
		syscall(SYS_getppid);
	return 20000;
}

static __u32 getppid_program;

static int getppid_compound(void)
{
	struct cosy_run run = { .program = getppid_program, .regs[1] = 20000 };

	if (ioctl(c.fd, COSY_IOC_RUN, &run) || run.outcome.status)
		fail("run: %d", run.outcome.status);
	return 20000;
}

static void load_getppid(void)
{
	const struct cosy_insn insns[] = {
		{ .op = COSY_I_CALL, .dst = 2, .imm = SYS_getppid },
		{ .op = COSY_I_LOOP, .dst = 1, .imm = -2 },
		{ .op = COSY_I_EXIT },
	};
	struct cosy_load load = { .insns = (unsigned long)insns, .n_insns = 3 };

	if (ioctl(c.fd, COSY_IOC_LOAD, &load))
		fail("load: %s, reason %u at %u", strerror(errno), load.reason, load.error_at);
	getppid_program = load.program;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

struct way {
	const char *name;
	int (*run)(void);
	void (*before)(void), (*after)(void); // not measured; NULL: nothing
	double each[MOST_REPEATS]; // instructions per item
	unsigned long long sum;
	int items;
};

/* Files that one way closed are freed after a grace period: not at the cost of the next way. */
static void settle(void)
{
	usleep(SETTLE_US);
}

static void measure(const char *what, struct way *ways, int n_ways, int repeats)
{
	for (int r = -1; r < repeats; r++) {
		for (int i = 0; i < n_ways; i++) {
			unsigned long long start;
			int items;

			settle();
			sum = 0;
			if (ways[i].before)
				ways[i].before();
			start = now();
			items = ways[i].run();
			if (r >= 0)
				ways[i].each[r] = (double)(now() - start) / items;
			if (ways[i].after)
				ways[i].after();
			ways[i].sum = sum;
			ways[i].items = items;
		}
	}
	for (int i = 0; i < n_ways; i++) {
		struct way *w = &ways[i];

		if (w->sum != ways[0].sum || w->items != ways[0].items)
			fail("%s %s: not what plain calls read", what, w->name);
		qsort(w->each, (size_t)repeats, sizeof(double), by_value);
		printf("{\"what\": \"%s\", \"dir\": \"%s\", \"way\": \"%s\", \"n\": %d, "
		       "\"items\": %d, \"median\": %.0f, \"min\": %.0f, \"max\": %.0f, "
		       "\"ratio\": %.2f}\n",
		       what, dir, w->name, repeats, w->items, w->each[repeats / 2], w->each[0],
		       w->each[repeats - 1], ways[0].each[repeats / 2] / w->each[repeats / 2]);
	}
}

// In the order of the directory, so that all ways sum up the same.
static void collect_names(void)
{
	static char entries[32768];
	long got;

	names = malloc(MOST_FILES * 256);
	while ((got = syscall(SYS_getdents64, dirfd_, entries, sizeof(entries))) > 0) {
		for (long at = 0; at < got;) {
			struct dirent64_ *e = (void *)(entries + at);

			at += e->reclen;
			if (is_dot(e->name))
				continue;
			if (n_files++ == MOST_FILES)
				fail("too many files");
			memcpy(names + names_bytes, e->name, strlen(e->name) + 1);
			names_bytes += strlen(e->name) + 1;
		}
	}
}

static void clients_say(void)
{
	say(client, data);
}

static void clients_hear(void)
{
	hear(client);
}

int main(int argc, char **argv)
{
	struct way trees[] = { { .name = "plain", .run = tree_plain },
			       { .name = "fused", .run = tree_fused } };
	struct way receive[] = {
		{ .name = "plain", .run = receive_plain, .before = clients_say },
		{ .name = "batch", .run = receive_batch, .before = clients_say },
	};
	struct way send[] = { { .name = "plain", .run = send_plain, .after = clients_hear },
			      { .name = "batch", .run = send_batch, .after = clients_hear } };
	struct way attributes[] = { { .name = "plain", .run = stat_plain },
				    { .name = "fused", .run = stat_fused } };
	struct way contents[] = { { .name = "plain", .run = read_plain },
				  { .name = "batch", .run = read_batch },
				  { .name = "directory", .run = read_directory },
				  { .name = "single", .run = read_single } };
	struct way calls[] = { { .name = "plain", .run = getppid_plain },
			       { .name = "compound", .run = getppid_compound } };
	int repeats = argc > 2 ? atoi(argv[2]) : 5;

	if (argc < 2 || repeats < 1 || repeats > MOST_REPEATS)
		fail("usage: kmod_bench DIR [REPEATS [TREE]]");
	tree = argc > 3 ? argv[3] : NULL;
	dir = argv[1];
	dirfd_ = open(dir, O_RDONLY | O_DIRECTORY);
	if (dirfd_ < 0)
		fail("%s: %s", dir, strerror(errno));
	collect_names();
	c = context_open(BUFFER);
	memset(c.buffer, 0, c.bytes); // no page faults while it is measured
	memset(data, 1, sizeof(data));
	load_getppid();
	open_sockets();
	measure("readdirplus", attributes, 2, repeats);
	measure("slurp", contents, 4, repeats);
	measure("getppid", calls, 2, repeats);
	measure("receive", receive, 2, repeats);
	measure("send", send, 2, repeats);
	if (tree)
		measure("tree", trees, 2, repeats);
	return 0;
}
