// SPDX-License-Identifier: MIT
#include "answer.h"

#include <asm/unistd_64.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "fence.h"
#include "mem.h"
#include "shim.h"
#include "syscall_table.h"

#define TEMPLATES 8
#define MANY_CALLS 64
#define ENODATA 61

/*
 * What statx says that no inode holds: it depends on the mount, the file
 * system and the request, so the first answer of the kernel is the model.
 */
static struct template
{
	u32 request, flags;
	u32 mask, blksize, dev_major, dev_minor;
	u64 attributes_mask, mnt_id;
}
templates[TEMPLATES];
static u32 n_templates;
static u32 n_calls; // that the kernel was asked, up to MANY_CALLS
static bool xattr_asked, statx_asked;

bool names_xattr(u32 nr)
{
	return nr == __NR_getxattr || nr == __NR_lgetxattr;
}

struct attr_layout attr_layouts[ATTR_LAYOUTS] AT_START;
u8 attr_layout_of[COSY_NR_MAX] AT_START;
static u8 n_layouts AT_START;

bool attr_call_expected(u32 nr)
{
	return attr_layout_of[nr];
}

bool asks_xattrs(void)
{
	return xattr_asked || n_calls < MANY_CALLS;
}

bool asks_statx(void)
{
	return statx_asked;
}

bool attr_call_expect(u32 nr)
{
	const struct cosy_syscall *s = &cosy_syscalls[nr];
	struct attr_layout *l = &attr_layouts[n_layouts];

	if (attr_call_expected(nr))
		return true;
	if (n_layouts == ATTR_LAYOUTS)
		return false;
	if (nr == __NR_lstat || nr == __NR_lgetxattr)
		l->implied = AT_SYMLINK_NOFOLLOW;
	for (u8 i = 0; i < s->n_args; i++) {
		u8 place = (u8)(offsetof(struct regs, a) + i * sizeof(u64));

		switch (s->args[i]) {
		case COSY_ARGT_DIRFD:
			l->dirfd = place;
			break;
		case COSY_ARGT_PATH:
			l->path = place;
			break;
		case COSY_ARGT_AT_FLAGS:
			l->flags = place;
			break;
		case COSY_ARGT_STATX_MASK:
			l->mask = place;
			break;
		case COSY_ARGT_STAT_OUT:
		case COSY_ARGT_STATX_OUT:
		case COSY_ARGT_BUF_OUT:
			l->out = place;
			break;
		case COSY_ARGT_NAME:
			l->xattr = place;
			break;
		}
	}
	if (!l->path || !l->out)
		return false;
	attr_layout_of[nr] = ++n_layouts;
	return true;
}

void attr_call_note(u32 nr)
{
	xattr_asked |= names_xattr(nr);
	statx_asked |= nr == __NR_statx;
	n_calls += n_calls < MANY_CALLS;
}

void attr_pattern_take(struct attr_pattern *to, const struct cosy_pattern *p, const char *name)
{
	// What a call implies needs no leave.
	to->flags_refused = attr_layouts[attr_call_layout(p->nr)].flags ? ~p->flags_allowed : 0;
	to->mask_refused = ~p->mask_within;
	to->name = name;
	to->name_len = (u32)strlen(name);
	if (to->name_len >= sizeof(to->name_end))
		to->name_end = load_word(name + to->name_len + 1 - sizeof(to->name_end));
	to->acl = str_starts(name, "system.posix_acl_");
	to->security = str_starts(name, "security.");
}

bool attr_call_names(const struct attr_call *call, const struct attr_pattern *p)
{
	const char *xattr = call->xattr;

	if (!xattr || !mem_page_readable(xattr))
		return false;
	// Not beyond its page, if it is shorter than ours.
	if (unlikely(((u64)xattr & (PAGE_SIZE - 1)) + p->name_len >= PAGE_SIZE))
		return mem_strlen(xattr, p->name_len) == p->name_len &&
		       same_bytes(xattr, p->name, p->name_len);
	if (p->name_len >= sizeof(p->name_end) &&
	    load_word(xattr + p->name_len + 1 - sizeof(p->name_end)) != p->name_end)
		return false;
	return same_bytes(xattr, p->name, p->name_len + 1);
}

