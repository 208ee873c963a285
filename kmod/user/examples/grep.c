// SPDX-License-Identifier: MIT
/*
 * grep WORD FILE... : prints the lines that hold WORD, each after its file's name.
 * All files that fit in the buffer are opened, read and closed in one crossing.
 * Exit code 0: found, 1: not found, 2: a file could not be read.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cosy.h"

#define BUFFER (8u << 20)
#define NAMES (1u << 20) /* of it, for names */
#define MOST (64u << 10) /* bytes of one file in the batch; larger files come by themselves */

static int result = 1;

static void print_lines(const char *name, const char *data, size_t bytes, const char *word)
{
	const char *end = data + bytes, *hit;

	while ((hit = memmem(data, (size_t)(end - data), word, strlen(word)))) {
		const char *line = hit, *stop = memchr(hit, '\n', (size_t)(end - hit));

		while (line > data && line[-1] != '\n')
			line--;
		stop = stop ? stop : end;
		printf("%s:%.*s\n", name, (int)(stop - line), line);
		data = stop < end ? stop + 1 : end;
		result = result == 1 ? 0 : result;
	}
}

/* Names from `names` on; the result is at NAMES. */
static const struct cosy_block *files(struct cosy *c, uint64_t names, uint64_t bytes,
				      uint64_t offset, uint64_t most)
{
	struct cosy_fused call = { .op = COSY_OP_FILES };

	call.args[0] = (uint64_t)AT_FDCWD;
	call.args[1] = COSY_WANT_DATA;
	call.args[2] = NAMES;
	call.args[3] = c->bytes - NAMES;
	call.args[4] = names;
	call.args[5] = bytes;
	call.args[6] = offset;
	call.args[7] = most;
	if (cosy_fused(c, &call) || call.result < 0)
		return NULL;
	return (const struct cosy_block *)(c->buffer + NAMES);
}

/* A file that did not come whole: piece by piece, then all at once. */
static void large_file(struct cosy *c, uint64_t name_at, const char *word)
{
	const char *name = (const char *)c->buffer + name_at;
	char *data = NULL;
	size_t bytes = 0;

	for (;;) {
		const struct cosy_block *block =
			files(c, name_at, strlen(name) + 1, bytes, 1u << 20);
		const struct cosy_entry *e = block ? cosy_first_entry(block) : NULL;

		if (!e || !block->n || e->error || e->data < 0)
			break;
		data = realloc(data, bytes + (size_t)e->data + 1);
		if (!data)
			abort();
		memcpy(data + bytes, cosy_entry_data(e), (size_t)e->data);
		bytes += (size_t)e->data;
		if (e->flags & COSY_ENTRY_DATA_END)
			break;
	}
	print_lines(name, data ? data : "", bytes, word);
	free(data);
}

static void one(struct cosy *c, const struct cosy_entry *e, uint64_t name_at, const char *word)
{
	if (e->error || e->data < 0) {
		fprintf(stderr, "grep: %s: %s\n", cosy_entry_name(e),
			strerror(e->error ? -e->error : -e->data));
		result = 2;
	} else if (e->flags & COSY_ENTRY_DATA_END) {
		print_lines(cosy_entry_name(e), cosy_entry_data(e), (size_t)e->data, word);
	} else if (e->flags & COSY_ENTRY_DATA) {
		large_file(c, name_at, word);
	}
}

/* Names in the buffer from 0 to `bytes`: as many as it takes to have done them all. */
static void all(struct cosy *c, uint64_t bytes, const char *word)
{
	uint64_t at = 0;

	while (at < bytes) {
		const struct cosy_block *block = files(c, at, bytes - at, 0, MOST);
		uint64_t done = block ? block->next : 0, name_at = at;
		const struct cosy_entry *e;
		char *copy;

		if (!done)
			abort();
		// large_file() writes over the results
		copy = malloc(block->bytes);
		if (!copy)
			abort();
		block = memcpy(copy, block, block->bytes);
		e = cosy_first_entry(block);
		for (uint32_t i = 0; i < block->n; i++, e = cosy_next_entry(e)) {
			one(c, e, name_at, word);
			name_at += e->name_len + 1u;
		}
		free(copy);
		at += done;
	}
}

int main(int argc, char **argv)
{
	uint64_t used = 0;
	struct cosy c;

	if (argc < 3 || cosy_open(&c, BUFFER, getenv("PLAIN") ? COSY_OPEN_PLAIN : 0))
		return 2;
	for (int i = 2; i < argc; i++) {
		size_t len = strlen(argv[i]) + 1;

		if (used + len > NAMES) {
			all(&c, used, argv[1]);
			used = 0;
		}
		memcpy(c.buffer + used, argv[i], len);
		used += len;
	}
	all(&c, used, argv[1]);
	cosy_close(&c);
	return result;
}
