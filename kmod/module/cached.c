// SPDX-License-Identifier: GPL-2.0
/*
 * Reading what the page cache holds. The way through a file system's own
 * read_iter and an iov_iter costs 500 instructions more per small file. All that
 * watches a read stays: kernel_read() asks security modules and fanotify, tells
 * inotify and counts; it only finds our read_iter in place of the file system's,
 * which takes over wherever something is not in the cache.
 */
#include <linux/magic.h>
#include <linux/pagemap.h>
#include <linux/swap.h>
#include <linux/uio.h>

#include "cosy.h"

#ifdef HAVE_FOLIO
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

/* Whole pages have a faster copy of their own. */
static void copy(u8 *to, const u8 *from, size_t bytes)
{
	for (; bytes >= PAGE_SIZE; bytes -= PAGE_SIZE, to += PAGE_SIZE, from += PAGE_SIZE)
		copy_page(to, (void *)from);
	memcpy(to, from, bytes);
}

static ssize_t read_iter(struct kiocb *iocb, struct iov_iter *iter)
{
	struct file *file = iocb->ki_filp;
	struct address_space *mapping = file->f_mapping;
	/* kernel_read() gives one range of kernel memory */
	u8 *to = iter->kvec->iov_base;
	size_t count = iov_iter_count(iter), done = 0;

	while (done < count) {
		struct folio *folio = cached(mapping, iocb->ki_pos >> PAGE_SHIFT);
		loff_t size;
		size_t n;

		if (!folio)
			break;
		/* behind the look at the content, as filemap_read() does: truncation */
		size = i_size_read(mapping->host);
		n = 0;
		if (iocb->ki_pos < size) {
			size_t at = offset_in_folio(folio, iocb->ki_pos);

			n = min3((u64)(folio_size(folio) - at), (u64)(size - iocb->ki_pos),
				 (u64)(count - done));
			copy(to + done, (u8 *)folio_address(folio) + at, n);
			folio_mark_accessed(folio);
		}
		folio_put(folio);
		iocb->ki_pos += n;
		done += n;
		if (iocb->ki_pos >= size)
			break;
	}
	if (!done) {
		file->f_op = file_inode(file)->i_fop;
		return file->f_op->read_iter(iocb, iter);
	}
	file_accessed(file);
	return done;
}

static const struct file_operations cached_fops = {
	.read_iter = read_iter,
};

ssize_t cosy_read(struct file *file, u8 *to, size_t bytes, loff_t *at)
{
	const struct inode *inode = file_inode(file);
	const struct file_operations *fops = file->f_op;
	ssize_t got;

	if (fops == inode->i_fop && is_plain(inode) && !IS_DAX(inode) &&
	    file->f_mapping == &inode->i_data)
		file->f_op = &cached_fops; /* nobody else knows this file */
	got = kernel_read(file, to, bytes, at);
	file->f_op = fops;
	return got;
}
#else
ssize_t cosy_read(struct file *file, u8 *to, size_t bytes, loff_t *at)
{
	return kernel_read(file, to, bytes, at);
}
#endif
