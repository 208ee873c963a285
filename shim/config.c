// SPDX-License-Identifier: MIT
/*
 * Orders come in the environment, and leave it before the program's first
 * instruction: what the program sees is what it would see without us. They
 * are put back at every exec (follow.c).
 */
#include "shim.h"

#include <elf.h>

#include "cosy_image.h"
#include "environment.h"

#define MAX_ORDERS 4096

struct cosy_config cosy_config = {
	.max_age_ms = 100,
	// Only when asked for: the reference gains nothing, reading ahead takes another processor's time.
	.executors = ~(u32)(COSY_EXECUTOR_REFERENCE | COSY_EXECUTOR_MODULE | COSY_EXECUTOR_AHEAD),
};

// Strings, one behind the other; as a rule the first array takes them all.
static char few_strings[1024] AT_START, strings[3 * MAX_ORDERS];
static size_t few_used AT_START, used AT_START;
static const char *orders AT_START; // "COSY_SHIM=..." as it came
static const char *library AT_START; // our own file: the first in LD_PRELOAD

const char *config_orders(void)
{
	return orders;
}

const char *config_library(void)
{
	return library;
}

#ifdef COSY_FENCE_TESTS
#include "fence.h"

static bool take_nofence(char *names)
{
	while (*names) {
		char *end = names;
		int fence;

		while (*end && *end != '+')
			end++;
		if (*end)
			*end++ = 0;
		fence = fence_by_name(names);
		if (fence < 0)
			return false;
		cosy_config.nofence |= 1ul << fence;
		names = end;
	}
	return true;
}
#endif

static bool take_number(const char *s, u64 *to)
{
	u64 n = 0;

	if (!*s)
		return false;
	for (; *s; s++) {
		if (*s < '0' || *s > '9' || n > 1000000000ul)
			return false;
		n = n * 10 + (u64)(*s - '0');
	}
	*to = n;
	return true;
}

static bool take_executors(char *names)
{
	static const struct {
		const char *name;
		u32 bit;
	} known[] = {
		{ "bpf", COSY_EXECUTOR_BPF },
		{ "module", COSY_EXECUTOR_MODULE },
		{ "ahead", COSY_EXECUTOR_AHEAD },
		{ "inline", COSY_EXECUTOR_INLINE },
		{ "reference", COSY_EXECUTOR_REFERENCE },
	};

	cosy_config.executors = 0;
	while (*names) {
		char *end = names;
		u32 i;

		while (*end && *end != '+')
			end++;
		if (*end)
			*end++ = 0;
		for (i = 0; i < ARRAY_SIZE(known) && !str_equal(names, known[i].name); i++)
			;
		if (i == ARRAY_SIZE(known))
			return false;
		cosy_config.executors |= known[i].bit;
		names = end;
	}
	return true;
}

static bool take_mode(const char *value)
{
	if (str_equal(value, "pass"))
		cosy_config.mode = COSY_MODE_PASS;
	else if (str_equal(value, "trace"))
		cosy_config.mode = COSY_MODE_TRACE;
	else if (str_equal(value, "exec"))
		cosy_config.mode = COSY_MODE_EXEC;
	else
		return false;
	return true;
}

static bool take_pair(const char *key, char *value)
{
	if (str_equal(key, "mode"))
		return take_mode(value);
	if (str_equal(key, "max_age_ms"))
		return take_number(value, &cosy_config.max_age_ms);
	if (str_equal(key, "block")) {
		cosy_config.block = str_equal(value, "1");
		return cosy_config.block;
	}
	if (str_equal(key, "strict")) {
		cosy_config.strict = str_equal(value, "1");
		return cosy_config.strict;
	}
	if (str_equal(key, "record")) {
		cosy_config.no_record = str_equal(value, "0");
		return cosy_config.no_record;
	}
	if (str_equal(key, "executors"))
		return take_executors(value);
#ifdef COSY_FENCE_TESTS
	if (str_equal(key, "nofence"))
		return take_nofence(value);
#endif
	if (value[0] != '/')
		return false;
	if (str_equal(key, "cache"))
		cosy_config.cache = value;
	else if (str_equal(key, "dir"))
		cosy_config.dir = value;
	else if (str_equal(key, "image"))
		cosy_config.image = value;
	else if (str_equal(key, "stats"))
		cosy_config.stats = value;
	else
		return false;
	return true;
}

