// SPDX-License-Identifier: MIT
#include "launcher.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char preload[] = "LD_PRELOAD=";
static const char shim[] = "COSY_SHIM=";

static char *concat(const char *a, const char *b, const char *c, const char *d)
{
	char *s = malloc(strlen(a) + strlen(b) + strlen(c) + strlen(d) + 1);

	if (s)
		strcat(strcat(strcat(strcpy(s, a), b), c), d);
	return s;
}

/*
 * The environment with the shim's orders (docs/architecture.md). A variable
 * that was there stays in its place, since the shim takes only its own part
 * out again. NULL: no memory.
 */
char **environment_with(const char *library, const char *orders)
{
	const char *users = NULL;
	size_t n = 0, out = 0;
	char **env;

	while (environ[n])
		n++;
	env = calloc(n + 3, sizeof(*env));
	if (!env)
		return NULL;
	for (size_t i = 0; i < n; i++) {
		if (!strncmp(environ[i], shim, sizeof(shim) - 1))
			continue;
		env[out] = environ[i];
		if (!users && !strncmp(environ[i], preload, sizeof(preload) - 1)) {
			users = environ[i] + sizeof(preload) - 1;
			env[out] = concat(preload, library, *users ? ":" : "", users);
		}
		if (!env[out++])
			return NULL;
	}
	if (!users) {
		env[out] = concat(preload, library, "", "");
		if (!env[out++])
			return NULL;
	}
	env[out++] = concat(shim, orders, "", "");
	return env[out - 1] ? env : NULL;
}
