// SPDX-License-Identifier: MIT
/*
 * The profile image: which one, and whether it may be used. The shim verifies
 * all of it again (shim/verify.c); here only what is needed to choose one and to
 * name its compounds: owner, mode, header, checksum, the compound table.
 */
#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../crc32.h"

static const char no_image[] = "it is no profile image: give NAME.img, as cosy-synth wrote it";
static const char other_version[] = "another version wrote it";

static const char *check(const struct cosy_image *im, size_t size)
{
	const unsigned char *bytes = (const void *)im;
	uint64_t end;

	if (size < sizeof(*im) || memcmp(im->magic, COSY_IMAGE_MAGIC, sizeof(im->magic) - 1))
		return no_image;
	if (im->magic[7] != COSY_IMAGE_MAGIC[7])
		return other_version;
	if (im->size != size)
		return "it is corrupt (wrong size)";
	if (im->crc32 != crc32(bytes + 16, size - 16))
		return "it is corrupt (wrong checksum)";
	end = im->compounds + (uint64_t)im->n_compounds * sizeof(struct cosy_compound);
	if (im->flags || im->n_compounds > COSY_MAX_COMPOUNDS || im->compounds % 8 || end > size)
		return "it is corrupt (compounds out of bounds)";
	if (!im->strings_size || im->strings > size || im->strings_size > size - im->strings ||
	    bytes[im->strings] || bytes[im->strings + im->strings_size - 1])
		return "it is corrupt (strings out of bounds)";
	for (uint32_t i = 0; i < im->n_compounds; i++) {
		const struct cosy_compound *c = (const void *)(bytes + im->compounds);

		if (c[i].name >= im->strings_size)
			return "it is corrupt (a name out of bounds)";
	}
	return NULL;
}

static const char *take(int fd, const struct cosy_image **image)
{
	const char *refused;
	struct stat st;
	void *data;

	if (fstat(fd, &st) || !S_ISREG(st.st_mode))
		return "it is no regular file";
	if (st.st_uid != geteuid() && st.st_uid != 0)
		return "it belongs to someone else";
	if (st.st_mode & 022)
		return "others may write to it (chmod go-w)";
	if (st.st_size < (off_t)sizeof(**image) || st.st_size > COSY_IMAGE_MAX_SIZE)
		return no_image;
	data = malloc((size_t)st.st_size);
	if (!data || pread(fd, data, (size_t)st.st_size, 0) != st.st_size) {
		free(data);
		return "it cannot be read";
	}
	refused = check(data, (size_t)st.st_size);
	if (refused)
		free(data);
	else
		*image = data;
	return refused;
}

void profile_open(struct profile *to, const char *path)
{
	int fd;

	to->image = NULL;
	to->refused = NULL;
	// Absolute: the programs that the command starts may be elsewhere.
	if (!realpath(path, to->path)) {
		if (!print_path(to->path, "%s", path))
			strcpy(to->path, "?");
		to->refused = errno == ENOENT ? "it is not there" : "it cannot be read";
		return;
	}
	fd = open(to->path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0) {
		to->refused = "it cannot be read";
		return;
	}
	to->refused = take(fd, &to->image);
	close(fd);
}

void profile_choose(struct profile *to, const struct options *opt, const struct program *program,
		    const struct places *places)
{
	char path[PATH_MAX];

	if (opt->profile) {
		profile_open(to, opt->profile);
		return;
	}
	if (program->build_id[0] && places->store[0] &&
	    print_path(path, "%s/%s.img", places->store, program->build_id) &&
	    !access(path, F_OK)) {
		profile_open(to, path);
		// One that an earlier version learnt is as good as none.
		if (to->refused != other_version)
			return;
	}
	profile_open(to, places->shipped[0] ? places->shipped : "default.img");
}

const struct cosy_compound *profile_compound(const struct profile *p, uint32_t index)
{
	const struct cosy_compound *table;

	if (!p->image || index >= p->image->n_compounds)
		return NULL;
	table = (const void *)((const unsigned char *)p->image + p->image->compounds);
	return &table[index];
}

const char *profile_string(const struct profile *p, uint32_t offset)
{
	return (const char *)p->image + p->image->strings + offset;
}

/* All executors that some compound of the profile can use. */
uint32_t profile_executors(const struct profile *p)
{
	uint32_t all = 0;

	for (uint32_t i = 0; p->image && i < p->image->n_compounds; i++)
		all |= profile_compound(p, i)->executors;
	return all;
}