static enum cosy_decline answer_stat(const struct attr_call *call, const struct record *rec)
{
	const struct cosy_bpf_child *c = rec->child;
	struct stat *st = call->out;

	if (!mem_writable(st, sizeof(*st)))
		return COSY_DECLINE_RECORD;
	// Each byte once: to clear it all first takes as long as the rest of the answer.
	st->st_dev = rec->results->st_dev;
	st->st_ino = c->ino;
	st->st_nlink = c->nlink;
	st->st_mode = c->mode;
	st->st_uid = c->uid;
	st->st_gid = c->gid;
	st->st_rdev = c->rdev ? st_dev(c->rdev) : 0;
	st->st_size = (s64)c->size;
	st->st_blksize = rec->results->blksize;
	st->st_blocks = (s64)c->blocks;
	st->st_atim = (struct timespec){ c->atime_sec, c->atime_nsec };
	st->st_mtim = (struct timespec){ c->mtime_sec, c->mtime_nsec };
	st->st_ctim = (struct timespec){ c->ctime_sec, c->ctime_nsec };
	st->__pad0 = 0;
	for (u32 i = 0; i < ARRAY_SIZE(st->__glibc_reserved); i++)
		st->__glibc_reserved[i] = 0;
	return COSY_DECLINES;
}

static const struct template *template_of(const struct attr_call *call, const struct record *rec)
{
	for (u32 i = 0; i < n_templates; i++) {
		const struct template *t = &templates[i];

		if (t->request == call->mask && t->flags == call->flags &&
		    t->dev_major == rec->results->dev >> 20 &&
		    t->dev_minor == (rec->results->dev & 0xfffff) &&
		    t->mnt_id == rec->results->mnt_id)
			return t;
	}
	return NULL;
}

static struct statx_timestamp stamp(s64 sec, u32 nsec)
{
	return (struct statx_timestamp){ .tv_sec = sec, .tv_nsec = nsec };
}

static enum cosy_decline answer_statx(const struct attr_call *call, const struct record *rec)
{
	const struct cosy_bpf_child *c = rec->child;
	const struct template *t = template_of(call, rec);
	struct statx *st = call->out;

	if (!t || !(c->flags & COSY_BPF_ATTR_PLAIN) || !mem_writable(st, sizeof(*st)))
		return COSY_DECLINE_RECORD;
	st->stx_mask = t->mask;
	st->stx_blksize = t->blksize;
	st->stx_attributes = 0;
	st->stx_btime = stamp(0, 0);
	st->stx_attributes_mask = t->attributes_mask;
	st->stx_nlink = c->nlink;
	st->stx_uid = c->uid;
	st->stx_gid = c->gid;
	st->stx_mode = c->mode;
	st->__spare0[0] = 0;
	st->stx_ino = c->ino;
	st->stx_size = c->size;
	st->stx_blocks = c->blocks;
	st->stx_atime = stamp(c->atime_sec, c->atime_nsec);
	// Of multigrain timestamps the kernel tells none when neither was asked for.
	if (t->mask & (STATX_MTIME | STATX_CTIME)) {
		st->stx_mtime = stamp(c->mtime_sec, c->mtime_nsec);
		st->stx_ctime = stamp(c->ctime_sec, c->ctime_nsec);
	} else {
		st->stx_mtime = st->stx_ctime = stamp(0, 0);
	}
	st->stx_rdev_major = c->rdev >> 20;
	st->stx_rdev_minor = c->rdev & 0xfffff;
	st->stx_dev_major = t->dev_major;
	st->stx_dev_minor = t->dev_minor;
	st->stx_mnt_id = t->mnt_id;
	memset(&st->stx_mnt_id + 1, 0, sizeof(*st) - offsetof(struct statx, stx_mnt_id) - 8);
	return COSY_DECLINES;
}