static bool take_orders(char *s)
{
	while (*s) {
		char *key = s, *value;

		while (*s && *s != '=' && *s != ';')
			s++;
		if (*s != '=')
			return false;
		*s++ = 0;
		value = s;
		while (*s && *s != ';')
			s++;
		if (*s)
			*s++ = 0;
		if (!take_pair(key, value))
			return false;
	}
	switch (cosy_config.mode) {
	case COSY_MODE_TRACE:
		return cosy_config.dir != NULL;
	case COSY_MODE_EXEC:
		return cosy_config.image != NULL;
	case COSY_MODE_PASS:
		return true;
	default:
		return false;
	}
}

// A copy of our own, or NULL if it is too long.
static char *keep(const char *from, size_t len)
{
	bool few = len < sizeof(few_strings) - few_used;
	char *to = few ? few_strings + few_used : strings + used;

	if (len >= MAX_ORDERS || (!few && len >= sizeof(strings) - used))
		return NULL;
	memcpy(to, from, len);
	to[len] = 0;
	*(few ? &few_used : &used) += len + 1;
	return to;
}

// What the kernel says of the program: its vector lies behind the environment.
static void take_program(char *const *end_of_environment)
{
	const Elf64_auxv_t *v = (const void *)(end_of_environment + 1);

	for (; v->a_type != AT_NULL; v++) {
		if (v->a_type == AT_PHDR)
			cosy_config.headers = (const void *)v->a_un.a_val;
		else if (v->a_type == AT_PHNUM)
			cosy_config.n_headers = v->a_un.a_val;
		// As it was named at exec: a script, not its interpreter.
		else if (v->a_type == AT_EXECFN)
			cosy_config.program = (const char *)v->a_un.a_val;
	}
}

/* Take our own file, the first entry, out of LD_PRELOAD. False: there was nothing else, not even a separator. */
static bool take_library(char *list)
{
	char *end = list;

	while (*end && *end != ':' && *end != ' ')
		end++;
	library = keep(list, (size_t)(end - list));
	if (!*end)
		return false;
	// The string is the program's own memory: shorten it in place.
	memcpy(list, end + 1, strlen(end));
	return true;
}

/*
 * Some programs find the auxiliary vector by walking past the environment, and it cannot move, for
 * ld.so knows where it is. So what was taken out leaves entries behind that say to ignore them, if
 * it is room for whole ones.
 */
static void close_gap(char **end, char **old_end)
{
	Elf64_auxv_t *entry = (void *)(end + 1);

	if ((old_end - end) % 2)
		return;
	for (; entry < (Elf64_auxv_t *)(old_end + 1); entry++)
		*entry = (Elf64_auxv_t){ .a_type = AT_IGNORE };
}

bool config_take(char **envp)
{
	struct environment env = { 0 };
	char **out = envp, **e, *values;

	cosy_config.end_of_arguments = envp[0];
	for (e = envp; *e; e++)
		environment_take(&env, *e);
	// Loaded without orders (by hand): hide nothing, do nothing.
	if (!env.orders)
		return false;
	take_program(e);
	for (size_t i = 0; i < env.n; i++) {
		const char *ours = environment_value(envp[i], ENVIRONMENT_ORDERS);

		if (ours && !orders)
			orders = keep(envp[i], strlen(envp[i]));
		if (!ours && (i + 1 != env.preload ||
			      take_library(envp[i] + sizeof(ENVIRONMENT_PRELOAD) - 1)))
			*out++ = envp[i];
	}
	*out = NULL;
	close_gap(out, e);
	if (!orders || !library || !library[0])
		return false;
	values = keep(orders, strlen(orders)); // cut into strings
	return values && take_orders(values + sizeof(ENVIRONMENT_ORDERS) - 1);
}
