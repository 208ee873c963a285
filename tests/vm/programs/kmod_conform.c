// SPDX-License-Identifier: MIT
/*
 * kmod_conform make DIR		files of every kind
 * kmod_conform check DIR [UID]		fused operations against plain calls, as that user
 * The context is opened before the user changes: rights are those of the moment.
 */
#include <dirent.h>
#include <grp.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/xattr.h>

#include "context.h"

#define BUFFER (4u << 20)
#define MOST_DATA 100000u
#define WANTED (STATX_BASIC_STATS | STATX_BTIME)

static struct context c;
static int checks;

static void must(int ret, const char *what)
{
	if (ret < 0)
		fail("%s: %s", what, strerror(errno));
}

// --- what there is to look at --------------------------------------------------

static void make_file(const char *name, size_t bytes, mode_t mode)
{
	int fd = open(name, O_CREAT | O_WRONLY | O_TRUNC, 0644);

	must(fd, name);
	for (size_t i = 0; i < bytes; i += 4) {
		unsigned int word = (unsigned int)i * 2654435761u;
		size_t left = bytes - i;

		must((int)write(fd, &word, left < 4 ? left : 4), "write");
	}
	must(fchmod(fd, mode), "fchmod");
	close(fd);
}

static void make(const char *dir)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = "socket" };
	// u::rw- u:1000:r-- g::r-- m::r-- o::---, as in the xattr (linux/posix_acl_xattr.h)
	static const unsigned char acl[] = {
		2, 0,	 0,    0,    1,	   0,	 6,    0, 0xff, 0xff, 0xff, 0xff, 2,	0,    4,
		0, 0xe8, 3,    0,    0,	   4,	 0,    4, 0,	0xff, 0xff, 0xff, 0xff, 0x10, 0,
		4, 0,	 0xff, 0xff, 0xff, 0xff, 0x20, 0, 0,	0,    0xff, 0xff, 0xff, 0xff,
	};
	char longest[256];
	int fd;

	mkdir(dir, 0755);
	must(chdir(dir), dir);
	make_file("empty", 0, 0644);
	make_file("small", 11, 0644);
	make_file("page", 4096, 0644);
	make_file("pages", 12289, 0644);
	make_file("large", 300000, 0644);
	make_file("private", 100, 0600);
	make_file("none", 100, 0);
	make_file("setuid", 100, 04755);
	make_file("name with blanks\n", 100, 0644);
	make_file("...", 100, 0644);
	make_file(".hidden", 100, 0644);
	make_file("seven77", 7, 0644);
	make_file("eight888", 8, 0644);
	memset(longest, 'x', 255);
	longest[255] = 0;
	make_file(longest, 10, 0644);
	must(truncate("small", 70000), "truncate"); // a hole
	must(link("page", "hardlink"), "link");
	must(symlink("page", "link"), "symlink");
	must(symlink("nowhere", "dangling"), "symlink");
	must(symlink("directory", "link-to-directory"), "symlink");
	must(symlink("loop", "loop"), "symlink");
	must(mkfifo("fifo", 0644), "mkfifo");
	must(mknod("device", S_IFCHR | 0666, makedev(1, 7)), "mknod"); // /dev/full
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	must(bind(fd, (void *)&address, sizeof(address)), "bind");
	close(fd);
	must(mkdir("directory", 0755), "mkdir");
	make_file("directory/below", 20, 0644);
	must(mkdir("directory/deeper", 0755), "mkdir");
	make_file("directory/deeper/file", 30, 0644);
	must(mkdir("locked", 0700), "mkdir");
	make_file("locked/inside", 20, 0644);
	must(mkdir("unsearchable", 0744), "mkdir");
	make_file("unsearchable/inside", 20, 0644);
	must(mkdir("mounted", 0700), "mkdir");
	must(mount("tmpfs", "mounted", "tmpfs", 0, "mode=0751"), "mount");
	make_file("mounted/on-it", 20, 0644);
	make_file("file-mount", 5, 0644);
	must(mount("page", "file-mount", NULL, MS_BIND, NULL), "bind mount");
	must(setxattr("page", "security.test", "value", 5, 0), "setxattr");
	must(setxattr("directory", "trusted.test", "1234567", 7, 0), "setxattr");
	if (setxattr("pages", "system.posix_acl_access", acl, sizeof(acl), 0) &&
	    errno != EOPNOTSUPP)
		fail("acl: %s", strerror(errno));
}

