/* SPDX-License-Identifier: MIT */
/*
 * Compounds of the language (docs/compound-language.md), handed over by a program: an
 * image (cosy_image.h) that holds an `explicit compound` is checked, made
 * into a program of cosy.h, and run, in the kernel where there is the module, else as
 * plain calls, with the same results. Functions that can fail return -errno.
 */
#ifndef COSY_COMPOUND_H
#define COSY_COMPOUND_H

#include "cosy.h"

/* What one call of the body returned. Behind it `data` bytes, padded to 8. */
struct cosy_result {
	uint32_t bytes; /* of the whole record */
	uint32_t op; /* index in the body; COSY_RESULT_ENTRY: an iteration begins */
	uint32_t iteration; /* counted from 0: of the list of paths, or of D's entries */
	uint32_t data; /* bytes that the kernel filled in; ENTRY: of e.name */
	int64_t ret; /* as the call returns it, -errno on failure */
};
#define COSY_RESULT_ENTRY (~0u)

static inline const void *cosy_result_data(const struct cosy_result *r)
{
	return r + 1;
}

static inline const struct cosy_result *cosy_next_result(const struct cosy_result *r)
{
	return (const struct cosy_result *)((const char *)r + r->bytes);
}

/* Gets results in the order of the calls, `bytes` of them, some at a time. */
typedef void (*cosy_take)(void *arg, const struct cosy_result *first, size_t bytes);

/* A compound that is ready to run in a context. */
struct cosy_compound_ready {
	uint32_t program; /* for cosy_unload() */
	uint32_t op; /* after -EOPNOTSUPP: which call of the body */
	bool entries; /* it runs for each entry of a directory */
	uint32_t strings_size, n_paths;
	uint32_t paths, prefix, arena; /* where things are in the buffer */
	uint32_t most_record; /* bytes */
	const char *strings; /* of the image, which stays with the caller */
	const uint32_t *path_offsets;
	uint64_t limit_ops, limit_bytes, limit_time_ns;
};

/*
 * The explicit compound `name` of an image, or its first one (NULL). `image` is aligned
 * to 8 and stays as it is while the compound is in use. -EINVAL: the verifier refuses
 * the image; -ENOENT: there is no such compound; -EOPNOTSUPP: a call that
 * is not on the list of allowed ones (docs/explicit.md), or an argument of a triggering
 * call, which nobody makes; -ENOBUFS: the context's buffer is too small.
 */
int cosy_compound_load(struct cosy *c, const void *image, size_t bytes, const char *name,
		       struct cosy_compound_ready *to);
/*
 * 0: outcome->status says how it ended: 0, or -E2BIG, -ENOBUFS, -ETIME: the compound's limit of
 * calls, of bytes, of time; or why D cannot be read. `directory` is D, open for reading, from where its offset
 * is; -1 for a compound without one. The context's buffer is used.
 */
int cosy_compound_run(struct cosy *c, const struct cosy_compound_ready *r, int directory,
		      cosy_take take, void *arg, struct cosy_outcome *outcome);

#endif
