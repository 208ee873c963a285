// SPDX-License-Identifier: MIT
#include "leaf.h"

#define LEAF_SYS(...) sys(__VA_ARGS__)
#include "leaf_file.h"

// A start of the shim takes as long as the kernel does for some 250 answers.
#define ANSWERS_GAIN 256
// Of processor time: a hundredth of it is more than a start.
#define LONG_NS (50u * 1000 * 1000)

static struct leaf_table *table AT_START;
static u64 own_key AT_START;
static u32 answers AT_START;

static struct leaf_table *map_table(void)
{
	static bool tried;
	struct text path;

	if (table || tried || !cosy_config.cache || cosy_config.mode != COSY_MODE_EXEC)
		return table;
	tried = true;
	path.size = strlen(cosy_config.cache) + sizeof("/" LEAF_FILE);
	path = (struct text){ .at = __builtin_alloca(path.size), .size = path.size };
	text_add(&path, cosy_config.cache);
	text_add(&path, "/" LEAF_FILE);
	table = leaf_file_map(path.at);
	return table;
}

static struct leaf_slot *own_slot(void)
{
	return own_key && map_table() ? leaf_slot(table, own_key) : NULL;
}

void leaf_start(void)
{
	struct stat st;

	// Of /proc/self/exe it would take as long as a tenth of the shim's start.
	if (cosy_config.program && !sys_failed(sys(__NR_stat, cosy_config.program, &st)))
		own_key = leaf_key(&st);
}

void leaf_before_fork(void)
{
	map_table();
}

void leaf_answered(void)
{
	struct leaf_slot *own;

	if (likely(answers > ANSWERS_GAIN) || ++answers != ANSWERS_GAIN)
		return;
	own = own_slot();
	if (own)
		own->gains++;
}

void leaf_exit(void)
{
	struct leaf_slot *own;

	if (now_ns(2 /* CLOCK_PROCESS_CPUTIME_ID */) < LONG_NS)
		return;
	own = own_slot();
	if (own && own->longs < 255)
		own->longs++;
}

void leaf_execs(void)
{
	struct leaf_slot *own = own_slot();

	if (own && !own->execs)
		own->execs = 1;
}

bool leaf_pointless(u64 key)
{
	return map_table() && leaf_exec_pointless(table, key, false);
}