// --- one entry -------------------------------------------------------------------

static void same(const char *name, const char *what, long long ours, long long kernel)
{
	checks++;
	if (ours != kernel)
		fail("%s: %s is %lld, plain calls say %lld", name, what, ours, kernel);
}

static void check_attributes(const struct cosy_entry *e, const struct statx *st)
{
	const char *name = cosy_entry_name(e);

	same(name, "mode", e->mode, st->stx_mode);
	same(name, "mask", e->mask, st->stx_mask & WANTED);
	same(name, "ino", (long long)e->ino, (long long)st->stx_ino);
	same(name, "size", (long long)e->size, (long long)st->stx_size);
	same(name, "blocks", (long long)e->blocks, (long long)st->stx_blocks);
	same(name, "nlink", e->nlink, st->stx_nlink);
	same(name, "uid", e->uid, st->stx_uid);
	same(name, "gid", e->gid, st->stx_gid);
	same(name, "dev", e->dev, (long long)makedev(st->stx_dev_major, st->stx_dev_minor));
	same(name, "rdev", e->rdev, (long long)makedev(st->stx_rdev_major, st->stx_rdev_minor));
	same(name, "blksize", e->blksize, st->stx_blksize);
	same(name, "attributes", (long long)e->attributes, (long long)st->stx_attributes);
	same(name, "attributes_mask", (long long)e->attributes_mask,
	     (long long)st->stx_attributes_mask);
	same(name, "mtime", e->mtime_sec, st->stx_mtime.tv_sec);
	same(name, "mtime_nsec", e->mtime_nsec, st->stx_mtime.tv_nsec);
	same(name, "ctime", e->ctime_sec, st->stx_ctime.tv_sec);
	same(name, "ctime_nsec", e->ctime_nsec, st->stx_ctime.tv_nsec);
	same(name, "atime", e->atime_sec, st->stx_atime.tv_sec);
	same(name, "atime_nsec", e->atime_nsec, st->stx_atime.tv_nsec);
	if (e->mask & STATX_BTIME) {
		same(name, "btime", e->btime_sec, st->stx_btime.tv_sec);
		same(name, "btime_nsec", e->btime_nsec, st->stx_btime.tv_nsec);
	}
}

// As read does it, with at most `most` bytes from `offset` on.
static void check_contents(int dirfd, const char *name, const struct cosy_entry *e, size_t offset,
			   size_t most)
{
	static char data[MOST_DATA + 1];
	int fd = openat(dirfd, name, O_RDONLY | O_NOATIME | O_NONBLOCK);
	ssize_t got;

	if (fd < 0 && errno == EPERM) // O_NOATIME is for the owner
		fd = openat(dirfd, name, O_RDONLY);
	if (fd < 0) {
		same(name, "open", e->data, -errno);
		return;
	}
	got = pread(fd, data, most + 1, (off_t)offset);
	close(fd);
	if (got < 0) {
		same(name, "read", e->data, -errno);
		return;
	}
	same(name, "data", e->data, got > (ssize_t)most ? (ssize_t)most : got);
	same(name, "contents", memcmp(cosy_entry_data(e), data, (size_t)e->data), 0);
	if (got <= (ssize_t)most && most)
		same(name, "end", !!(e->flags & COSY_ENTRY_DATA_END), 1);
	if (got > (ssize_t)most)
		same(name, "end", !!(e->flags & COSY_ENTRY_DATA_END), 0);
}

