// SPDX-License-Identifier: MIT
// Sums the sizes of the files in a tree, a stat for each entry. For static builds too.
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static long walk(const char *folder)
{
	char path[4096];
	struct dirent *entry;
	struct stat st;
	long total = 0;
	DIR *dir = opendir(folder);

	if (!dir)
		return 0;
	while ((entry = readdir(dir))) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		if (snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name) >=
			    (int)sizeof(path) ||
		    lstat(path, &st))
			continue;
		total += S_ISDIR(st.st_mode) ? walk(path) : st.st_size;
	}
	closedir(dir);
	return total;
}

int main(int argc, char **argv)
{
	printf("%ld\n", walk(argc > 1 ? argv[1] : "."));
	return 0;
}
