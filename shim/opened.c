// SPDX-License-Identifier: MIT
#include "opened.h"

#include "dirs.h"
#include "fence.h"

u32 opened_unknown;

// Of what was unknown so far; this is from now on.
static void ask(u32 unknown)
{
	u32 fd = __atomic_exchange_n(&opened_unknown, unknown, __ATOMIC_ACQ_REL);
	u64 dev, ino;

	if (fd && results_alive() && fd_kind(fd - 1, &dev, &ino) == FD_NEWS)
		epoch_end(FENCE_OPEN_FIFO);
}

void opened_ask(void)
{
	ask(0);
}

void opened_later(u32 fd)
{
	ask(fd + 1);
}

void opened_told(u32 fd, const struct stat *st)
{
	fd_learn(fd, st);
	// Without a question now.
	if (__atomic_load_n(&opened_unknown, __ATOMIC_RELAXED) == fd + 1)
		opened_ask();
}