static void check_link(int dirfd, const char *name, const struct cosy_entry *e)
{
	char target[4097];
	ssize_t got = readlinkat(dirfd, name, target, sizeof(target));

	same(name, "readlink", e->data, got < 0 ? -errno : got);
	if (got > 0)
		same(name, "target", memcmp(cosy_entry_data(e), target, (size_t)got), 0);
}

static const char xattr_names[] =
	"security.test\0system.posix_acl_access\0trusted.test\0user.none\0";
static const char *const xattr_list[] = { "security.test", "system.posix_acl_access",
					  "trusted.test", "user.none" };

static void check_xattrs(const char *dir, const char *name, const struct cosy_entry *e)
{
	char path[8192];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	same(name, "n_xattrs", e->n_xattrs, 4);
	for (int i = 0; i < 4; i++) {
		ssize_t got = lgetxattr(path, xattr_list[i], NULL, 0);

		same(name, xattr_list[i], cosy_entry_xattrs(e)[i], got < 0 ? -errno : got);
	}
}

// The record's own shape: nothing but zeros between its parts.
static void check_shape(const struct cosy_entry *e)
{
	const char *name = cosy_entry_name(e), *end = (const char *)e + e->bytes;
	const char *data = cosy_entry_data(e);

	same(name, "alignment", e->bytes % 8, 0);
	same(name, "name_len", (long long)strlen(name), e->name_len);
	for (const char *p = name + e->name_len; p < data; p++)
		same(name, "padding", *p, 0);
	if (e->data > 0)
		data += e->data;
	if (end - data >= 8 || end < data)
		fail("%s: %ld bytes behind the data", name, (long)(end - data));
	for (; data < end; data++)
		same(name, "padding", *data, 0);
}

// --- entries ------------------------------------------------------------------------

struct entries_way {
	unsigned int want;
	size_t out_bytes, most;
	bool user; // results into our own memory
	bool pure;
};

// Returns the block; how far names are known goes in and out by *next.
static const struct cosy_block *ask_entries(int fd, const struct entries_way *way,
					    unsigned long long *next)
{
	static _Alignas(8) unsigned char mine[1 << 20];
	size_t names_at = c.bytes - 4096;
	struct cosy_fused call = {
		.op = COSY_OP_ENTRIES,
		.flags = (way->user ? COSY_FUSED_USER : 0) | (way->pure ? COSY_FUSED_PURE : 0),
		.args = { (unsigned int)fd, way->want | COSY_WANT_NOATIME, 0, way->out_bytes, *next,
			  0, names_at, way->most },
	};
	const struct cosy_block *block = (const void *)c.buffer;

	memcpy(c.buffer + names_at, xattr_names, sizeof(xattr_names));
	if (way->user) {
		memset(mine, 0xee, sizeof(mine));
		call.args[2] = (unsigned long)mine;
		call.args[6] = (unsigned long)xattr_names;
		block = (const void *)mine;
	} else {
		memset(c.buffer, 0xee, way->out_bytes);
	}
	call = fused(&c, call);
	if (call.result < 0)
		fail("entries: %s", strerror((int)-call.result));
	same("block", "used", (long long)call.used, block->bytes);
	same("block", "result", call.result, block->n);
	same("block", "error", block->error, 0);
	*next = block->next;
	return block;
}

static void check_one_entry(int fd, const char *dir, const struct cosy_entry *e,
			    const struct entries_way *way)
{
	const char *name = cosy_entry_name(e);
	struct statx st;
	int err = statx(fd, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, WANTED, &st) ? -errno : 0;

	check_shape(e);
	same(name, "error", e->error, err);
	if (err)
		return;
	check_attributes(e, &st);
	same(name, "mount", !!(e->flags & COSY_ENTRY_MOUNT),
	     !!(st.stx_attributes & STATX_ATTR_MOUNT_ROOT));
	if (way->want & COSY_WANT_XATTR)
		check_xattrs(dir, name, e);
	if (S_ISLNK(st.stx_mode) && (way->want & COSY_WANT_LINK))
		check_link(fd, name, e);
	else if (S_ISREG(st.stx_mode) && (way->want & COSY_WANT_DATA))
		check_contents(fd, name, e, 0, way->most);
	else
		same(name, "data", e->data, 0);
	same(name, "special", !!(e->flags & COSY_ENTRY_SPECIAL),
	     !S_ISREG(st.stx_mode) && !S_ISDIR(st.stx_mode) && !S_ISLNK(st.stx_mode));
}

