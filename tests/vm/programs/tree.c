// SPDX-License-Identifier: MIT
/* tree FOLDER SEED: fills it with what the fuzzer's mutators leave. */
#include <stdlib.h>

#include "fuzz_tree.h"

int main(int argc, char **argv)
{
	if (argc != 3 || chdir(argv[1]))
		return 2;
	random_state = strtoull(argv[2], NULL, 10) * 2654435761u + 1;
	tree_create();
	for (int i = 0; i < 2000; i++)
		tree_change();
	return 0;
}
