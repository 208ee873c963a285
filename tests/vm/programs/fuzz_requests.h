/* SPDX-License-Identifier: MIT */
/* Random and nearly right requests, and what must hold of their results. */
#ifndef FUZZ_REQUESTS_H
#define FUZZ_REQUESTS_H

#include <sys/wait.h>

#include "cosy_bpf.h"
#include "fuzz_context.h"
#include "fuzz_program.h"

#define GUARD 64 /* bytes around a result that must stay as they are */

static int random_fd(void)
{
	switch (below(8)) {
	case 0:
		return (int)nasty();
	case 1:
		return AT_FDCWD;
	case 2:
		return context.fd;
	default:
		return (int)below(24);
	}
}

/* Names, each ended by NUL, in `room` bytes; returns the bytes used. */
static size_t random_names(unsigned char *to, size_t room)
{
	unsigned int n = 1 + (unsigned int)below(40);
	size_t used = 0;

	while (n-- && room - used > 100) {
		char *name = (char *)to + used;

		if (one_in(8))
			strcpy(name, one_in(2) ? ".." : "/proc/self/status");
		else if (one_in(2))
			tree_name(name);
		else
			snprintf(name, 16, "n%u", (unsigned int)below(TREE_NAMES));
		used += strlen(name) + 1;
	}
	return used;
}

static void check_blocks(const unsigned char *out, uint64_t used)
{
	uint64_t at = 0;

	while (at < used) {
		const struct cosy_block *block = (const void *)(out + at);
		uint64_t end = at + block->bytes, entry = at + sizeof(*block);

		if (block->bytes < sizeof(*block) || block->bytes % 8 || end > used) {
			BROKEN("block at %llu of %llu has %u bytes\n", (unsigned long long)at,
			       (unsigned long long)used, block->bytes);
			return;
		}
		for (unsigned int i = 0; i < block->n; i++) {
			const struct cosy_entry *e = (const void *)(out + entry);
			const char *name = cosy_entry_name(e);

			if (entry + sizeof(*e) > end || e->bytes < sizeof(*e) ||
			    entry + e->bytes > end ||
			    strnlen(name, e->name_len + 1u) != e->name_len ||
			    (e->data > 0 &&
			     cosy_entry_data(e) + e->data > (const char *)out + end)) {
				BROKEN("entry %u at %llu does not fit its block\n", i,
				       (unsigned long long)entry);
				return;
			}
			if (e->flags & COSY_ENTRY_AHEAD) {
				COUNT(ahead);
				if (!(e->flags & COSY_ENTRY_DATA_END) || e->data < 0 ||
				    (uint64_t)e->data != e->size)
					BROKEN("%s: %d of %llu bytes are read ahead\n", name,
					       e->data, (unsigned long long)e->size);
			}
			entry += e->bytes;
		}
		if (entry != end) {
			BROKEN("entries end at %llu, the block at %llu\n",
			       (unsigned long long)entry, (unsigned long long)end);
			return;
		}
		at = end;
	}
}

static void fill_guard(uint64_t out, uint64_t bytes, unsigned char value)
{
	memset(context.buffer + out - GUARD, value, GUARD);
	memset(context.buffer + out + bytes, value, GUARD);
}

static void check_guard(uint64_t out, uint64_t bytes, unsigned char value)
{
	for (int i = 0; i < GUARD; i++) {
		if (context.buffer[out - GUARD + i] != value ||
		    context.buffer[out + bytes + i] != value) {
			BROKEN("bytes outside of [%llu, +%llu) were written\n",
			       (unsigned long long)out, (unsigned long long)bytes);
			return;
		}
	}
}

static size_t random_fds(unsigned char *to, size_t room)
{
	size_t used = below(room / sizeof(int32_t)) * sizeof(int32_t);

	for (size_t at = 0; at < used; at += sizeof(int32_t))
		memcpy(to + at, &(int32_t){ random_fd() }, sizeof(int32_t));
	return used + below(4);
}

static size_t random_messages(unsigned char *to, size_t room)
{
	size_t used = 0;

	while (!one_in(8)) {
		struct cosy_message m = { .fd = random_fd(), .result = (int32_t)below(500) };

		if (one_in(16))
			m.result = (int32_t)nasty();
		if (used + sizeof(m) + 504 > room)
			break;
		memcpy(to + used, &m, sizeof(m));
		used += sizeof(m) +
			(m.result > 0 && m.result < 500 ? ((size_t)m.result + 7) / 8 * 8 : 0);
	}
	return used;
}

