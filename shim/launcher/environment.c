// SPDX-License-Identifier: MIT
#include "launcher.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "environment.h"

static char *concat(const char *a, const char *b, const char *c, const char *d)
{
	char *s = malloc(strlen(a) + strlen(b) + strlen(c) + strlen(d) + 1);

	if (s)
		strcat(strcat(strcat(strcpy(s, a), b), c), d);
	return s;
}

static struct environment ours(void)
{
	struct environment e = { 0 };

	for (char **at = environ; *at; at++)
		environment_take(&e, *at);
	return e;
}

bool environment_loader_tells(void)
{
	return ours().loader_tells;
}

/*
 * The environment with the shim's orders (docs/architecture.md). A variable
 * that was there stays in its place, since the shim takes only its own part
 * out again. NULL: no memory.
 */
char **environment_with(const char *library, const char *orders)
{
	struct environment e = ours();
	const char *users = e.preload ? environ[e.preload - 1] + strlen(ENVIRONMENT_PRELOAD) : "";
	char *preload = concat(ENVIRONMENT_PRELOAD, library, e.preload ? ":" : "", users);
	char *variable = concat(ENVIRONMENT_ORDERS, orders, "", "");
	const char **env = calloc(e.n + ENVIRONMENT_MORE, sizeof(*env));

	if (!preload || !variable || !env)
		return NULL;
	environment_with_orders(&e, (const char *const *)environ, preload, variable, env);
	return (char **)env;
}
