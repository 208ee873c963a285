// SPDX-License-Identifier: GPL-2.0
/*
 * Contents of files that no descriptor will ever show: opened, read, shut. All in
 * one place, so that the compiler makes one function of it.
 *
 * Allocating and freeing a struct file is a third of what it costs to read a small
 * file, and before Linux 6.6 a freed one stays until the caller is back in user
 * mode. So a batch has one, which is opened for one file after the other:
 * finish_open() is all of an open but the allocation, the check by security modules
 * included, and reader_shut() is what __fput() does for a file that nobody else ever
 * saw.
 *
 * The way through a file system's own read_iter and an iov_iter costs 700
 * instructions more per small file than a look into the page cache. All that
 * watches a read stays: security modules and fanotify are asked, inotify is told,
 * and bytes are counted. kernel_read() takes over where nothing is in the cache.
 */
#include <linux/cred.h>
#include <linux/file.h>
#include <linux/fsnotify.h>
#include <linux/ktime.h>
#include <linux/module.h>
#include <linux/mount.h>
#include <linux/pagemap.h>
#include <linux/sched/xacct.h>
#include <linux/swap.h>
#include <linux/xarray.h>

#include "cosy.h"

#define DATA_CHUNK (64u << 10) /* bytes between two looks at the limits */

/* --- opened for one file after the other ---------------------------------------- */

static bool reuse_file = true;
module_param(reuse_file, bool, 0644);
MODULE_PARM_DESC(reuse_file, "one struct file serves all files of a batch");

/* Keeps a file that is shut for the next operation, if that runs as the same subject. */
void cosy_reader_keep(struct cosy_op *op, struct file **kept)
{
	if (op->reader && READ_ONCE(reuse_file)) {
		*kept = op->reader;
		op->reader = NULL;
	}
	cosy_reader_destroy(op);
}

void cosy_reader_take(struct cosy_op *op, struct file **kept)
{
	op->reader = *kept;
	*kept = NULL;
	if (op->reader && op->reader->f_cred != current_cred()) {
		fput(op->reader);
		op->reader = NULL;
	}
}

static int may_read(const struct path *path)
{
	return inode_permission(cosy_mnt_idmap(path->mnt), d_backing_inode(path->dentry),
				MAY_OPEN | MAY_READ);
}

struct file *cosy_open(const struct path *path, int flags)
{
	struct file *file;
	int err = may_read(path);

	if (err)
		return ERR_PTR(err);
	file = dentry_open(path, O_RDONLY | O_LARGEFILE | flags, current_cred());
	if (IS_ERR(file))
		return file;
	if (!COSY_DENTRY_OPEN_NOTIFIES)
		fsnotify_open(file);
	err = cosy_post_open(file);
	if (err) {
		fput(file);
		return ERR_PTR(err);
	}
	return file;
}

/*
 * As __fput() but for what takes a descriptor: no epoll, lock, lease or fasync
 * can be on it. The file is as before it was opened.
 */
static __always_inline void reader_shut(struct file *file)
{
	struct inode *inode = file_inode(file);

	fsnotify_close(file);
	if (file->f_op->release)
		file->f_op->release(inode, file);
	fops_put(file->f_op);
	i_readcount_dec(inode);
	/* whoever opened it holds the dentry, too */
	if (!lockref_put_not_zero(&file->f_path.dentry->d_lockref))
		dput(file->f_path.dentry);
	mntput(file->f_path.mnt);
	file->f_path.mnt = NULL;
	file->f_path.dentry = NULL;
	file->f_inode = NULL;
	file->f_mapping = NULL;
	file->f_op = NULL;
	file->private_data = NULL;
	file->f_pos = 0;
	file->f_mode = FMODE_READ;
	memset(&file->f_ra, 0, sizeof(file->f_ra));
}

static int reader_reopen(struct file *file, const struct path *path, int flags)
{
	int err = may_read(path);

	if (err)
		return err;
	file->f_flags = flags;
	file->f_path = *path; /* do_dentry_open() takes the references */
	err = finish_open(file, path->dentry, NULL);
	if (err)
		file->f_mode = FMODE_READ;
	return err;
}

static struct file *reader_open(struct cosy_op *op, const struct path *path)
{
	int flags = O_RDONLY | O_LARGEFILE | (op->flags & COSY_WANT_NOATIME ? O_NOATIME : 0);
	struct file *file = op->reader;
	int err;

	if (!file) {
		file = cosy_open(path, flags);
		if (!IS_ERR(file))
			op->reader = file;
		return file;
	}
	err = reader_reopen(file, path, flags);
	if (err)
		return ERR_PTR(err);
	if (!COSY_FINISH_OPEN_NOTIFIES)
		fsnotify_open(file);
	err = cosy_post_open(file);
	if (err) {
		reader_shut(file);
		return ERR_PTR(err);
	}
	return file;
}

static void reader_close(struct cosy_op *op)
{
	if (READ_ONCE(reuse_file)) {
		reader_shut(op->reader);
		return;
	}
	fput(op->reader);
	op->reader = NULL;
}

void cosy_reader_destroy(struct cosy_op *op)
{
	if (op->reader)
		fput(op->reader);
}

/* --- read ------------------------------------------------------------------------ */

#if defined(HAVE_FOLIO) && defined(HAVE_RW_VERIFY_AREA)
/* Of file systems whose read_iter is filemap_read(), or the same for shmem. */
static __always_inline bool is_plain(const struct file *file)
{
	const struct inode *inode = file_inode(file);
	unsigned long magic = inode->i_sb->s_magic;

	return (magic == EXT4_SUPER_MAGIC || magic == TMPFS_MAGIC) && !IS_DAX(inode) &&
	       file->f_op == inode->i_fop && file->f_mapping == &inode->i_data;
}

