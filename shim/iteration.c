// SPDX-License-Identifier: MIT
#include "iteration.h"

#include <asm/unistd_64.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/statfs.h>

#include "compound.h"
#include "firing.h"
#include "syscall_table.h"

static const char *profile_text(u32 offset)
{
	return profile.strings + offset;
}

// --- where the call goes --------------------------------------------------------

static bool join(char *to, const char *a, const char *b)
{
	struct text t = { .at = to, .size = PATH_BYTES };

	to[0] = 0;
	text_add(&t, a);
	if (*b) {
		text_add(&t, "/");
		text_add(&t, b);
	}
	return !t.cut;
}

static void about_path(struct place *p, const char *path)
{
	p->about = (struct subject){ .kind = ABOUT_PATH, .text = path, .len = (u32)strlen(path) };
}

// A child of D, or something below one.
static bool place_child(const struct iteration *it, const char *name, const char *below,
			struct place *p)
{
	const struct child *child = it->run->child;

	p->dirfd = it->run->dir;
	if (!join(p->path, name, below))
		return false;
	if (*below) {
		char *said = p->said;

		if (!it->run->by_path || !child->dir->path[0] ||
		    !join(said, child->dir->path, p->path))
			return false;
		about_path(p, said);
		return true;
	}
	p->about = (struct subject){ .kind = ABOUT_CHILD,
				     .id = dir_number(child->dir),
				     .generation = child->dir->generation,
				     .text = p->path,
				     .len = (u32)strlen(p->path) };
	return true;
}

// The trigger's own path.
static bool place_trigger(const struct iteration *it, const char *below, struct place *p)
{
	const struct body_run *run = it->run;

	if (run->child)
		return place_child(it, it->item, below, p);
	if (run->question->about_fd || !join(p->path, run->question->path, below))
		return false;
	p->dirfd = run->question->dirfd;
	about_path(p, p->path);
	// Relative to a descriptor that nobody knows: the text alone says nothing.
	return p->dirfd == AT_FDCWD || p->path[0] == '/';
}

static bool one_name(const char *s)
{
	for (; *s; s++)
		if (*s == '/')
			return false;
	return true;
}

static bool place_path(const struct iteration *it, const struct cosy_arg *arg, struct place *p)
{
	const char *string = profile_text(arg->string);

	switch (arg->kind) {
	case COSY_ARG_NAME:
	case COSY_ARG_PATH:
		return it->run->child && place_child(it, it->item, string, p);
	case COSY_ARG_TRIGGER:
		return place_trigger(it, string, p);
	case COSY_ARG_ITEM:
		p->dirfd = AT_FDCWD;
		if (!join(p->path, it->item, string))
			return false;
		about_path(p, p->path);
		return true;
	case COSY_ARG_STRING:
		if (p->dirfd == it->run->dir && it->run->child)
			return one_name(string) && place_child(it, string, "", p);
		if (p->dirfd != AT_FDCWD || !join(p->path, string, ""))
			return false;
		about_path(p, p->path);
		return true;
	}
	return false;
}

// The path without its last part; nothing is left of "/" and ".".
static bool cut(char *path)
{
	size_t len = strlen(path);

	while (len > 1 && path[len - 1] == '/')
		len--;
	if (!len || str_equal(path, ".") || (len == 1 && path[0] == '/'))
		return false;
	while (len && path[len - 1] != '/')
		len--;
	path[len] = 0;
	if (!len)
		path[len++] = '.', path[len] = 0;
	return true;
}

// It exists, and no magic link and nothing of a process leads there. -errno, or 1, or 0: it does.
static long leads_plainly(int dirfd, const char *path, bool link)
{
	long fd = open_plain(dirfd, path, O_PATH | O_CLOEXEC | (link ? O_NOFOLLOW : 0));
	struct statfs fs;
	bool plain;

	if (fd < 0)
		return fd == -40 /* ELOOP */ || fd == -38 /* ENOSYS */ ? 0 : fd;
	plain = !sys_failed(sys(__NR_fstatfs, fd, &fs)) && fs.f_type != PROC_SUPER_MAGIC;
	sys(__NR_close, fd);
	return plain;
}

/*
 * What the path means changes only by what ends the epoch. Of one that does not exist that is
 * asked of the longest part that does; a link that leads nowhere may lead anywhere.
 */
static bool lasts(const struct place *p, bool link)
{
	char path[PATH_BYTES];
	long plain = leads_plainly(p->dirfd, p->path, link);

	memcpy(path, p->path, strlen(p->path) + 1);
	while (plain < 0) {
		if ((!link && leads_plainly(p->dirfd, path, true) >= 0) || !cut(path))
			return false;
		link = false;
		plain = leads_plainly(p->dirfd, path, link);
	}
	return plain;
}

