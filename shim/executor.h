/* SPDX-License-Identifier: MIT */
/*
 * What runs a compound in one crossing. An executor that is not there is no
 * error: the calls go to the kernel one by one.
 */
#ifndef COSY_EXECUTOR_H
#define COSY_EXECUTOR_H

#include "cosy_bpf.h"
#include "cosy_image.h"
#include "image.h"

/* Can the eBPF executor answer every operation of this compound? */
HIDDEN bool bpf_can_run(const struct image *im, const struct cosy_compound *c);
/*
 * Run over the directory open at run->dirfd; `size` (bytes) is that of the
 * buffer, COSY_BPF_SMALL or COSY_BPF_LARGE. -errno: there is no executor
 * (-ENOENT) or it could not be called; else run->status says how it went.
 */
HIDDEN long bpf_run(struct cosy_bpf_run *run, u32 size);

#endif
