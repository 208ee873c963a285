#include "shim.h"
bool trace_start(char **argv) { (void)argv; return 0; }