static void fused_request(struct cosy_fused *call)
{
	*call = (struct cosy_fused){ .op = (unsigned int)below(COSY_OP_MAX),
				     .flags = one_in(2) ? COSY_FUSED_PURE : 0,
				     .limits = random_limits() };
	call->args[0] = (uint64_t)(int64_t)random_fd();
	call->args[1] = random64() & (one_in(16) ? 0x1ff : one_in(2) ? 0xdf : 0x1f);
	if (context.bytes > 8192) {
		uint64_t room = context.bytes - 8192;

		call->args[2] = 4096 + below(room / 8) * 8;
		call->args[3] = below(context.bytes - 4096 - call->args[2]);
	}
	switch (call->op) {
	case COSY_OP_ENTRIES:
		call->args[5] = below(COSY_MAX_DEPTH + 1);
		call->args[1] |= one_in(4) ? COSY_WANT_NAMES : 0;
		call->args[7] = below(100000);
		break;
	case COSY_OP_FILES:
		call->args[4] = 0;
		if (context.bytes > 8192)
			call->args[5] = random_names(context.buffer, 4096);
		call->args[6] = one_in(2) ? 0 : below(TREE_FILE_BYTES);
		call->args[7] = below(100000);
		call->args[1] |= one_in(4) ? COSY_WANT_AHEAD : 0;
		break;
	case COSY_OP_SCAN:
		call->args[1] = one_in(2) ? COSY_WANT_HINTS : 0;
		call->args[4] = one_in(2) ? 0 : below(TREE_NAMES);
		break;
	case COSY_OP_COPY:
		call->args[1] = (uint64_t)(int64_t)random_fd();
		call->args[2] = one_in(4) ? nasty() : below(TREE_FILE_BYTES);
		call->args[3] = one_in(2) ? COSY_WANT_AT : 0;
		call->args[4] = below(TREE_FILE_BYTES);
		call->args[5] = below(TREE_FILE_BYTES);
		break;
	case COSY_OP_ACCEPT:
		call->args[1] = below(4) * COSY_WANT_NONBLOCK;
		call->args[3] = below(16); // descriptors are not many
		break;
	case COSY_OP_RECEIVE:
	case COSY_OP_SEND:
		call->args[1] = one_in(16);
		call->args[4] = 0;
		if (context.bytes > 8192)
			call->args[5] = call->op == COSY_OP_SEND ?
						random_messages(context.buffer, 4096) :
						random_fds(context.buffer, 256);
		call->args[6] = below(10000);
	}
	while (one_in(3))
		call->args[below(COSY_FUSED_ARGS)] = nasty();
}

/* Records fill their pages, to the byte. */
static void check_scan(const unsigned char *out, uint64_t used)
{
	const struct cosy_bpf_run *run = (const void *)out;
	unsigned int n = 0;

	for (uint64_t page = 0, at; page < COSY_BPF_PAGES && run->used[page]; page++) {
		const struct cosy_bpf_page *records =
			(const void *)(out + sizeof(*run) + page * sizeof(*records));

		for (at = 0; at < run->used[page]; n++) {
			const struct cosy_bpf_child *child = (const void *)(records->data + at);

			at += sizeof(*child) + (child->namelen + 7u) / 8 * 8;
			if (!child->namelen || at > run->used[page] || at > COSY_BPF_PAGE) {
				BROKEN("record %u does not fit its page\n", n);
				return;
			}
		}
		if (records->data + run->used[page] > out + used)
			BROKEN("page %llu is not all used\n", (unsigned long long)page);
	}
	if (n != run->n_children)
		BROKEN("%u records, not %u\n", n, run->n_children);
}

/* Messages fill what was used, to the byte. */
static void check_messages(const unsigned char *out, uint64_t used, long long n)
{
	uint64_t at = 0;

	while (n-- > 0) {
		const struct cosy_message *m = (const void *)(out + at);

		at += sizeof(*m);
		if (at <= used && m->result > 0)
			at += ((uint64_t)m->result + 7) / 8 * 8;
		if (at > used)
			break;
	}
	if (at != used)
		BROKEN("messages end at %llu, %llu bytes are used\n", (unsigned long long)at,
		       (unsigned long long)used);
}

/* What was accepted is not kept. */
static void close_accepted(const unsigned char *out, uint64_t used)
{
	for (uint64_t at = 0; at < used; at += sizeof(int32_t)) {
		int32_t fd;

		memcpy(&fd, out + at, sizeof(fd));
		if (close(fd))
			BROKEN("%d was accepted, and is not open\n", fd);
	}
}

