/* SPDX-License-Identifier: MIT */
/* Empty: see ../cosy.h. */
