// SPDX-License-Identifier: MIT
/*
 * submit IMAGE NAME [FOLDER]: runs an explicit compound and prints what each call returned.
 * With PLAIN in the environment as plain calls, else in the kernel or not at all. A small
 * buffer: it takes many crossings.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cosy_compound.h"

static uint64_t image[(1 << 16) / 8];

static uint32_t hash(const unsigned char *data, uint32_t n)
{
	uint32_t value = 2166136261u;

	for (uint32_t i = 0; i < n; i++)
		value = (value ^ data[i]) * 16777619u;
	return value;
}

static void print(void *arg, const struct cosy_result *r, size_t bytes)
{
	const char *end = (const char *)r + bytes;
	unsigned long *n = arg;

	for (; (const char *)r < end; r = cosy_next_result(r), ++*n) {
		const struct stat *st = cosy_result_data(r);

		printf("%d %u %lld %u ", (int)r->op, r->iteration, (long long)r->ret, r->data);
		if (r->data == sizeof(*st)) // access times move
			printf("%o %lld %lu\n", st->st_mode, (long long)st->st_size, st->st_ino);
		else if (r->data == 256)
			printf("statx\n");
		else
			printf("%x\n", hash(cosy_result_data(r), r->data));
	}
}

static int failed(const char *what, int error)
{
	fprintf(stderr, "submit: %s: %s\n", what, strerror(-error));
	return 1;
}

int main(int argc, char **argv)
{
	bool plain = getenv("PLAIN") != NULL;
	struct cosy_compound_ready ready;
	struct cosy_outcome outcome;
	int fd, err, folder = -1;
	unsigned long n = 0;
	struct cosy c;
	ssize_t bytes;

	fd = argc < 3 ? -1 : open(argv[1], O_RDONLY);
	bytes = fd < 0 ? -1 : read(fd, image, sizeof(image));
	if (bytes < 0)
		return 2;
	close(fd);
	err = cosy_open(&c, 160 << 10, plain ? COSY_OPEN_PLAIN : 0);
	if (err || cosy_in_kernel(&c) == plain)
		return failed("no context, or not of that kind", err);
	if (plain && open("/dev/null", O_RDONLY) < 0) // descriptors have the same numbers
		return 2;
	if (argc > 3)
		folder = open(argv[3], O_RDONLY | O_DIRECTORY);
	err = cosy_compound_load(&c, image, (size_t)bytes, argv[2], &ready);
	if (!err)
		err = cosy_compound_run(&c, &ready, folder, print, &n, &outcome);
	if (err)
		return failed(argv[2], err);
	printf("status %d, %lu results\n", outcome.status, n);
	return n == 0;
}
