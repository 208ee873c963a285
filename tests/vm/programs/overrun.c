// SPDX-License-Identifier: MIT
/*
 * overrun FOLDER: by how much a run exceeds its deadline at worst, for work of each
 * kind that goes on much longer. Under -icount a nanosecond is an instruction, and
 * nobody else takes the CPU. One line of JSON for each kind.
 */
#include <linux/types.h>
#include <sys/stat.h>
#include <time.h>

#include "context.h"

#define BUFFER (8u << 20)
#define OUT (1u << 20)
#define FILES 2000
#define LARGE (16u << 20)
#define TRIES 20

static struct context c;
static int dir, large, target;
static unsigned int names_bytes;

static void prepare(void)
{
	static char block[1 << 20];
	char name[32];

	dir = open(".", O_RDONLY | O_DIRECTORY);
	for (int i = 0; i < FILES; i++) {
		int n = snprintf(name, sizeof(name), "file-%d", i),
		    fd = open(name, O_RDWR | O_CREAT, 0600);

		if (fd < 0 || write(fd, block, (size_t)i % 8192) < 0)
			fail("%s: %s", name, strerror(errno));
		close(fd);
		memcpy(c.buffer + names_bytes, name, (size_t)n + 1);
		names_bytes += (unsigned int)n + 1;
	}
	large = open("large", O_RDWR | O_CREAT, 0600);
	target = open("target", O_RDWR | O_CREAT, 0600);
	for (unsigned int done = 0; done < LARGE; done += sizeof(block)) {
		if (write(large, block, sizeof(block)) < 0)
			fail("large: %s", strerror(errno));
	}
}

static struct cosy_outcome run(const struct cosy_insn *insns, unsigned int n, __u64 deadline_ns)
{
	struct cosy_load load = { .insns = (unsigned long)insns, .n_insns = n };
	struct cosy_run go = { .limits.deadline_ns = deadline_ns };

	if (ioctl(c.fd, COSY_IOC_LOAD, &load))
		fail("load: reason %u at %u", load.reason, load.error_at);
	go.program = load.program;
	if (ioctl(c.fd, COSY_IOC_RUN, &go) || ioctl(c.fd, COSY_IOC_UNLOAD, &load.program))
		fail("run: %s", strerror(errno));
	return go.outcome;
}

/* A loop whose body is as long as a program can be, filled with one instruction. */
static struct cosy_outcome filled(struct cosy_insn body, __u64 deadline_ns)
{
	static struct cosy_insn insns[COSY_MAX_INSNS];
	unsigned int n = COSY_MAX_INSNS;

	insns[0] = (struct cosy_insn){ .op = COSY_I_MOVI, .dst = 24, .imm = 1 << 30 };
	for (unsigned int i = 1; i < n - 2; i++)
		insns[i] = body;
	insns[n - 2] = (struct cosy_insn){ .op = COSY_I_LOOP, .dst = 24, .imm = -(int)(n - 2) };
	insns[n - 1] = (struct cosy_insn){ .op = COSY_I_EXIT };
	return run(insns, n, deadline_ns);
}

static struct cosy_outcome computing(__u64 deadline_ns)
{
	return filled((struct cosy_insn){ .op = COSY_I_MOD, .dst = 1, .a = 2, .b = 24 },
		      deadline_ns);
}

static struct cosy_outcome moving(__u64 deadline_ns)
{
	return filled((struct cosy_insn){ .op = COSY_I_MOVE, .a = 1, .b = 2, .imm = 1 << 20 },
		      deadline_ns);
}

static struct cosy_outcome comparing(__u64 deadline_ns)
{
	return filled(
		(struct cosy_insn){
			.op = COSY_I_COMPARE, .dst = 3, .a = 1, .b = 2, .imm = 1 << 20 },
		deadline_ns);
}

static struct cosy_outcome ask(struct cosy_fused call, __u64 deadline_ns)
{
	call.limits.deadline_ns = deadline_ns;
	return fused(&c, call).outcome;
}

static struct cosy_outcome entries(__u64 deadline_ns)
{
	return ask((struct cosy_fused){ .op = COSY_OP_ENTRIES,
					.args = { (unsigned int)dir, 0, OUT, c.bytes - OUT } },
		   deadline_ns);
}

static struct cosy_outcome entries_data(__u64 deadline_ns)
{
	return ask((struct cosy_fused){ .op = COSY_OP_ENTRIES,
					.args = { (unsigned int)dir, COSY_WANT_DATA, OUT,
						  c.bytes - OUT, 0, 0, 0, 1 << 20 } },
		   deadline_ns);
}

static struct cosy_outcome files(__u64 deadline_ns)
{
	return ask((struct cosy_fused){ .op = COSY_OP_FILES,
					.args = { (unsigned int)dir, COSY_WANT_DATA, OUT,
						  c.bytes - OUT, 0, names_bytes, 0, 1 << 20 } },
		   deadline_ns);
}

static struct cosy_outcome scanning(__u64 deadline_ns)
{
	return ask((struct cosy_fused){ .op = COSY_OP_SCAN,
					.args = { (unsigned int)dir, COSY_WANT_HINTS, OUT,
						  c.bytes - OUT } },
		   deadline_ns);
}

static struct cosy_outcome copying(__u64 deadline_ns)
{
	return ask((struct cosy_fused){ .op = COSY_OP_COPY,
					.args = { (unsigned int)large, (unsigned int)target, LARGE,
						  COSY_WANT_AT } },
		   deadline_ns);
}

static const struct {
	const char *name;
	struct cosy_outcome (*work)(__u64 deadline_ns);
} kinds[] = {
	{ "arithmetic", computing },
	{ "memory moved", moving },
	{ "memory compared", comparing },
	{ "entries", entries },
	{ "entries and data", entries_data },
	{ "files", files },
	{ "scan", scanning },
	{ "copy", copying },
};

int main(int argc, char **argv)
{
	if (argc != 2 || chdir(argv[1]))
		return 2;
	c = context_open(BUFFER);
	prepare();
	for (unsigned int k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
		long long worst = 0;
		int hit = 0;

		for (unsigned int i = 0; i < TRIES; i++) {
			__u64 deadline_ns = 20000 + 37000 * i;
			struct cosy_outcome outcome = kinds[k].work(deadline_ns);
			long long over = (long long)(outcome.time_ns - deadline_ns);

			hit += outcome.status == -ETIME;
			if (outcome.status == -ETIME && over > worst)
				worst = over;
		}
		printf("{\"overrun\": \"%s\", \"worst_ns\": %lld, \"n\": %d}\n", kinds[k].name,
		       worst, hit);
	}
	return 0;
}
