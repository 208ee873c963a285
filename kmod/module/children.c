// SPDX-License-Identifier: GPL-2.0
/*
 * The children that the dcache has of a directory. Reading the directory again
 * and looking each name up costs half of COSY_OP_ENTRIES; whoever has just read it
 * and asks ahead needs neither.
 */
#include <linux/dcache.h>
#include <linux/slab.h>

#include "cosy.h"

/* commit da549bdd15c2 ("dentry: switch the lists of children to hlist") (in v6.8) */
#ifdef HAVE_DENTRY_CHILDREN
#define for_each_child(child, parent) hlist_for_each_entry(child, &(parent)->d_children, d_sib)
#else
#define for_each_child(child, parent) list_for_each_entry(child, &(parent)->d_subdirs, d_child)
#endif

static bool take(struct cosy_names *names, struct dentry *child, u32 index)
{
	struct cosy_name *name = (struct cosy_name *)(names->buffer + names->used);
	u32 len;

	if (!simple_positive(child) || (child->d_flags & DCACHE_OP_REVALIDATE))
		return true;
	spin_lock_nested(&child->d_lock, DENTRY_D_LOCK_NESTED);
	len = child->d_name.len;
	if (simple_positive(child) && names->used + cosy_name_bytes(len) <= COSY_NAMES_BYTES) {
		name->child = dget_dlock(child);
		name->len = len;
		name->index = index;
		name->type = fs_umode_to_dtype(d_inode(child)->i_mode);
		name->text[len / 8] = 0;
		memcpy(name->text, child->d_name.name, len);
		names->used += cosy_name_bytes(len);
		len = 0;
	} else if (!simple_positive(child)) {
		len = 0;
	}
	spin_unlock(&child->d_lock);
	return !len;
}

/*
 * The next children behind the first `position`, each held; the new position. The
 * parent's lock is held over a walk of at most COSY_MAX_CACHED.
 */
u32 cosy_children(struct dentry *parent, u32 position, struct cosy_names *names)
{
	struct dentry *child;
	u32 n = 0;

	names->used = 0;
	if (position >= COSY_MAX_CACHED)
		return position;
	spin_lock(&parent->d_lock);
	for_each_child(child, parent)
	{
		if (n == COSY_MAX_CACHED)
			break;
		if (n >= position && !take(names, child, n))
			break;
		n++;
	}
	spin_unlock(&parent->d_lock);
	return n;
}

void cosy_children_put(struct cosy_names *names, u32 from)
{
	while (from < names->used) {
		const struct cosy_name *name = (const struct cosy_name *)(names->buffer + from);

		from += cosy_name_bytes(name->len);
		dput(name->child);
	}
}
