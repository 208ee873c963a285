// SPDX-License-Identifier: MIT
// A library as Go makes them with -buildmode=c-shared.
#include "go_note.h"

extern int go_library;
int go_library = 1;
