// SPDX-License-Identifier: MIT
/* Where our own files are: docs/architecture.md, "Where the built files are". */
#include "launcher.h"

#include <errno.h>
#include <libgen.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// The rooms of a build tree; an installed tree has all files in one folder.
static const char *const rooms[] = { "", "shim/", "synth/", "kmod/bpf/", "shim/launcher/" };

bool print_path(char path[PATH_MAX], const char *format, ...)
{
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(path, PATH_MAX, format, args);
	va_end(args);
	if (n > 0 && n < PATH_MAX)
		return true;
	path[0] = 0;
	return false;
}

static bool find(char path[PATH_MAX], const char *folder, const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(rooms); i++) {
		if (print_path(path, "%s/%s%s", folder, rooms[i], name) && !access(path, F_OK))
			return true;
	}
	path[0] = 0;
	return false;
}

static bool find_native(struct places *to, const char *path)
{
	char folder[PATH_MAX];

	if (!realpath(path, folder) || !find(to->library, folder, "libcosy.so"))
		return false;
	find(to->loader, folder, "cosy-bpf-load");
	find(to->shipped, folder, "default.img");
	return true;
}

static void find_native_folder(struct places *to)
{
	const char *named = getenv("COSY_NATIVE_DIR");
	char self[PATH_MAX], folder[PATH_MAX];
	ssize_t n;
	char *dir;

	if (named && *named) {
		find_native(to, named);
		return;
	}
	n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (n <= 0)
		return;
	self[n] = 0;
	dir = dirname(self);
	// Installed: bin/ and the Python packages share a prefix. Else the build tree.
	if (print_path(folder, "%s/%s", dir, COSY_NATIVE_RELATIVE) && find_native(to, folder))
		return;
	if (print_path(folder, "%s/../..", dir) && find_native(to, folder))
		return;
	find_native(to, dir);
}

/* A folder of an XDG base directory; false when there is none to be had. */
static bool xdg_folder(char path[PATH_MAX], const char *variable, const char *in_home)
{
	const char *base = getenv(variable), *home = getenv("HOME");

	// The specification: a relative path is to be ignored.
	if (base && base[0] == '/')
		return print_path(path, "%s/cosy", base);
	return home && home[0] == '/' && print_path(path, "%s/%s/cosy", home, in_home);
}

/* Makes a folder and what is above it; false unless it is ours alone. */
static bool make_private(char path[PATH_MAX])
{
	struct stat st;

	if (lstat(path, &st)) {
		for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
			*slash = 0;
			mkdir(path, 0700);
			*slash = '/';
		}
		// Another cosy-auto may have been quicker.
		if ((mkdir(path, 0700) && errno != EEXIST) || lstat(path, &st))
			return false;
	}
	return S_ISDIR(st.st_mode) && st.st_uid == geteuid() && !(st.st_mode & 022) &&
	       !access(path, W_OK | X_OK);
}

/*
 * A service often has no home. Nobody but root can make a name in the folders above these, so what
 * is ours there nobody else has put there.
 */
static bool cache_folder(char path[PATH_MAX])
{
	uid_t uid = geteuid();

	if (xdg_folder(path, "XDG_CACHE_HOME", ".cache"))
		return true;
	return uid ? print_path(path, "/run/user/%u/cosy", uid) :
		     print_path(path, "/var/cache/cosy");
}

void places_find(struct places *to)
{
	memset(to, 0, sizeof(*to));
	find_native_folder(to);
	if (xdg_folder(to->store, "XDG_DATA_HOME", ".local/share") &&
	    strlen(to->store) + sizeof("/profiles") < PATH_MAX)
		strcat(to->store, "/profiles");
	else
		to->store[0] = 0;
	if (!cache_folder(to->cache) || !make_private(to->cache)) {
		to->cache[0] = 0;
		return;
	}
	print_path(to->log, "%s/learn.log", to->cache);
	if (!print_path(to->text, "%s/text", to->cache) || !make_private(to->text))
		to->text[0] = 0;
}