/*
 * Only that there is none can be said, and only of the two name spaces whose
 * missing attributes are ENODATA for everyone who may search the directory.
 */
static enum cosy_decline answer_xattr(const struct attr_pattern *p, const struct record *rec,
				      long *ret)
{
	const struct cosy_bpf_child *c = rec->child;

	if (!(c->flags & COSY_BPF_XATTR_NONE))
		return COSY_DECLINE_RECORD;
	if (p->acl && (S_ISLNK(c->mode) || !(rec->results->sb_flags & COSY_BPF_SB_ACL)))
		return COSY_DECLINE_RECORD;
	if (!p->acl && !p->security)
		return COSY_DECLINE_RECORD;
	*ret = -ENODATA;
	return COSY_DECLINES;
}

static bool atime_moved(const struct record *rec)
{
	const struct cosy_bpf_child *c = rec->child;
	enum touch kind = S_ISDIR(c->mode) ? TOUCH_DIR : TOUCH_FILE;

	if (c->flags & COSY_BPF_ATIME_STABLE || !fence_on(FENCE_ATIME))
		return false;
	// Any path may lead through a symbolic link, and that reads it.
	if (S_ISLNK(c->mode))
		return true;
	return touched(kind) != rec->results->start.touches[kind] ||
	       (kind == TOUCH_FILE && was_read(rec->results->st_dev, c->ino));
}

APART enum cosy_decline answer(const struct attr_call *call, const struct attr_pattern *p,
			       const struct record *rec, long *ret)
{
	const struct cosy_bpf_child *c = rec->child;

	*ret = 0;
	if (c->flags & COSY_BPF_DECLINE ||
	    (S_ISLNK(c->mode) && !(call->flags & AT_SYMLINK_NOFOLLOW)))
		return COSY_DECLINE_RECORD;
	if (written(rec->results->st_dev, c->ino))
		return COSY_DECLINE_WRITTEN;
	if (call->xattr)
		return answer_xattr(p, rec, ret);
	if (atime_moved(rec))
		return COSY_DECLINE_WRITTEN;
	if (call->nr == __NR_statx)
		return answer_statx(call, rec);
	return answer_stat(call, rec);
}

static void learn_template(const struct attr_call *call, const struct statx *st)
{
	struct template *t = templates;

	if (!(st->stx_mask & 0x1000 /* STATX_MNT_ID */))
		return;
	for (u32 i = 0; i < n_templates; i++, t++)
		if (t->request == call->mask && t->flags == call->flags &&
		    t->dev_major == st->stx_dev_major && t->dev_minor == st->stx_dev_minor &&
		    t->mnt_id == st->stx_mnt_id)
			return;
	if (n_templates == TEMPLATES)
		n_templates = 0;
	templates[n_templates++] = (struct template){
		.request = call->mask,
		.flags = call->flags,
		.mask = st->stx_mask,
		.blksize = st->stx_blksize,
		.dev_major = st->stx_dev_major,
		.dev_minor = st->stx_dev_minor,
		.attributes_mask = st->stx_attributes_mask,
		.mnt_id = st->stx_mnt_id,
	};
}

u32 answer_mode(const struct regs *r)
{
	switch (r->nr) {
	case __NR_newfstatat:
		return ((const struct stat *)r->a[2])->st_mode;
	case __NR_stat:
	case __NR_lstat:
		return ((const struct stat *)r->a[1])->st_mode;
	case __NR_statx:
		return ((const struct statx *)r->a[4])->stx_mode;
	}
	return 0;
}

void answer_learn(const struct attr_call *call)
{
	if (call->nr == __NR_statx)
		learn_template(call, call->out);
}
