#include "shim.h"
u64 cosy_epoch; void *cosy_handlers[65];
void exec_start(void) {}
