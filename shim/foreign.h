/* SPDX-License-Identifier: MIT */
#ifndef COSY_FOREIGN_H
#define COSY_FOREIGN_H

#include "sys.h"

/* Is there code that is known to make system calls without the C library? */
HIDDEN bool foreign_calls(void);

#endif
