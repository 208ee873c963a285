// SPDX-License-Identifier: GPL-2.0
/*
 * COSY_OP_SCAN: the children that the dcache has of a directory, with the attributes
 * that stat gives. Whoever has just read a directory and asks ahead needs neither to
 * read it again nor to look each name up: that is half of COSY_OP_ENTRIES.
 *
 * Names are taken under the parent's lock, where no rename can be; attributes are
 * asked for afterwards, since that may sleep, of children that are held.
 */
#include <linux/dcache.h>
#include <linux/file.h>
#include <linux/ktime.h>
#include <linux/uidgid.h>

#include "cosy.h"
#include "cosy_bpf.h"

#define MOST_VISITS 16384 /* children that are passed with the parent's lock held */

/* commit da549bdd15c2 ("dentry: switch the lists of children to hlist") (in v6.8) */
#ifdef HAVE_DENTRY_CHILDREN
#define for_each_child(child, parent) hlist_for_each_entry(child, &(parent)->d_children, d_sib)
#else
#define for_each_child(child, parent) list_for_each_entry(child, &(parent)->d_subdirs, d_child)
#endif

/* Children at which path lookup would do more than to look. */
#define SPECIAL                                                                                    \
	(DCACHE_OP_REVALIDATE | DCACHE_OP_WEAK_REVALIDATE | DCACHE_MANAGED_DENTRY |                \
	 DCACHE_DISCONNECTED | DCACHE_NOKEY_NAME | DCACHE_PAR_LOOKUP | DCACHE_DENTRY_KILLED)

/* A child whose name is in its record, and whose attributes are not yet. */
struct cosy_held {
	struct dentry *dentry;
	u32 at; /* offset of its record in all pages */
	u32 index; /* among its siblings */
};

#define MOST_HELD (sizeof_field(struct cosy_scratch, names) / sizeof(struct cosy_held))

struct scan {
	struct cosy_op *op;
	struct cosy_bpf_run run;
	u8 *pages;
	u32 n_pages, page; /* there are; the one that is being filled */
	struct cosy_held *held;
	u32 n; /* held */
	time64_t now; /* seconds */
	bool hints; /* of extended attributes */
};

static struct cosy_bpf_child *record_at(const struct scan *s, u32 at)
{
	return (struct cosy_bpf_child *)(s->pages + at);
}

/* Room for a record, and where it is. False: there is none. */
static bool place(struct scan *s, u32 bytes, u32 *at)
{
	u32 used = s->run.used[s->page];

	if (used + bytes > COSY_BPF_PAGE) {
		if (s->page + 1 == s->n_pages)
			return false;
		/* it may be fresh kernel memory on its way to the caller */
		memset(s->pages + s->page * COSY_BPF_PAGE + used, 0, COSY_BPF_PAGE - used);
		used = 0;
		s->page++;
	}
	*at = s->page * COSY_BPF_PAGE + used;
	s->run.used[s->page] = used + bytes;
	return true;
}

static void put_name(u64 *to, const unsigned char *name, u32 len)
{
	for (; len > 8; len -= 8, name += 8)
		*to++ = read_word_at_a_time(name);
	*to = read_word_at_a_time(name) & (~0ull >> (64 - 8 * len));
}

/* With both locks held. False: no room. */
static bool take_locked(struct scan *s, struct dentry *child, u32 index)
{
	u32 len = child->d_name.len, at;

	if (!simple_positive(child) || !len || len > NAME_MAX)
		return true;
	if (s->n == MOST_HELD || !place(s, sizeof(struct cosy_bpf_child) + ALIGN(len, 8), &at))
		return false;
	record_at(s, at)->namelen = len;
	put_name((u64 *)(record_at(s, at) + 1), child->d_name.name, len);
	s->held[s->n++] = (struct cosy_held){
		.dentry = dget_dlock(child),
		.at = at,
		.index = index,
	};
	return true;
}

static bool take(struct scan *s, struct dentry *child, u32 index)
{
	bool room;

	if (!simple_positive(child) || (child->d_flags & SPECIAL))
		return true;
	spin_lock_nested(&child->d_lock, DENTRY_D_LOCK_NESTED);
	room = take_locked(s, child, index);
	spin_unlock(&child->d_lock);
	return room;
}

/* The names of the children behind the first `skip`. The status, as far as it is known. */
static u32 take_names(struct scan *s, struct dentry *parent, u32 skip)
{
	u32 status = COSY_BPF_OK, n = 0;
	struct dentry *child;

	spin_lock(&parent->d_lock);
	for_each_child(child, parent)
	{
		if (n == MOST_VISITS)
			status = COSY_BPF_LIMIT;
		else if (n >= skip && !take(s, child, n))
			status = COSY_BPF_FULL;
		if (status != COSY_BPF_OK)
			break;
		n++;
	}
	spin_unlock(&parent->d_lock);
	s->run.seen = n;
	return status;
}

static u8 flags_of(const struct scan *s, const struct path *path, const struct kstat *st)
{
	u8 flags = 0;

	if (st->dev != s->run.dev || st->blksize != s->run.blksize ||
	    (st->result_mask & STATX_BASIC_STATS) != STATX_BASIC_STATS || d_unhashed(path->dentry))
		flags |= COSY_BPF_DECLINE;
	if (cosy_atime_is_stable(path, st, s->now))
		flags |= COSY_BPF_ATIME_STABLE;
	if (s->hints && !vfs_listxattr(path->dentry, NULL, 0))
		flags |= COSY_BPF_XATTR_NONE;
	if (!st->attributes)
		flags |= COSY_BPF_ATTR_PLAIN;
	return flags;
}

