/* SPDX-License-Identifier: MIT */
/* The profile image: mapped, verified, and read-only from then on. */
#ifndef COSY_SHIM_IMAGE_H
#define COSY_SHIM_IMAGE_H

#include "cosy_image.h"
#include "cosy_stats.h"
#include "sys.h"

struct image {
	const struct cosy_image *head;
	const struct cosy_compound *compounds;
	const struct cosy_op *ops;
	const struct cosy_pattern *patterns;
	const char *strings;
};

/* COSY_NATIVE_REASONS: *to is a verified image. Anything else: why not. */
HIDDEN enum cosy_native_reason image_open(const char *path, struct image *to);

#endif
