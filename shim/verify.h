/* SPDX-License-Identifier: MIT */
/*
 * The static verifier of compound images. It calls nothing, allocates nothing
 * and needs no C library, so that the shim, a test program and a kernel module
 * can all be built from the same files, verify*.c. synth/verify.py states the same rules
 * in words; a test holds the two to the same verdict.
 */
#ifndef COSY_SHIM_VERIFY_H
#define COSY_SHIM_VERIFY_H

#include <stdbool.h>
#include <stddef.h>

#include "cosy_image.h"

struct image {
	const struct cosy_image *head;
	const struct cosy_compound *compounds;
	const struct cosy_op *ops;
	const struct cosy_pattern *patterns;
	const struct cosy_cond *conds;
	const __u32 *paths;
	const char *strings;
};

/*
 * Is all of [head, head + size) an image, and does it mean something that is
 * safe to run? Then *to points into it. `head` is aligned to 8 bytes, and
 * nobody may change it any more.
 */
__attribute__((visibility("hidden"))) bool image_verify(const struct cosy_image *head, size_t size,
							struct image *to);

#endif
