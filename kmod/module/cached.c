// SPDX-License-Identifier: GPL-2.0
/*
 * Reading what the page cache holds. The way through a file system's own
 * read_iter and an iov_iter costs 700 instructions more per small file. All that
 * watches a read stays: security modules and fanotify are asked, inotify is told,
 * and bytes are counted. kernel_read() takes over where nothing is in the cache.
 */
#include <linux/fsnotify.h>
#include <linux/magic.h>
#include <linux/pagemap.h>
#include <linux/sched/xacct.h>
#include <linux/swap.h>

#include "cosy.h"

#if defined(HAVE_FOLIO) && defined(HAVE_RW_VERIFY_AREA)
/* File systems whose read_iter is filemap_read(), or the same for shmem. */
static bool is_plain(const struct inode *inode)
{
	unsigned long magic = inode->i_sb->s_magic;

	return magic == EXT4_SUPER_MAGIC || magic == TMPFS_MAGIC;
}

/* The folio at `index`, to be put, if its content is good. */
static struct folio *cached(struct address_space *mapping, pgoff_t index)
{
	struct folio *folio = filemap_get_folio(mapping, index);

	if (IS_ERR_OR_NULL(folio))
		return NULL;
	if (folio_test_uptodate(folio) && !folio_test_hwpoison(folio) &&
	    !(folio_test_large(folio) && folio_test_has_hwpoisoned(folio)))
		return folio;
	folio_put(folio);
	return NULL;
}

/* A whole page has a faster copy of its own. */
static void copy(u8 *to, const u8 *from, size_t bytes)
{
	if (bytes == PAGE_SIZE)
		copy_page(to, (void *)from);
	else
		memcpy(to, from, bytes);
}

/* What the cache has from `at` on, without a gap. */
static size_t copy_cached(struct file *file, u8 *to, size_t bytes, loff_t at)
{
	struct address_space *mapping = file->f_mapping;
	size_t done = 0;

	while (done < bytes && at < i_size_read(mapping->host)) {
		struct folio *folio = cached(mapping, at >> PAGE_SHIFT);
		size_t offset, n;
		loff_t size;

		if (!folio)
			break;
		/* behind the look at the content, as filemap_read() does: truncation */
		size = i_size_read(mapping->host);
		if (at >= size) {
			folio_put(folio);
			break;
		}
		offset = offset_in_folio(folio, at);
		n = min3((u64)(folio_size(folio) - offset), (u64)(size - at), (u64)(bytes - done));
		copy(to + done, (u8 *)folio_address(folio) + offset, n);
		folio_mark_accessed(folio);
		folio_put(folio);
		at += n;
		done += n;
	}
	return done;
}

ssize_t cosy_read(struct file *file, u8 *to, size_t bytes, loff_t *at)
{
	const struct inode *inode = file_inode(file);
	size_t done;
	int err;

	if (file->f_op != inode->i_fop || !is_plain(inode) || IS_DAX(inode) ||
	    file->f_mapping != &inode->i_data)
		return kernel_read(file, to, bytes, at);
	/* all that kernel_read() does around a file system's read_iter */
	err = rw_verify_area(READ, file, at, bytes);
	if (err)
		return err;
	done = copy_cached(file, to, bytes, *at);
	if (!done)
		return kernel_read(file, to, bytes, at);
	*at += done;
	file_accessed(file);
	fsnotify_access(file);
	add_rchar(current, done);
	inc_syscr(current);
	return done;
}
#else
ssize_t cosy_read(struct file *file, u8 *to, size_t bytes, loff_t *at)
{
	return kernel_read(file, to, bytes, at);
}
#endif