/*
 * The folio at `index`, to be put, if its content is good. As filemap_get_entry(),
 * but whatever is out of the ordinary is left to kernel_read().
 */
static struct folio *cached(struct address_space *mapping, pgoff_t index)
{
	XA_STATE(xas, &mapping->i_pages, index);
	struct folio *folio;

	rcu_read_lock();
	folio = xas_load(&xas);
	if (!folio || xa_is_value(folio) || xa_is_internal(folio) || !folio_try_get(folio)) {
		folio = NULL;
	} else if (unlikely(folio != xas_reload(&xas))) {
		folio_put(folio);
		folio = NULL;
	}
	rcu_read_unlock();
	if (!folio)
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

#define RELATIME_S (24 * 60 * 60)

/*
 * Reading the file now leaves its access time. touch_atime() would find that out,
 * too, by 100 to 190 instructions: as its relatime_need_update().
 */
static bool atime_stays(const struct file *file)
{
	const struct inode *inode = file_inode(file);
	int flags = file->f_path.mnt->mnt_flags;
	struct timespec64 atime, mtime, ctime;

	if (flags & MNT_NOATIME)
		return true;
	if (!(flags & MNT_RELATIME))
		return false;
	atime = cosy_inode_atime(inode);
	mtime = cosy_inode_mtime(inode);
	ctime = cosy_inode_ctime(inode);
	return timespec64_compare(&atime, &mtime) > 0 && timespec64_compare(&atime, &ctime) > 0 &&
	       ktime_get_real_seconds() - atime.tv_sec < RELATIME_S;
}

/*
 * What the cache has from `at` on, without a gap, with all that kernel_read() does
 * around a file system's read_iter. Bytes, 0 if there are none, or -errno.
 */
static noinline ssize_t read_cached(struct file *file, u8 *to, size_t bytes, loff_t at)
{
	struct address_space *mapping = file->f_mapping;
	size_t done = 0, offset, n, folio_bytes;
	loff_t size;
	int err = rw_verify_area(READ, file, &at, bytes);

	if (err)
		return err;
	do {
		struct folio *folio = cached(mapping, at >> PAGE_SHIFT);

		if (!folio)
			break;
		/* behind the look at the content, as filemap_read() does: truncation */
		size = i_size_read(mapping->host);
		if (at >= size) {
			folio_put(folio);
			break;
		}
		folio_bytes = folio_size(folio);
		offset = at & (folio_bytes - 1);
		n = min3((u64)(folio_bytes - offset), (u64)(size - at), (u64)(bytes - done));
		copy(to + done, (u8 *)folio_address(folio) + offset, n);
		folio_mark_accessed(folio);
		folio_put(folio);
		at += n;
		done += n;
	} while (done < bytes && at < size);
	if (!done)
		return 0;
	if (!atime_stays(file))
		file_accessed(file);
	fsnotify_access(file);
	add_rchar(current, done);
	inc_syscr(current);
	return done;
}
#else
static __always_inline bool is_plain(const struct file *file)
{
	return false;
}

static ssize_t read_cached(struct file *file, u8 *to, size_t bytes, loff_t at)
{
	return 0;
}
#endif

/*
 * Goes on behind the first `done` bytes, which are not all. Bytes in all, or -errno.
 * *end: nothing is behind them.
 */
static noinline ssize_t read_on(struct cosy_op *op, struct file *file, u8 *to, u64 bytes, u64 done,
				bool *end, int *status)
{
	const struct inode *inode = file_inode(file);
	bool plain = is_plain(file);
	loff_t at = op->data_offset + done;

	while (done < bytes) {
		size_t want = min_t(u64, bytes - done, DATA_CHUNK);
		ssize_t got;

		/* the first chunk is paid for by the tick of its file */
		*status = done ? cosy_tick(op->budget) : 0;
		if (*status)
			break;
		got = plain && done ? read_cached(file, to + done, want, at) : 0;
		if (got)
			at += got;
		else
			got = kernel_read(file, to + done, want, &at);
		if (got < 0)
			return done ? done : got;
		done += got;
		*end = !got || (cosy_size_is_true(inode) && at >= i_size_read(inode));
		if (*end)
			break;
	}
	return done;
}

bool cosy_record_data(struct cosy_record *r, struct cosy_op *op, const struct path *path,
		      const struct kstat *st, bool whole, int *status)
{
	u32 room = (cosy_room(op) - r->bytes) & ~7u, most = op->most_data, bytes;
	bool ahead = op->flags & COSY_WANT_AHEAD;
	u64 size = st->size;
	ssize_t got = 0;
	struct file *file;
	bool end;
	u8 *to;

	if (whole && most > room && size > op->data_offset && size - op->data_offset > room)
		return false;
	if (ahead && (size > most || !cosy_may_be_ahead(path, st)))
		return true;
	file = reader_open(op, path);
	if (IS_ERR(file)) {
		cosy_record_no_data(r, PTR_ERR(file));
		return true;
	}
	/* kernel_read() knows no other files */
	if (!file->f_op->read_iter || file->f_op->read) {
		r->flags |= COSY_ENTRY_SPECIAL;
	} else {
		to = (u8 *)r->e + r->bytes;
		bytes = min(room, most);
		if (likely(bytes && is_plain(file)))
			got = read_cached(file, to, min(bytes, DATA_CHUNK), op->data_offset);
		end = got > 0 && op->data_offset + got >= i_size_read(file_inode(file));
		if (unlikely(!end && got >= 0))
			got = read_on(op, file, to, bytes, got, &end, status);
		cosy_record_data_end(r, got, end);
		if (ahead && end && got == size)
			r->flags |= COSY_ENTRY_AHEAD;
	}
	reader_close(op);
	return true;
}
