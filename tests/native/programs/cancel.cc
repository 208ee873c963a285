// SPDX-License-Identifier: MIT
// Cancelled threads must run their destructors: the unwinder has to get
// through the shim's frames. A program in C would not notice if it did not.
#include <atomic>
#include <cstdio>
#include <pthread.h>
#include <unistd.h>

static const int rounds = 200;
static int fds[2];
static std::atomic<int> destroyed;
static std::atomic<bool> ready;

struct Witness {
	~Witness()
	{
		destroyed++;
	}
};

static void *blocked(void *)
{
	Witness witness;
	char byte;

	ready = true;
	return reinterpret_cast<void *>(read(fds[0], &byte, 1));
}

int main()
{
	alarm(60);
	if (pipe(fds))
		return 1;
	for (int i = 0; i < rounds; i++) {
		pthread_t thread;

		ready = false;
		if (pthread_create(&thread, nullptr, blocked, nullptr))
			return 1;
		while (!ready)
			usleep(10);
		usleep(20 + i % 90);
		pthread_cancel(thread);
		pthread_join(thread, nullptr);
	}
	std::printf("%d of %d destructors ran\n", destroyed.load(), rounds);
	return destroyed != rounds;
}
