// SPDX-License-Identifier: MIT
/* Programs that are short and never gain run without the shim: shim/leaf.h. */
#include "launcher.h"

#include <unistd.h>

#define LEAF_SYS(...) syscall(__VA_ARGS__)
#include "leaf_file.h"

bool leaf_asked_in_vain(const struct program *program, const struct places *places)
{
	struct leaf_table *table;
	char path[PATH_MAX];

	if (!places->text[0] || !print_path(path, "%s/" LEAF_FILE, places->text))
		return false;
	table = leaf_file_map(path);
	return table && leaf_exec_pointless(table, leaf_key(&program->file), true);
}
