/* SPDX-License-Identifier: MIT */
/*
 * How the shim's orders lie in an environment (docs/architecture.md), for those who put
 * them there: follow.c, and cosy-auto. config.c takes them out again.
 */
#ifndef COSY_ENVIRONMENT_H
#define COSY_ENVIRONMENT_H

#include <stdbool.h>
#include <stddef.h>

#define ENVIRONMENT_PRELOAD "LD_PRELOAD="
#define ENVIRONMENT_ORDERS "COSY_SHIM="
#define ENVIRONMENT_MORE 3 /* pointers, the last NULL included */

struct environment {
	size_t n; /* variables */
	size_t preload; /* number of the LD_PRELOAD that ld.so obeys, the last one, from 1; 0: there is none */
	bool orders; /* has some already */
	bool loader_tells; /* ld.so will say what it loads: to the user, or to an auditor */
};

static inline const char *environment_value(const char *variable, const char *name)
{
	while (*name && *variable == *name)
		variable++, name++;
	return *name ? NULL : variable;
}

/* The next variable. Begin with a structure of zeros. */
static inline void environment_take(struct environment *e, const char *variable)
{
	e->n++;
	if (environment_value(variable, ENVIRONMENT_ORDERS))
		e->orders = true;
	if (environment_value(variable, ENVIRONMENT_PRELOAD))
		e->preload = e->n;
	if (environment_value(variable, "LD_TRACE_LOADED_OBJECTS=") ||
	    environment_value(variable, "LD_DEBUG=") || environment_value(variable, "LD_AUDIT="))
		e->loader_tells = true;
}

/*
 * Write the variables of `from`, with our own: `preload` takes the place of the program's,
 * and orders from elsewhere are dropped. Always an even number of variables is the shim's to take out again (config.c says
 * why): the orders come twice where the program has an LD_PRELOAD, which stays.
 */
static inline void environment_with_orders(const struct environment *e, const char *const *from,
					   const char *preload, const char *orders,
					   const char **out)
{
	for (size_t i = 0; i < e->n; i++)
		if (!environment_value(from[i], ENVIRONMENT_ORDERS))
			*out++ = i + 1 == e->preload ? preload : from[i];
	*out++ = e->preload ? orders : preload;
	*out++ = orders;
	*out = NULL;
}

#endif
