// SPDX-License-Identifier: MIT
/*
 * Makes the shapes of calls that the miner knows besides walks over directories, in FOLDER:
 * files read to their end, lists of paths that are not there, and a server's requests.
 */
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define FILES 40
#define LISTS 30
#define REQUESTS 50

static const char *const SUFFIXES[] = { "a", "b", "c", "d", "e", "f" };

static int opened(const char *folder, int number)
{
	char path[4096];
	int fd;

	snprintf(path, sizeof(path), "%s/file%d", folder, number);
	fd = open(path, O_RDONLY);
	if (fd < 0)
		err(1, "%s", path);
	return fd;
}

static void slurp(const char *folder)
{
	char buffer[4096];
	struct stat st;

	for (int i = 0; i < FILES; i++) {
		int fd = opened(folder, i);

		if (fstat(fd, &st))
			err(1, "fstat");
		while (read(fd, buffer, sizeof(buffer)) > 0)
			;
		close(fd);
	}
}

static void probe(const char *folder)
{
	char path[4096];

	for (int i = 0; i < LISTS; i++) {
		for (size_t k = 0; k < sizeof(SUFFIXES) / sizeof(*SUFFIXES); k++) {
			snprintf(path, sizeof(path), "%s/none/%s", folder, SUFFIXES[k]);
			if (!access(path, R_OK))
				errx(1, "%s is there", path);
		}
	}
}

static void ask(const struct sockaddr_un *address)
{
	char buffer[4096];

	for (int i = 0; i < REQUESTS; i++) {
		int fd = socket(AF_UNIX, SOCK_STREAM, 0);

		if (connect(fd, (const struct sockaddr *)address, sizeof(*address)))
			err(1, "connect");
		if (write(fd, "get", 3) != 3)
			err(1, "write");
		while (read(fd, buffer, sizeof(buffer)) > 0)
			;
		close(fd);
	}
	_exit(0);
}

static void serve(const char *folder)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int server = socket(AF_UNIX, SOCK_STREAM, 0);
	char buffer[4096];

	snprintf(address.sun_path, sizeof(address.sun_path), "%s/socket", folder);
	unlink(address.sun_path);
	if (bind(server, (struct sockaddr *)&address, sizeof(address)) || listen(server, 1))
		err(1, "%s", address.sun_path);
	if (!fork())
		ask(&address);
	for (int i = 0; i < REQUESTS; i++) {
		int fd = accept(server, NULL, NULL), file;
		struct stat st;
		ssize_t n;

		if (read(fd, buffer, sizeof(buffer)) != 3)
			err(1, "read");
		file = opened(folder, i % FILES);
		if (fstat(file, &st))
			err(1, "fstat");
		n = read(file, buffer, sizeof(buffer));
		if (write(fd, buffer, n) != n)
			err(1, "write");
		close(file);
		close(fd);
	}
	wait(NULL);
}

int main(int argc, char **argv)
{
	if (argc != 2)
		errx(2, "usage: shapes FOLDER");
	slurp(argv[1]);
	probe(argv[1]);
	serve(argv[1]);
	return 0;
}
