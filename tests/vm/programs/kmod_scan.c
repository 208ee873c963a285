// SPDX-License-Identifier: MIT
/*
 * kmod_scan check DIR [UID]	COSY_OP_SCAN through a door against plain calls, as that user
 * kmod_scan doors		what a door refuses, and where there is none
 * kmod_scan rights DIR UID	a directory that was opened before rights were given up
 */
#include <dirent.h>
#include <grp.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#include "context.h"
#include "cosy_bpf.h"

#define MOST_NAMES 1024
#define PAGE 4096u

static _Alignas(PAGE) struct cosy_fused call;
static void *door;
static int checks;

static void same(const char *name, const char *what, long long ours, long long kernel)
{
	checks++;
	if (ours != kernel)
		fail("%s: %s is %lld, plain calls say %lld", name, what, ours, kernel);
}

static void must(int ret, const char *what)
{
	if (ret < 0)
		fail("%s: %s", what, strerror(errno));
}

static void *door_of(int fd, void *request)
{
	return mmap(NULL, PAGE, PROT_NONE, MAP_SHARED, fd,
		    (off_t)(COSY_DOOR | (unsigned long)request));
}

static void open_door(void)
{
	int fd = open(COSY_DEVICE, O_RDWR | O_CLOEXEC);

	must(fd, COSY_DEVICE);
	door = door_of(fd, &call);
	if (door == MAP_FAILED)
		fail("a door: %s", strerror(errno));
	close(fd);
}

// Behind it bytes that must stay.
static struct {
	struct cosy_bpf_run run;
	struct cosy_bpf_page pages[COSY_BPF_PAGES];
	unsigned char behind[64];
} out;

static const struct cosy_bpf_run *scan(int fd, unsigned int want, unsigned int pages,
				       unsigned int skip)
{
	memset(&out, 0xee, sizeof(out));
	call = (struct cosy_fused){
		.op = COSY_OP_SCAN,
		.flags = COSY_FUSED_USER | COSY_FUSED_PURE,
		.args = { (unsigned int)fd, want, (unsigned long)&out,
			  sizeof(out.run) + pages * PAGE, skip },
	};
	if (msync(door, PAGE, MS_SYNC))
		fail("msync: %s", strerror(errno));
	if (call.outcome.status)
		fail("scan: status %d", call.outcome.status);
	for (size_t i = 0; i < sizeof(out.behind); i++)
		same("scan", "behind it", out.behind[i], 0xee);
	same("scan", "result", call.result, out.run.n_children);
	return &out.run;
}

// --- against plain calls ------------------------------------------------------------

static char seen[MOST_NAMES][256];
static int n_seen;

static void check_child(const char *dir, int fd, const struct cosy_bpf_child *child,
			unsigned int want)
{
	char name[256] = "", path[8192];
	struct statx st;
	bool no_xattr;

	memcpy(name, child + 1, child->namelen);
	for (int i = child->namelen; i % 8; i++)
		same(name, "padding", ((const char *)(child + 1))[i], 0);
	for (int i = 0; i < n_seen; i++)
		same(name, "seen before", !strcmp(seen[i], name), 0);
	strcpy(seen[n_seen++], name);
	must(statx(fd, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_BASIC_STATS, &st), name);
	same(name, "a mount point", !!(st.stx_attributes & STATX_ATTR_MOUNT_ROOT), 0);
	same(name, "declined", child->flags & COSY_BPF_DECLINE, 0);
	same(name, "dev", out.run.dev, (long long)st.stx_dev_major << 20 | st.stx_dev_minor);
	same(name, "blksize", out.run.blksize, st.stx_blksize);
	same(name, "ino", (long long)child->ino, (long long)st.stx_ino);
	same(name, "size", (long long)child->size, (long long)st.stx_size);
	same(name, "blocks", (long long)child->blocks, (long long)st.stx_blocks);
	same(name, "atime", child->atime_sec, st.stx_atime.tv_sec);
	same(name, "mtime", child->mtime_sec, st.stx_mtime.tv_sec);
	same(name, "ctime", child->ctime_sec, st.stx_ctime.tv_sec);
	same(name, "atime_nsec", child->atime_nsec, st.stx_atime.tv_nsec);
	same(name, "mtime_nsec", child->mtime_nsec, st.stx_mtime.tv_nsec);
	same(name, "ctime_nsec", child->ctime_nsec, st.stx_ctime.tv_nsec);
	same(name, "nlink", child->nlink, st.stx_nlink);
	same(name, "uid", child->uid, st.stx_uid);
	same(name, "gid", child->gid, st.stx_gid);
	same(name, "rdev", child->rdev, (long long)st.stx_rdev_major << 20 | st.stx_rdev_minor);
	same(name, "mode", child->mode, st.stx_mode);
	same(name, "plain", !!(child->flags & COSY_BPF_ATTR_PLAIN), !st.stx_attributes);
	// the test mounts with noatime
	same(name, "atime stays", !!(child->flags & COSY_BPF_ATIME_STABLE), 1);
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	no_xattr = !llistxattr(path, NULL, 0) &&
		   lgetxattr(path, "security.cosy.other", NULL, 0) < 0 && errno == ENODATA;
	same(name, "no xattr", !!(child->flags & COSY_BPF_XATTR_NONE),
	     want & COSY_WANT_HINTS && no_xattr);
}