// A descriptor: of what the body opened, or the trigger's.
static bool place_fd(struct iteration *it, const struct cosy_arg *arg, struct place *p)
{
	if (arg->kind == COSY_ARG_RESULT) {
		const struct made *m = &it->made[arg->index];

		if (m->fd < 0)
			return false;
		p->fd = m->fd;
		p->about = (struct subject){ .kind = ABOUT_FILE, .id = m->file };
		return true;
	}
	if (arg->kind != COSY_ARG_TRIGGER)
		return false;
	p->fd = (int)it->run->trigger->a[arg->index];
	p->about = (struct subject){ .kind = ABOUT_FILE, .id = recorded_file_of(p->fd) };
	return p->about.id != 0;
}

// --- arguments -----------------------------------------------------------------

static u64 number(const struct iteration *it, const struct cosy_arg *arg)
{
	switch (arg->kind) {
	case COSY_ARG_CONST:
	case COSY_ARG_OUT:
		return arg->value;
	case COSY_ARG_TRIGGER:
		return it->run->trigger->a[arg->index];
	case COSY_ARG_RESULT:
		return (u64)it->made[arg->index].ret;
	case COSY_ARG_FIELD:
		return it->made[arg->index].size + arg->value;
	}
	return 0;
}

bool iteration_ask(struct iteration *it, const struct cosy_op *op, struct question *q,
		   struct place *p)
{
	const struct cosy_syscall *s = &cosy_syscalls[op->nr];
	struct regs r = { .nr = op->nr };
	const struct cosy_arg *path = NULL;

	p->dirfd = AT_FDCWD;
	p->fd = -1;
	for (u32 i = 0; i < op->n_args; i++) {
		const struct cosy_arg *arg = &op->args[i];

		if (arg->kind == COSY_ARG_RESULT && !it->made[arg->index].ran)
			return false;
		if (arg->kind == COSY_ARG_FIELD && !it->made[arg->index].has_stat)
			return false;
		switch (s->args[i]) {
		case COSY_ARGT_FD:
			if (!place_fd(it, arg, p))
				return false;
			break;
		case COSY_ARGT_DIRFD:
			if (arg->kind == COSY_ARG_DIR)
				p->dirfd = it->run->dir;
			else if (arg->kind == COSY_ARG_RESULT && !place_fd(it, arg, p))
				return false;
			break;
		case COSY_ARGT_PATH:
			path = arg;
			break;
		case COSY_ARGT_NAME:
			r.a[i] = (u64)profile_text(arg->string);
			break;
		default:
			r.a[i] = number(it, arg);
		}
	}
	if (!question_take(&r, q))
		return false;
	if (path && p->fd < 0 && !place_path(it, path, p))
		return false;
	// An empty path: the descriptor itself.
	q->about_fd = p->fd >= 0;
	q->flags &= ~(u32)(q->want == WANT_OPEN ? 0 : AT_EMPTY_PATH);
	if (q->about_fd)
		q->flags &= ~(u32)AT_SYMLINK_NOFOLLOW;
	q->path = p->path;
	return q->about_fd || lasts(p, q->want == WANT_LINK || (q->want != WANT_OPEN &&
								q->flags & AT_SYMLINK_NOFOLLOW));
}

static bool compare(u64 a, u64 b, u8 relation, bool is_signed)
{
	bool less = is_signed ? (s64)a < (s64)b : a < b;

	switch (relation) {
	case COSY_IS:
		return a == b;
	case COSY_IS_NOT:
		return a != b;
	case COSY_AT_MOST:
		return less || a == b;
	}
	return !less;
}

bool iteration_allows(const struct iteration *it, const struct cosy_cond *cond)
{
	const struct made *m = &it->made[cond->index];

	if (!m->ran)
		return false;
	switch (cond->field) {
	case COSY_FIELD_RET:
		return compare((u64)m->ret, cond->value, cond->relation, true);
	case COSY_FIELD_ERRNO:
		return compare(m->ret < 0 ? (u64)-m->ret : 0, cond->value, cond->relation, false);
	case COSY_FIELD_TYPE:
		return m->has_stat &&
		       compare(m->inode.mode & S_IFMT, cond->value, cond->relation, false);
	case COSY_FIELD_MODE:
		return m->has_stat &&
		       compare(m->inode.mode & 07777, cond->value, cond->relation, false);
	case COSY_FIELD_SIZE:
		return m->has_stat && compare(m->size, cond->value, cond->relation, false);
	}
	return false;
}
