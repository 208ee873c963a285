// SPDX-License-Identifier: MIT
/* What the fuzzer found, each as the shortest request that showed it. */
#include "context.h"

#define BUFFER (1u << 20)

/* An oops in nd_jump_link(): links of /proc that lead to an object. */
static void links_of_proc(const struct context *c)
{
	struct cosy_fused call = { .op = COSY_OP_ENTRIES };
	const struct cosy_block *block = (const void *)c->buffer;
	const struct cosy_entry *e = (const void *)(block + 1);
	int special = 0, plain = 0, dir = open("/proc/self", O_RDONLY | O_DIRECTORY);

	call.args[0] = (unsigned int)dir;
	call.args[1] = COSY_WANT_LINK;
	call.args[3] = c->bytes;
	call = fused(c, call);
	if (call.outcome.status || call.result <= 0)
		fail("entries of /proc/self: status %d, result %lld", call.outcome.status,
		     (long long)call.result);
	for (unsigned int i = 0; i < block->n; i++, e = next_entry(e)) {
		const char *name = cosy_entry_name(e);

		if (!strcmp(name, "exe") || !strcmp(name, "cwd") || !strcmp(name, "root"))
			special += e->flags & COSY_ENTRY_SPECIAL && !(e->flags & COSY_ENTRY_DATA);
	}
	close(dir);
	dir = open("/proc", O_RDONLY | O_DIRECTORY);
	call = (struct cosy_fused){ .op = COSY_OP_FILES };
	call.args[0] = (unsigned int)dir;
	call.args[1] = COSY_WANT_LINK | COSY_WANT_NOFOLLOW;
	call.args[2] = 4096;
	call.args[3] = 4096;
	call.args[5] = 5;
	memcpy(c->buffer, "self", 5);
	call = fused(c, call);
	block = (const void *)(c->buffer + 4096);
	e = (const void *)(block + 1);
	plain = call.result == 1 && e->data == snprintf(NULL, 0, "%d", getpid());
	if (special != 3 || !plain)
		fail("links of /proc: %d of 3 special, self %s", special,
		     plain ? "read" : "not read");
	close(dir);
}

int main(void)
{
	struct context c = context_open(BUFFER);

	links_of_proc(&c);
	return 0;
}