// Every name of the directory must come, once.
static void check_entries(const char *dir, const struct entries_way *way)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY), n = 0, blocks = 0;
	unsigned long long next = 0;
	const struct cosy_block *block;
	off_t before;
	DIR *list;

	must(fd, dir);
	before = lseek(fd, 0, SEEK_CUR);
	do {
		block = ask_entries(fd, way, &next);
		const struct cosy_entry *e = (const void *)(block + 1);

		if (!block->n && !(block->flags & COSY_BLOCK_END))
			fail("%s: no entry fits in %zu bytes", dir, way->out_bytes);
		for (unsigned int i = 0; i < block->n; i++, e = next_entry(e)) {
			check_one_entry(fd, dir, e, way);
			n++;
		}
		same(dir, "end of block", (const char *)e - (const char *)block, block->bytes);
		blocks++;
	} while (!(block->flags & COSY_BLOCK_END));
	same(dir, "offset", lseek(fd, 0, SEEK_CUR), before);
	list = fdopendir(fd);
	for (struct dirent *e; (e = readdir(list));)
		n -= strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
	same(dir, "entries", n, 0);
	closedir(list);
	if (way->out_bytes < 100000 && blocks < 2)
		fail("%s: one block of %zu bytes held all", dir, way->out_bytes);
}

static void check_all_entries(const char *dir)
{
	const unsigned int all = COSY_WANT_XATTR | COSY_WANT_LINK | COSY_WANT_DATA;
	const struct entries_way ways[] = {
		{ 0, 2 << 20, 0, false, false },
		{ 0, 1024, 0, false, false },
		{ COSY_WANT_LINK, 2 << 20, 0, false, true },
		{ all, 2 << 20, MOST_DATA, false, false },
		{ all, 2 << 20, 4096, false, true },
		{ all, 2 << 20, 0, false, true },
		{ all, 1 << 20, MOST_DATA, true, true },
		{ COSY_WANT_XATTR, 1024, 0, true, true },
	};

	for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++)
		check_entries(dir, &ways[i]);
}

// --- whole trees -----------------------------------------------------------------------

// The blocks behind the first are those of subdirectories, each whole.
static void check_tree(const char *dir)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY), below = 0;
	struct cosy_fused call =
		fused(&c, (struct cosy_fused){
				  .op = COSY_OP_ENTRIES,
				  .args = { (unsigned int)fd, 0, 0, 2 << 20, 0, 3 },
			  });

	if (call.result < 0)
		fail("tree: %s", strerror((int)-call.result));
	for (size_t at = 0; at < call.used;) {
		const struct cosy_block *block = (const void *)(c.buffer + at);
		const struct cosy_entry *e = (const void *)(block + 1), *parent;

		same(dir, "whole", block->flags & COSY_BLOCK_END, COSY_BLOCK_END);
		if (block->parent != ~0u) {
			parent = (const void *)(c.buffer + block->parent);
			same(dir, "a directory's block", S_ISDIR(parent->mode), 1);
			same(dir, "ino", (long long)block->ino, (long long)parent->ino);
			same(dir, "dev", block->dev, parent->dev);
			if (!strcmp(cosy_entry_name(parent), "directory") && block->n != 2)
				fail("directory has %u entries", block->n);
			below++;
		}
		for (unsigned int i = 0; i < block->n; i++, e = next_entry(e))
			call.result--;
		at += block->bytes;
	}
	same(dir, "entries in all blocks", call.result, 0);
	if (below < 3)
		fail("%s: only %d subdirectories came along", dir, below);
	close(fd);
}

