/* SPDX-License-Identifier: MIT */
/* What kmod/module/verify.c needs of the kernel and of the module, in user space. */
#ifndef COSY_KERNEL_STAND_IN_H
#define COSY_KERNEL_STAND_IN_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include "cosy_module.h"

typedef uint8_t u8;
typedef uint32_t u32;
typedef int32_t s32;
typedef uint64_t u64;
typedef int64_t s64;

#define GFP_KERNEL_ACCOUNT 0
#define kmalloc_array(n, size, flags) calloc(n, size)
#define kfree free
#define cond_resched() ((void)0)

struct cosy_call;

const struct cosy_call *cosy_call_find(s32 nr);
bool cosy_call_is_pure(const struct cosy_call *call);
u32 cosy_call_n_args(const struct cosy_call *call);
bool cosy_fused_exists(u64 nr);
bool cosy_fused_is_pure(u64 nr);
enum cosy_refusal cosy_verify(const struct cosy_insn *insns, u32 n, u32 flags, u32 *error_at);

#endif
