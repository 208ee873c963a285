/* SPDX-License-Identifier: MIT */
/* What the test programs of /dev/cosy share: a context, and failing with a reason. */
#ifndef CONTEXT_H
#define CONTEXT_H

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cosy_module.h"

struct context {
	int fd;
	unsigned char *buffer;
	size_t bytes;
};

static inline void __attribute__((format(printf, 1, 2), noreturn)) fail(const char *what, ...)
{
	va_list args;

	va_start(args, what);
	fputs("FAILED: ", stdout);
	vprintf(what, args);
	fputs("\n", stdout);
	va_end(args);
	exit(1);
}

static inline struct context context_open(size_t bytes)
{
	struct cosy_setup setup = { .abi = COSY_MODULE_ABI, .buffer_bytes = bytes };
	struct context c = { .fd = open(COSY_DEVICE, O_RDWR | O_CLOEXEC) };

	if (c.fd < 0)
		fail("%s: %s", COSY_DEVICE, strerror(errno));
	if (ioctl(c.fd, COSY_IOC_SETUP, &setup))
		fail("COSY_IOC_SETUP: %s", strerror(errno));
	c.bytes = setup.buffer_bytes;
	c.buffer = mmap(NULL, c.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, c.fd, 0);
	if (c.buffer == MAP_FAILED)
		fail("mmap: %s", strerror(errno));
	return c;
}

/* One fused operation; the ioctl must succeed. */
static inline struct cosy_fused fused(const struct context *c, struct cosy_fused call)
{
	if (ioctl(c->fd, COSY_IOC_FUSED, &call))
		fail("COSY_IOC_FUSED: %s", strerror(errno));
	return call;
}

static inline const struct cosy_entry *next_entry(const struct cosy_entry *e)
{
	return (const struct cosy_entry *)((const char *)e + e->bytes);
}

#endif