// --- files by name ---------------------------------------------------------------------

static const char *const file_names[] = {
	"empty",
	"small",
	"page",
	"pages",
	"large",
	"private",
	"none",
	"setuid",
	"missing",
	"...",
	".hidden",
	"seven77",
	"eight888",
	"hardlink",
	"link",
	"dangling",
	"link-to-directory",
	"loop",
	"fifo",
	"device",
	"socket",
	"directory",
	"directory/below",
	"locked",
	"locked/inside",
	"unsearchable/inside",
	"mounted",
	"mounted/on-it",
	"file-mount",
	".",
	"..",
	"",
	"./page",
	"page/",
	"page/x",
	"directory/../page",
	"link-to-directory/below",
	"/",
	"name with blanks\n",
	"//etc/passwd",
};
#define N_NAMES (sizeof(file_names) / sizeof(file_names[0]))

static void check_one_file(int dirfd, const char *name, const struct cosy_entry *e,
			   unsigned int want, size_t offset, size_t most)
{
	int follow = want & COSY_WANT_NOFOLLOW ? AT_SYMLINK_NOFOLLOW : 0;
	struct statx st;
	int err = statx(dirfd, name, follow | AT_NO_AUTOMOUNT, WANTED, &st) ? -errno : 0;

	check_shape(e);
	same(name, "name", strcmp(name, cosy_entry_name(e)), 0);
	same(name, "error", e->error, err);
	if (err)
		return;
	check_attributes(e, &st);
	same(name, "type", e->type, st.stx_mode >> 12);
	if (S_ISREG(st.stx_mode) && (want & COSY_WANT_DATA))
		check_contents(dirfd, name, e, offset, most);
	else if (S_ISLNK(st.stx_mode) && (want & COSY_WANT_LINK))
		check_link(dirfd, name, e);
	else if (S_ISDIR(st.stx_mode) && (want & COSY_WANT_DATA))
		same(name, "data", e->data, -EISDIR);
	else if (S_ISLNK(st.stx_mode) && (want & COSY_WANT_DATA))
		same(name, "data", e->data, -ELOOP);
	else
		same(name, "data", e->data, 0);
}

static void check_files(int dirfd, unsigned int want, size_t offset, size_t most, size_t out_bytes,
			bool user)
{
	static _Alignas(8) unsigned char mine[1 << 20];
	unsigned char *out = user ? mine : c.buffer + 65536;
	char *names = (char *)c.buffer;
	size_t bytes = 0, at = 0, i = 0;

	for (i = 0; i < N_NAMES; i++) {
		memcpy(names + bytes, file_names[i], strlen(file_names[i]) + 1);
		bytes += strlen(file_names[i]) + 1;
	}
	for (i = 0; at < bytes;) {
		struct cosy_fused call = {
			.op = COSY_OP_FILES,
			.flags = user ? COSY_FUSED_USER : 0,
			.args = { (unsigned int)dirfd, want | COSY_WANT_NOATIME, 65536, out_bytes,
				  at, bytes - at, offset, most },
		};
		const struct cosy_block *block = (const void *)out;
		const struct cosy_entry *e = (const void *)(block + 1);

		if (user) {
			call.args[2] = (unsigned long)out;
			call.args[4] = (unsigned long)(names + at);
		}
		call = fused(&c, call);
		if (call.result <= 0)
			fail("files: %lld at %s", (long long)call.result, file_names[i]);
		for (unsigned int k = 0; k < block->n; k++, e = next_entry(e))
			check_one_file(dirfd, file_names[i++], e, want, offset, most);
		at += block->next;
	}
	same("files", "all", (long long)i, N_NAMES);
}

