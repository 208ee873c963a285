// SPDX-License-Identifier: MIT
/* Programs that are short and never gain run without the shim: shim/leaf.h. */
#include "launcher.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "leaf_table.h"

bool leaf_asked_in_vain(const struct program *program, const struct places *places)
{
	struct leaf_table *table = MAP_FAILED;
	char path[PATH_MAX];
	bool pointless;
	struct stat st;
	int fd;

	if (!places->text[0] || !print_path(path, "%s/" LEAF_FILE, places->text))
		return false;
	fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return false;
	if (!fstat(fd, &st) && leaf_file_valid(&st, geteuid()))
		table = mmap(NULL, sizeof(*table), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (table == MAP_FAILED)
		return false;
	pointless = table->magic == LEAF_MAGIC &&
		    leaf_table_pointless(table, leaf_key(&program->file), true);
	munmap(table, sizeof(*table));
	return pointless;
}