/* Memory of our own that is not all there, not all writable or not ours. */
static uint64_t random_address(void)
{
	static unsigned char *pages;

	if (!pages) {
		pages = mmap(NULL, 64 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			     -1, 0);
		mprotect(pages + 16 * 4096, 4096, PROT_READ);
		munmap(pages + 48 * 4096, 4096);
	}
	if (one_in(6))
		return nasty();
	return (uint64_t)(uintptr_t)pages + below(64 * 4096 / 8) * 8;
}

static bool knock(struct cosy_fused *call)
{
	bool answered;

	request.call = *call;
	answered = !msync(context.door, DOOR_BYTES, MS_SYNC);
	*call = request.call;
	return answered;
}

static void check_results(const struct cosy_fused *call)
{
	const unsigned char *out = context.buffer + call->args[2];

	if (!call->used)
		return;
	switch (call->op) {
	case COSY_OP_SCAN:
		check_scan(out, call->used);
		break;
	case COSY_OP_ACCEPT:
		close_accepted(out, call->used);
		break;
	case COSY_OP_RECEIVE:
		check_messages(out, call->used, call->result);
		break;
	case COSY_OP_SEND:
		if (call->used != (uint64_t)call->result * sizeof(int32_t))
			BROKEN("%lld were sent, %llu bytes used\n", (long long)call->result,
			       (unsigned long long)call->used);
		break;
	default:
		check_blocks(out, call->used);
	}
}

static void fuzz_fused(void)
{
	static const enum kind kinds[] = {
		[COSY_OP_ENTRIES] = FUSED_ENTRIES, [COSY_OP_FILES] = FUSED_FILES,
		[COSY_OP_COPY] = FUSED_COPY,	   [COSY_OP_SCAN] = FUSED_SCAN,
		[COSY_OP_ACCEPT] = FUSED_SOCKETS,  [COSY_OP_RECEIVE] = FUSED_SOCKETS,
		[COSY_OP_SEND] = FUSED_SOCKETS,
	};
	bool guarded = false, answered;
	unsigned char value = (unsigned char)random64();
	struct cosy_fused call;
	uint64_t out, bytes;

	fused_request(&call);
	if (call.op != COSY_OP_COPY && one_in(4)) {
		call.flags |= COSY_FUSED_USER;
		call.args[2] = random_address();
		if (one_in(2))
			call.args[4] = random_address();
	}
	out = call.args[2];
	bytes = call.args[3];
	if (!(call.flags & COSY_FUSED_USER) && call.op != COSY_OP_COPY && !context.scribbled &&
	    context.buffer && out >= 4096 && out < context.bytes && bytes < context.bytes &&
	    out + bytes + GUARD < context.bytes)
		guarded = true;
	if (guarded)
		fill_guard(out, bytes, value);
	if (context.door && one_in(3))
		answered = knock(&call);
	else
		answered = !ioctl(context.fd, COSY_IOC_FUSED, &call);
	COUNT(fused);
	if (guarded)
		check_guard(out, bytes, value);
	if (!answered) {
		if (errno == EPERM)
			COUNT(denied);
		return;
	}
	check_outcome("fused", &call.limits, &call.outcome);
	if (call.op && call.op < COSY_OP_MAX)
		overshoot(kinds[call.op], &call.limits, call.outcome.time_ns);
	if (guarded) {
		if (call.used > bytes)
			BROKEN("%llu of %llu bytes used\n", (unsigned long long)call.used,
			       (unsigned long long)bytes);
		else
			check_results(&call);
	}
}

static bool has_calls(const struct cosy_insn *insns, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		if (insns[i].op == COSY_I_CALL || insns[i].op == COSY_I_FUSED)
			return true;
	}
	return false;
}

static void check_loaded(const struct cosy_insn *insns, unsigned int n)
{
	static const int never[] = { SYS_execve, SYS_fork,   SYS_exit, SYS_ioctl,
				     SYS_mmap,	 SYS_setuid, SYS_kill, SYS_rt_sigreturn,
				     SYS_ptrace, -1,	     511,      512 };

	for (unsigned int i = 0; i < n; i++) {
		for (unsigned int k = 0; k < ARRAY_SIZE(never); k++) {
			if (insns[i].op == COSY_I_CALL && insns[i].imm == never[k])
				BROKEN("call %d was loaded\n", never[k]);
		}
	}
}

