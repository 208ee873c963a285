// SPDX-License-Identifier: MIT
/* Makes ARGV[1] calls of getuid while a timer's handler makes calls of getppid; prints how many of those. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <unistd.h>

static volatile long handled;

static void on_alarm(int number)
{
	(void)number;
	getppid();
	handled++;
}

int main(int argc, char **argv)
{
	struct itimerval every = { { 0, 100 }, { 0, 100 } }, never = { 0 };
	struct sigaction action = { .sa_handler = on_alarm, .sa_flags = SA_RESTART };
	long n = argc > 1 ? atol(argv[1]) : 0;

	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &every, NULL);
	for (long i = 0; i < n; i++)
		getuid();
	setitimer(ITIMER_REAL, &never, NULL);
	printf("%ld\n", handled);
	return 0;
}
