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

/* Can a scan of a directory answer every operation of this compound? */
HIDDEN bool bpf_can_run(const struct image *im, const struct cosy_compound *c);
/* What a run writes to: pages of records, each at a page's start, right behind the rest. */
struct run_buffers {
	u8 unused[PAGE_SIZE - sizeof(struct cosy_bpf_run)];
	struct cosy_bpf_run run;
	struct cosy_bpf_page pages[COSY_BPF_PAGES];
};

/*
 * Run over the directory open at dirfd, without its first `skip` children, for at most `ns`
 * nanoseconds; eBPF, which stops nowhere else, for a run of COSY_BPF_LIMIT.
 * -errno: there is no executor (-ENOENT) or it could not be called; else
 * to->run.status says how it went.
 */
HIDDEN long executor_run(struct run_buffers *to, int dirfd, u32 skip, u64 ns);
/* The one that does so now: COSY_EXECUTOR_MODULE or _BPF. */
HIDDEN u32 executor_used(void);
/* The same by one executor. */
HIDDEN long bpf_run(struct run_buffers *to, int dirfd, u32 skip);
HIDDEN long module_run(struct run_buffers *to, int dirfd, u32 skip, u64 ns);

#endif
