// SPDX-License-Identifier: GPL-2.0
/*
 * Opening files that no descriptor will ever show. Allocating and freeing a
 * struct file is a third of what it costs to read a small file, and before
 * Linux 6.6 a freed one stays until the caller is back in user mode. So a batch
 * has one, which is opened for one file after the other: finish_open() is all of
 * an open but the allocation, the check by security modules included, and
 * reader_shut() is what __fput() does for a file that nobody else ever saw.
 */
#include <linux/cred.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/fsnotify.h>
#include <linux/module.h>

#include "cosy.h"

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
static void reader_shut(struct file *file)
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

struct file *cosy_reader_open(struct cosy_op *op, const struct path *path)
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

void cosy_reader_close(struct cosy_op *op)
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
