// SPDX-License-Identifier: MIT
/*
 * Waits in a read of a pipe that a signal interrupts ARGV[1] times before a byte comes; with a second argument the
 * handler is installed without SA_RESTART, and the read made again by hand. Each handler calls getppid. A child
 * sends the signals, each when the program sleeps.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int handled[2];

static void on_signal(int number)
{
	(void)number;
	getppid();
	(void)!write(handled[1], "", 1);
}

static void wait_until_asleep(pid_t pid)
{
	char path[64], state = 0;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	while (state != 'S') {
		FILE *file = fopen(path, "r");

		if (!file || fscanf(file, "%*d %*s %c", &state) != 1)
			_exit(1);
		fclose(file);
		usleep(1000);
	}
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = on_signal,
				    .sa_flags = argc > 2 ? 0 : SA_RESTART };
	int data[2], times = argc > 1 ? atoi(argv[1]) : 1;
	pid_t parent = getpid();
	char byte;

	if (pipe(data) || pipe(handled) || sigaction(SIGUSR1, &action, NULL))
		return 1;
	if (!fork()) {
		for (int i = 0; i < times; i++) {
			wait_until_asleep(parent);
			kill(parent, SIGUSR1);
			if (read(handled[0], &byte, 1) != 1)
				_exit(1);
		}
		wait_until_asleep(parent);
		_exit(write(data[1], "", 1) != 1);
	}
	while (read(data[0], &byte, 1) != 1)
		if (errno != EINTR)
			return 1;
	return 0;
}
