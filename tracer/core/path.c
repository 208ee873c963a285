// SPDX-License-Identifier: MIT
#include "path.h"

static bool wants_order(const u8 *path, u64 len)
{
	for (u64 i = 0; i + 1 < len; i++)
		if (path[i] == '/' && (path[i + 1] == '.' || path[i + 1] == '/'))
			return true;
	return false;
}

/* The start of the last name of [root, end). */
static u64 last_name(const u8 *path, u64 root, u64 end)
{
	while (end > root && path[end - 1] != '/')
		end--;
	return end;
}

static bool is_up(const u8 *name, u64 len)
{
	return len == 2 && name[0] == '.' && name[1] == '.';
}

/* In its place; what is written never reaches what is still to be read. */
static u64 in_order(u8 *path, u64 len)
{
	u64 root = 0, end, at, next;

	// POSIX: exactly two slashes at the start may mean something else.
	while (root < len && path[root] == '/')
		root++;
	at = root;
	root = root > 2 ? 1 : root;
	end = root;
	for (; at < len; at = next + 1) {
		u64 size, last = last_name(path, root, end);

		for (next = at; next < len && path[next] != '/'; next++)
			;
		size = next - at;
		if (!size || (size == 1 && path[at] == '.'))
			continue;
		if (is_up(path + at, size)) {
			bool stays = end == root ? !root : is_up(path + last, end - last);

			if (!stays) {
				end = last > root ? last - 1 : root;
				continue;
			}
		}
		if (end > root)
			path[end++] = '/';
		memmove(path + end, path + at, size);
		end += size;
	}
	if (!end)
		path[end++] = '.';
	return end;
}

u64 path_join(const u8 *base, u64 base_len, const u8 *path, u64 len, u8 *to)
{
	u64 n = 0;

	if (path[0] != '/') {
		memcpy(to, base, base_len);
		n = base_len;
		if (n != 1 || to[0] != '/')
			to[n++] = '/';
	}
	memcpy(to + n, path, len);
	n += len;
	return wants_order(to, n) ? in_order(to, n) : n;
}