static void check_all_files(const char *dir)
{
	const unsigned int both = COSY_WANT_DATA | COSY_WANT_LINK;
	int fd = open(dir, O_RDONLY | O_DIRECTORY), path = open(dir, O_PATH);

	check_files(fd, 0, 0, 0, 1 << 20, false);
	check_files(fd, COSY_WANT_DATA, 0, MOST_DATA, 1 << 20, false);
	check_files(path, COSY_WANT_DATA, 0, 4096, 1 << 20, false);
	check_files(fd, COSY_WANT_DATA, 4000, 5000, 1 << 20, false);
	check_files(fd, both | COSY_WANT_NOFOLLOW, 0, 100, 1 << 20, false);
	check_files(fd, COSY_WANT_DATA | COSY_WANT_NOFOLLOW, 12288, 100, 1 << 20, false);
	check_files(fd, COSY_WANT_DATA, 0, 1000, 2048, false); // a few at a time
	check_files(fd, both, 0, MOST_DATA, 1 << 20, true);
	must(chdir(dir), dir);
	check_files(AT_FDCWD, both, 0, 20000, 1 << 20, true);
	check_files(12345, both, 0, 20000, 1 << 20, true); // no such descriptor
	close(fd);
	close(path);
}

// --- copies --------------------------------------------------------------------------

static void check_copy(const char *from, const char *to)
{
	int in = open(from, O_RDONLY), out = open(to, O_CREAT | O_RDWR | O_TRUNC, 0644);
	struct cosy_fused call = {
		.op = COSY_OP_COPY,
		.args = { (unsigned int)in, (unsigned int)out, ~0ull },
	};
	struct stat st;
	char a[1000], b[1000];

	must(in, from);
	must(out, to);
	must(fstat(in, &st), from);
	call = fused(&c, call);
	same(to, "copied", call.result, st.st_size);
	same(to, "source offset", lseek(in, 0, SEEK_CUR), st.st_size);
	same(to, "target offset", lseek(out, 0, SEEK_CUR), st.st_size);
	for (off_t at = 0; at < st.st_size; at += 1000) {
		ssize_t got = pread(in, a, 1000, at);

		same(to, "read", pread(out, b, 1000, at), got);
		same(to, "same", memcmp(a, b, (size_t)got), 0);
	}
	call = (struct cosy_fused){ .op = COSY_OP_COPY,
				    .args = { (unsigned int)in, (unsigned int)out, 50, COSY_WANT_AT,
					      10, 20 } };
	same(to, "copied at", fused(&c, call).result, 50);
	pread(in, a, 50, 10);
	pread(out, b, 50, 20);
	same(to, "same at", memcmp(a, b, 50), 0);
	same(to, "offset stays", lseek(in, 0, SEEK_CUR), st.st_size);
	call.args[1] = (unsigned int)in; // not open for writing
	same(to, "read-only target", fused(&c, call).result, -EBADF);
	call.flags = COSY_FUSED_PURE;
	if (!ioctl(c.fd, COSY_IOC_FUSED, &call) || errno != EINVAL)
		fail("a pure copy was not refused");
	close(in);
	close(out);
}

int main(int argc, char **argv)
{
	char dir[4096];

	if (argc < 3 || !realpath(argv[2], dir))
		strcpy(dir, argc > 2 ? argv[2] : "");
	if (argc == 3 && !strcmp(argv[1], "make")) {
		make(dir);
		return 0;
	}
	if (argc < 3 || strcmp(argv[1], "check"))
		fail("usage: kmod_conform make|check DIR [UID]");
	c = context_open(BUFFER);
	if (argc > 3) {
		must(setgroups(0, NULL), "setgroups");
		must(setgid((gid_t)atoi(argv[3])), "setgid");
		must(setuid((uid_t)atoi(argv[3])), "setuid");
	}
	check_all_entries(dir);
	check_tree(dir);
	check_all_files(dir);
	check_entries("..", &(struct entries_way){ .out_bytes = 2 << 20, .pure = true });
	if (argc == 3) {
		check_copy("large", "copy");
		check_copy("large", "/tmp/copy-on-another-file-system");
		unlink("copy");
	}
	printf("%d checks\n", checks);
	return 0;
}