static unsigned int check_pages(const char *dir, int fd, unsigned int want)
{
	unsigned int n = 0;

	for (int i = 0; i < COSY_BPF_PAGES && out.run.used[i]; i++) {
		unsigned int at = 0;

		while (at < out.run.used[i]) {
			const struct cosy_bpf_child *child = (void *)(out.pages[i].data + at);

			check_child(dir, fd, child, want);
			at += (unsigned int)sizeof(*child) + (child->namelen + 7u) / 8 * 8;
			n++;
		}
		same(dir, "end of page", at, out.run.used[i]);
	}
	return n;
}

// All that was looked up comes, once: but for mount points, which are for the kernel.
static void check_directory(const char *dir, unsigned int want, unsigned int pages)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY), n = 0, runs = 0, found = 0;
	unsigned int skip = 0;
	DIR *list = opendir(dir);
	struct statx st;

	must(fd, dir);
	for (struct dirent *e; (e = readdir(list));) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		must(statx(fd, e->d_name, AT_SYMLINK_NOFOLLOW, STATX_MODE, &st), e->d_name);
		n += !(st.stx_attributes & STATX_ATTR_MOUNT_ROOT);
	}
	n_seen = 0;
	do {
		const struct cosy_bpf_run *run = scan(fd, want, pages, skip);

		if (run->status != COSY_BPF_OK && run->status != COSY_BPF_FULL)
			fail("%s: status %u", dir, run->status);
		if (run->status == COSY_BPF_FULL && run->seen <= skip)
			fail("%s: nothing fits behind %u", dir, skip);
		same(dir, "records", check_pages(dir, fd, want), run->n_children);
		skip = run->seen;
		found += (int)run->n_children;
		runs++;
	} while (out.run.status == COSY_BPF_FULL);
	same(dir, "children", found, n);
	must(fstat(fd, &(struct stat){ 0 }), dir);
	if (pages == 1 && n > 60 && runs < 2)
		fail("%s: one page held %d records", dir, n);
	closedir(list);
	close(fd);
}

static void check(const char *dir)
{
	check_directory(dir, 0, COSY_BPF_PAGES);
	check_directory(dir, COSY_WANT_HINTS, COSY_BPF_PAGES);
	check_directory(dir, COSY_WANT_HINTS, 1);
	same(dir, "no descriptor", scan(12345, 0, 1, 0)->status, COSY_BPF_BADFD);
	same(dir, "no directory", scan(0, 0, 1, 0)->status, COSY_BPF_NOTDIR);
	same(dir, "not open for reading", scan(open(dir, O_PATH), 0, 1, 0)->status, COSY_BPF_BADFD);
	call = (struct cosy_fused){ .op = COSY_OP_SCAN,
				    .flags = COSY_FUSED_USER,
				    .args = { 0, 0, (unsigned long)&out, PAGE } };
	must(msync(door, PAGE, MS_SYNC), "msync");
	same(dir, "no room", call.result, -ENOSPC);
	printf("%d checks\n", checks);
}