static void put_attributes(struct scan *s, struct cosy_bpf_child *to, const struct path *path)
{
	struct kstat st;

	if (vfs_getattr(path, &st, STATX_BASIC_STATS, AT_NO_AUTOMOUNT)) {
		memset(to, 0, offsetof(struct cosy_bpf_child, flags));
		to->flags = COSY_BPF_DECLINE;
		return;
	}
	/* the first one speaks for all */
	if (!s->run.blksize) {
		s->run.dev = st.dev;
		s->run.blksize = st.blksize;
	}
	to->ino = st.ino;
	to->size = st.size;
	to->blocks = st.blocks;
	to->atime_sec = st.atime.tv_sec;
	to->mtime_sec = st.mtime.tv_sec;
	to->ctime_sec = st.ctime.tv_sec;
	to->atime_nsec = st.atime.tv_nsec;
	to->mtime_nsec = st.mtime.tv_nsec;
	to->ctime_nsec = st.ctime.tv_nsec;
	to->nlink = st.nlink;
	cosy_ids(&st, &to->uid, &to->gid);
	to->rdev = st.rdev;
	to->mode = st.mode;
	to->flags = flags_of(s, path, &st);
}

/* What is behind the record at `at` does not count. */
static void cut(struct scan *s, u32 at)
{
	u32 page = at / COSY_BPF_PAGE, i;

	s->run.used[page] = at % COSY_BPF_PAGE;
	for (i = page + 1; i <= s->page; i++)
		s->run.used[i] = 0;
	s->page = page;
}

/* The status with which the run ends, 0: all have theirs. */
static int take_attributes(struct scan *s, struct vfsmount *mnt)
{
	int status = 0;
	u32 i;

	for (i = 0; i < s->n; i++) {
		const struct cosy_held *held = &s->held[i];
		const struct path path = { .mnt = mnt, .dentry = held->dentry };

		if (!status)
			status = cosy_tick(s->op->budget);
		if (!status) {
			put_attributes(s, record_at(s, held->at), &path);
			s->run.n_children++;
		} else if (s->run.n_children == i) {
			cut(s, held->at);
			s->run.seen = held->index;
			s->run.status = COSY_BPF_LIMIT;
			s->run.n_children = i;
		}
		dput(held->dentry);
	}
	return status;
}
/* Elsewhere a missing one is EOPNOTSUPP. Nobody has this one. */
static bool has_security_xattrs(const struct path *dir)
{
	return cosy_getxattr_size(cosy_mnt_idmap(dir->mnt), dir->dentry, "security.cosy.none") ==
	       -ENODATA;
}

/*
 * A descriptor that is open for reading has been through all checks when it was
 * opened; by a caller who has changed since, they are made again.
 */
static int may_list(const struct file *file)
{
	struct file *again;

	if (!(file->f_mode & FMODE_READ))
		return -EBADF;
	if (file->f_cred == current_cred())
		return 0;
	again = cosy_open(&file->f_path, O_DIRECTORY | O_NOATIME);
	if (IS_ERR(again))
		return PTR_ERR(again);
	fput(again);
	return 0;
}

static u32 check(const struct file *file)
{
	const struct dentry *dentry = file->f_path.dentry;
	u32 odd = DCACHE_OP_REVALIDATE | DCACHE_OP_COMPARE | DCACHE_OP_HASH;

	if (!d_is_dir(dentry))
		return COSY_BPF_NOTDIR;
	/*
	 * Nobody looks up a file system's root, so that this says nothing of its children,
	 * which have flags of their own: on 6.12 ext4's has fscrypt's d_revalidate.
	 */
	if (IS_ROOT(dentry))
		odd &= ~DCACHE_OP_REVALIDATE;
	/* a server might have to be asked; names that differ may mean the same */
	if (dentry->d_flags & odd)
		return COSY_BPF_FS;
	if (may_list(file) || cosy_may_search(&file->f_path))
		return COSY_BPF_PERM;
	return COSY_BPF_OK;
}

static int scan_directory(struct scan *s, const struct path *dir, u32 skip)
{
	const struct inode *inode = d_inode(dir->dentry);

	s->hints = (s->op->flags & COSY_WANT_HINTS) && has_security_xattrs(dir);
	s->run.sb_flags = IS_POSIXACL(inode) ? COSY_BPF_SB_ACL : 0;
	s->run.dir_ino = inode->i_ino;
	s->run.dir_size = i_size_read(inode);
	s->now = ktime_get_real_seconds();
	s->run.status = take_names(s, dir->dentry, skip);
	return take_attributes(s, dir->mnt);
}

s64 cosy_scan(struct cosy_op *op, int *status)
{
	struct scan s = {
		.op = op,
		.pages = op->out + sizeof(s.run),
		.held = (struct cosy_held *)op->scratch->names,
	};
	struct file *file;

	if (op->out_bytes < sizeof(s.run) + COSY_BPF_PAGE)
		return -ENOSPC;
	s.n_pages = min_t(u32, (op->out_bytes - sizeof(s.run)) / COSY_BPF_PAGE, COSY_BPF_PAGES);
	file = fget((int)op->args[0]);
	s.run.status = file ? check(file) : COSY_BPF_BADFD;
	if (s.run.status == COSY_BPF_OK)
		*status = scan_directory(&s, &file->f_path, min_t(u64, op->args[4], MOST_VISITS));
	if (file)
		fput(file);
	memcpy(op->out, &s.run, sizeof(s.run));
	op->used = sizeof(s.run) + s.page * COSY_BPF_PAGE + s.run.used[s.page];
	return s.run.n_children;
}
