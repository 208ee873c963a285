// SPDX-License-Identifier: MIT
/*
 * measure OUTPUT COMMAND [ARGUMENT]... : runs a command once, its standard output
 * and error in OUTPUT and OUTPUT.err, and prints the nanoseconds from fork to
 * the end and the exit code. In a guest that counts instructions a nanosecond is
 * an instruction, the child's exec included.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long long now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void redirect(const char *path, int fd)
{
	int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	if (file < 0 || dup2(file, fd) < 0) {
		perror(path);
		_exit(126);
	}
	close(file);
}

int main(int argc, char **argv)
{
	char errors[4096];
	long long start, end;
	int status;
	pid_t pid;

	if (argc < 3) {
		fprintf(stderr, "usage: measure OUTPUT COMMAND [ARGUMENT]...\n");
		return 2;
	}
	snprintf(errors, sizeof(errors), "%s.err", argv[1]);
	start = now_ns();
	pid = fork();
	if (pid < 0) {
		perror("fork");
		return 1;
	}
	if (!pid) {
		redirect(argv[1], STDOUT_FILENO);
		redirect(errors, STDERR_FILENO);
		execvp(argv[2], argv + 2);
		_exit(127);
	}
	if (waitpid(pid, &status, 0) != pid) {
		perror("waitpid");
		return 1;
	}
	end = now_ns();
	printf("%lld %d\n", end - start,
	       WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
	return 0;
}