// --- doors ---------------------------------------------------------------------------

static int status_of(pid_t child)
{
	int status;

	must(waitpid(child, &status, 0), "waitpid");
	return status;
}

static void refused(const char *what, int error)
{
	call = (struct cosy_fused){ .op = COSY_OP_SCAN };
	if (!msync(door, PAGE, MS_SYNC) || errno != error)
		fail("%s: %s, not %s", what, strerror(errno), strerror(error));
}

static void doors(void)
{
	struct cosy_setup setup = { .abi = COSY_MODULE_ABI, .buffer_bytes = PAGE };
	int fd = open(COSY_DEVICE, O_RDWR);
	void *buffer;
	pid_t child;

	call = (struct cosy_fused){ .op = COSY_OP_MAX };
	if (!msync(door, PAGE, MS_SYNC) || errno != EINVAL)
		fail("an operation that there is not");
	// it has no memory, and gets none
	if (!mprotect(door, PAGE, PROT_READ) || errno != EACCES)
		fail("a door was made readable");
	if (mremap(door, PAGE, 2 * PAGE, MREMAP_MAYMOVE) != MAP_FAILED)
		fail("a door grew");
	// too long, readable, private
	if (mmap(NULL, 2 * PAGE, PROT_NONE, MAP_SHARED, fd, (off_t)COSY_DOOR) != MAP_FAILED ||
	    mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, (off_t)COSY_DOOR) != MAP_FAILED ||
	    mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE, fd, (off_t)COSY_DOOR) != MAP_FAILED)
		fail("no door, but it was mapped");
	// no door: the descriptor, the buffer
	if (!fsync(fd) || errno != EINVAL || !fdatasync(fd) || errno != EINVAL)
		fail("fsync");
	must(ioctl(fd, COSY_IOC_SETUP, &setup), "setup");
	buffer = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (buffer == MAP_FAILED || !msync(buffer, PAGE, MS_SYNC) || errno != EINVAL)
		fail("msync of a buffer");
	// a request that is not there
	buffer = door_of(fd, (void *)(16ul * PAGE));
	if (buffer == MAP_FAILED || !msync(buffer, PAGE, MS_SYNC) || errno != EFAULT)
		fail("a door to nowhere: %s", strerror(errno));
	child = fork();
	if (!child) {
		refused("a child", ENOMEM);
		_exit(0);
	}
	same("child", "status", status_of(child), 0);
	child = vfork();
	if (!child) {
		call = (struct cosy_fused){ .op = COSY_OP_SCAN };
		_exit(msync(door, PAGE, MS_SYNC) ? 1 : 0);
	}
	same("a child in the same address space", "status", status_of(child), 0);
	child = fork();
	if (!child) {
		open_door();
		must((int)ptrace(PTRACE_TRACEME, 0, 0, 0), "ptrace");
		refused("a traced task", EPERM);
		_exit(0);
	}
	same("a traced task", "status", status_of(child), 0);
	puts("doors");
}

// --- rights --------------------------------------------------------------------------

static void rights(const char *dir, uid_t uid)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY);

	must(fd, dir);
	same(dir, "for root", scan(fd, 0, 1, 0)->status, COSY_BPF_OK);
	must(setgroups(0, NULL), "setgroups");
	must(setgid(uid), "setgid");
	must(setuid(uid), "setuid");
	same(dir, "for another", scan(fd, 0, 1, 0)->status, COSY_BPF_PERM);
	puts("rights");
}

int main(int argc, char **argv)
{
	open_door();
	if (argc == 2 && !strcmp(argv[1], "doors")) {
		doors();
	} else if (argc == 4 && !strcmp(argv[1], "rights")) {
		rights(argv[2], (uid_t)atoi(argv[3]));
	} else if (argc > 2 && !strcmp(argv[1], "check")) {
		if (argc > 3) {
			must(setgroups(0, NULL), "setgroups");
			must(setgid((gid_t)atoi(argv[3])), "setgid");
			must(setuid((uid_t)atoi(argv[3])), "setuid");
		}
		check(argv[2]);
	} else {
		fail("usage: kmod_scan check DIR [UID] | doors | rights DIR UID");
	}
	return 0;
}
