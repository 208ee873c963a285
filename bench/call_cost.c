// SPDX-License-Identifier: MIT
/* call_cost N: CPU time of this process for N calls of each of two kinds, in ns per call. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static double cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

int main(int argc, char **argv)
{
	long n = argc > 1 ? atol(argv[1]) : 1000000;
	int fd = memfd_create("page", 0);
	static char page[4096];
	double start, calls, reads;

	if (fd < 0 || write(fd, page, sizeof(page)) != sizeof(page))
		return 1;
	start = cpu_ns();
	for (long i = 0; i < n; i++)
		getppid();
	calls = cpu_ns() - start;
	start = cpu_ns();
	for (long i = 0; i < n; i++)
		if (pread(fd, page, sizeof(page), 0) != sizeof(page))
			return 1;
	reads = cpu_ns() - start;
	printf("%.2f %.2f\n", calls / (double)n, reads / (double)n);
	return 0;
}
