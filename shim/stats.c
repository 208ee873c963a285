// SPDX-License-Identifier: MIT
#include "stats.h"

#include <asm/unistd_64.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "shim.h"
#include "sites.h"

struct cosy_stats *cosy_stats AT_START;

void stats_open(void)
{
	struct stat st;
	struct cosy_stats *s;
	int fd;

	if (!cosy_config.stats)
		return;
	fd = (int)sys(__NR_openat, AT_FDCWD, cosy_config.stats, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return;
	// Smaller than the structure: touching the page would be a bus error.
	if (!sys_failed(sys(__NR_fstat, fd, &st)) && (u64)st.st_size >= sizeof(*s)) {
		s = (void *)sys(__NR_mmap, 0, PAGE_UP(sizeof(*s)), PROT_READ | PROT_WRITE,
				MAP_SHARED, fd, 0);
		if (!sys_failed((long)s) && !memcmp(s->magic, COSY_STATS_MAGIC, 8))
			cosy_stats = s;
	}
	sys(__NR_close, fd);
	if (cosy_stats)
		sites_start();
	stats_add(processes, 1);
}
