/* SPDX-License-Identifier: MIT */
/* The profile image: mapped, verified, and read-only from then on. */
#ifndef COSY_SHIM_IMAGE_H
#define COSY_SHIM_IMAGE_H

#include "cosy_image.h"
#include "cosy_stats.h"
#include "sys.h"
#include "verify.h"

/* COSY_NATIVE_REASONS: *to is a verified image. Anything else: why not. */
HIDDEN enum cosy_native_reason image_open(const char *path, struct image *to);

#endif