static void run_program(unsigned int number, unsigned int n, enum kind kind)
{
	struct cosy_run run = { .program = number, .limits = random_limits() };

	for (int i = 0; i < COSY_N_REGS; i++)
		run.regs[i] = one_in(8) ? nasty() : below(8192);
	for (int i = 16; i < 24; i++)
		run.regs[i] = one_in(2) ? (uint64_t)(int64_t)random_fd() : below(8192);
	for (int rounds = 0; rounds < 3; rounds++) {
		COUNT(runs);
		if (ioctl(context.fd, COSY_IOC_RUN, &run)) {
			if (errno == EPERM)
				COUNT(denied);
			return;
		}
		check_outcome("run", &run.limits, &run.outcome);
		if (run.outcome.pc >= n)
			BROKEN("pc %u of %u\n", run.outcome.pc, n);
		overshoot(kind, &run.limits, run.outcome.time_ns);
		if (!run.outcome.status)
			return;
		run.flags = COSY_RUN_RESUME;
	}
}

static void fuzz_program(void)
{
	struct cosy_insn insns[PROGRAM_MAX];
	struct cosy_load load = { .insns = (uint64_t)(uintptr_t)insns,
				  .flags = one_in(2) ? COSY_LOAD_PURE : 0 };
	enum kind kind;
	char name[96];

	load.n_insns = program_make(insns);
	if (context.bytes > 4096) { // strings where offsets point to
		tree_name(name);
		memcpy(context.buffer + below(4000), name, sizeof(name));
	}
	if (ioctl(context.fd, COSY_IOC_LOAD, &load)) {
		COUNT(refused);
		if (errno == EINVAL && load.error_at > load.n_insns)
			BROKEN("refused at %u of %u\n", load.error_at, load.n_insns);
		return;
	}
	COUNT(loads);
	check_loaded(insns, load.n_insns);
	kind = has_calls(insns, load.n_insns) ? PROGRAM_CALLS : PROGRAM_PLAIN;
	memset(insns, 0xff, sizeof(insns)); // the module has its copy
	run_program(load.program, load.n_insns, kind);
	if (!one_in(32))
		ioctl(context.fd, COSY_IOC_UNLOAD, &load.program);
}

/* Any number, any bytes. */
static void fuzz_raw(void)
{
	static const unsigned int requests[] = { COSY_IOC_INFO,	  COSY_IOC_SETUP, COSY_IOC_LOAD,
						 COSY_IOC_UNLOAD, COSY_IOC_RUN,	  COSY_IOC_FUSED };
	unsigned int request = requests[below(ARRAY_SIZE(requests))];
	uint64_t bytes[128];

	for (unsigned int i = 0; i < ARRAY_SIZE(bytes); i++)
		bytes[i] = one_in(3) ? 0 : nasty();
	if (one_in(4))
		request ^= 1u << below(32);
	ioctl(context.fd, request, one_in(4) ? (void *)(uintptr_t)random_address() : bytes);
}

/* What may be done with a descriptor and its mapping besides. */
static void fuzz_around(void)
{
	unsigned char byte;
	pid_t child;
	void *map;
	int fd;

	switch (below(8)) {
	case 0:
		map = mmap(NULL, 4096 * (1 + below(300)),
			   one_in(2) ? PROT_READ : PROT_READ | PROT_EXEC,
			   one_in(2) ? MAP_SHARED : MAP_PRIVATE, context.fd,
			   (off_t)below(4) * 4096);
		if (map != MAP_FAILED)
			munmap(map, 4096 * (1 + below(4)));
		break;
	case 1:
		if (context.buffer && !context.scribbled)
			mremap(context.buffer, context.bytes, context.bytes + 4096 * below(5), 0);
		break;
	case 2:
		if (context.bytes)
			madvise(context.buffer, context.bytes, (int)below(26));
		break;
	case 3:
		child = fork();
		if (!child) { // not its address space
			struct cosy_fused call = { .op = COSY_OP_ENTRIES, .args = { AT_FDCWD } };

			if (!ioctl(context.fd, COSY_IOC_FUSED, &call) || errno != EPERM)
				BROKEN("a child may use its parent's context\n");
			_exit(0);
		}
		if (child > 0)
			waitpid(child, NULL, 0);
		break;
	case 4:
		(void)!read(context.fd, &byte, 1);
		(void)!write(context.fd, &byte, 1);
		break;
	case 5:
		fd = open(COSY_DEVICE, O_RDWR);
		if (fd >= 0 && one_in(8))
			dup2(fd, 20);
		close(fd);
		break;
	case 6:
		fd = dup(context.fd);
		close(fd);
		break;
	default:
		syscall(SYS_delete_module, "cosy", O_NONBLOCK);
	}
}

#endif
