/* SPDX-License-Identifier: GPL-2.0 */
/*
 * How this program reaches kernel memory: typed loads that fault safely
 * (bpf_rdonly_cast), a few times cheaper than one bpf_probe_read_kernel each.
 */
#ifndef COSY_KERNEL_ACCESS_H
#define COSY_KERNEL_ACCESS_H

#include "kernel_types.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

extern void bpf_preempt_disable(void) __ksym;
extern void bpf_preempt_enable(void) __ksym;
extern void *bpf_rdonly_cast(const void *obj, __u32 btf_id) __ksym;

#define CAST(T, p) ((T *)bpf_rdonly_cast((const void *)(p), bpf_core_type_id_kernel(T)))
#define CONTAINER_OF(T, member, p)                                                                 \
	CAST(T, (const char *)(p) - bpf_core_field_offset(((T *)0)->member))
#define READ_ONCE(x) (*(volatile typeof(x) *)&(x))
/*
 * Orders the compiler. x86-64 does not reorder loads, so between the two
 * readings of a sequence counter nothing more is needed; another architecture
 * would need acquire loads here.
 */
#define barrier() asm volatile("" ::: "memory")

#ifndef __TARGET_ARCH_x86
#error "the sequence counter protocol of this program relies on x86-64's load order"
#endif

/*
 * True until the kernel's own bound on loops is reached (may_goto, Linux 6.9):
 * the verifier then needs no bound of ours.
 */
#define CAN_LOOP                                                                                   \
	({                                                                                         \
		__label__ l_break, l_continue;                                                     \
		_Bool again = 1;                                                                   \
		asm volatile goto("1: .byte 0xe5; .byte 0;"                                        \
				  ".long ((%l[l_break] - 1b - 8) / 8) & 0xffff;"                   \
				  ".short 0" :: ::l_break);                                        \
		goto l_continue;                                                                   \
l_break:                                                                                           \
		again = 0;                                                                         \
l_continue:;                                                                                       \
		again;                                                                             \
	})

#endif
