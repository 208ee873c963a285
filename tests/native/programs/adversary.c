// SPDX-License-Identifier: MIT
/*
 * adversary HOW TURNS DIRECTORY...: reads each directory and asks about entries of
 * it in a way that makes running over all of them ahead a waste. Prints a sum
 * over what it was told.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SUBSET 20 // one entry in so many
#define READER 3

static unsigned long long sum;
static unsigned int chance = 6;
static int news[2];

static void look(DIR *dir, const struct dirent *e)
{
	struct stat st;

	if (!fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW))
		sum = sum * 31 + st.st_ino + (unsigned long long)st.st_size;
}

// Most of its calls are not about names: to watch them costs more than the answers save.
static void read_it(DIR *dir, const struct dirent *e)
{
	int fd = openat(dirfd(dir), e->d_name, O_RDONLY);
	struct stat st;
	char byte;

	if (fd < 0 || fstat(fd, &st) || (S_ISREG(st.st_mode) && read(fd, &byte, 1) < 0))
		exit(2);
	sum = sum * 31 + st.st_ino;
	close(fd);
}

// What another process may have told us: whatever was known is old.
static void hear_news(void)
{
	char byte = 0;

	if (write(news[1], &byte, 1) != 1 || read(news[0], &byte, 1) != 1)
		exit(2);
}

static int asks(const char *how, int turn, unsigned int nth, const struct dirent *e)
{
	if (!strcmp(how, "turncoat"))
		return turn == 0 || nth == 0;
	if (!strcmp(how, "penitent"))
		return turn > 0 || nth == 0;
	if (!strcmp(how, "one"))
		return nth == 0;
	if (!strcmp(how, "directories"))
		return e->d_type == DT_DIR;
	if (!strcmp(how, "subset"))
		return ((chance = chance * 1103515245 + 12345) >> 16) % SUBSET == 0;
	if (!strcmp(how, "reader"))
		return nth % READER == 0;
	return !strcmp(how, "all") || !strcmp(how, "epochs") || !strcmp(how, "opener");
}

static int reads(const char *how)
{
	return !strcmp(how, "reader") || !strcmp(how, "opener");
}

static void scan(const char *how, int turn, const char *path)
{
	struct dirent **entries = NULL;
	DIR *dir = opendir(path);
	unsigned int nth = 0;
	int n = 0;

	if (!dir)
		exit(2);
	// All names first, as fts and ls do.
	for (struct dirent *e; (e = readdir(dir)); n++) {
		entries = realloc(entries, (size_t)(n + 1) * sizeof(*entries));
		entries[n] = malloc(sizeof(*e));
		memcpy(entries[n], e, e->d_reclen);
	}
	for (int i = 0; i < n; i++) {
		if (entries[i]->d_name[0] != '.' && asks(how, turn, nth++, entries[i])) {
			if (!strcmp(how, "epochs"))
				hear_news();
			look(dir, entries[i]);
		}
		if (entries[i]->d_name[0] != '.' && reads(how))
			read_it(dir, entries[i]);
		free(entries[i]);
	}
	free(entries);
	closedir(dir);
}

int main(int argc, char **argv)
{
	if (argc < 4 || pipe(news))
		return 2;
	for (int turn = 0; turn < atoi(argv[2]); turn++)
		for (int i = 3; i < argc; i++)
			scan(argv[1], turn, argv[i]);
	printf("%llu\n", sum);
	return 0;
}
