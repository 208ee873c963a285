// SPDX-License-Identifier: MIT
/* The victim itself, one of its threads or of its children changes something. */
#define _GNU_SOURCE
#include "victim.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static char buffer[4096];

static void event_nothing(struct scene *s)
{
	(void)s;
}

// --- names and attributes ----------------------------------------------------

static void event_chmod(struct scene *s)
{
	check(chmod(s->target, 0600), "chmod");
}

static void event_fchmodat(struct scene *s)
{
	check(fchmodat(s->dirfd, TARGET, 0600, 0), "fchmodat");
}

static void event_fchmod(struct scene *s)
{
	check(fchmod(s->targetfd, 0600), "fchmod");
}

static void event_chown(struct scene *s)
{
	check(chown(s->target, 65534, (gid_t)-1), "chown");
}

static void event_utimes(struct scene *s)
{
	check(utimensat(s->dirfd, TARGET, NULL, 0), "utimensat");
}

static void event_futimens(struct scene *s)
{
	check(futimens(s->targetfd, NULL), "futimens");
}

static void event_setxattr(struct scene *s)
{
	check(setxattr(s->target, "user.cosy", "1", 1, 0), "setxattr");
}

static void event_truncate(struct scene *s)
{
	check(truncate(s->target, 3), "truncate");
}

static void event_ftruncate(struct scene *s)
{
	check(ftruncate(s->targetfd, 3), "ftruncate");
}

static void event_open_truncate(struct scene *s)
{
	check(open(s->target, O_WRONLY | O_TRUNC) < 0, "open");
}

static void event_creat(struct scene *s)
{
	check(creat(s->target, 0600) < 0, "creat");
}

static void event_unlink(struct scene *s)
{
	check(unlink(s->target), "unlink");
}

static void event_unlinkat(struct scene *s)
{
	check(unlinkat(s->dirfd, TARGET, 0), "unlinkat");
}

static void event_rename_away(struct scene *s)
{
	check(renameat(s->dirfd, TARGET, s->dirfd, "elsewhere"), "renameat");
}

static void event_rename_over(struct scene *s)
{
	char path[4200];

	snprintf(path, sizeof(path), "%s/%s", s->other, TARGET);
	check(rename(path, s->target), "rename");
}

static void event_exchange(struct scene *s)
{
	char path[4200];

	snprintf(path, sizeof(path), "%s/%s", s->other, TARGET);
	check(renameat2(AT_FDCWD, path, AT_FDCWD, s->target, RENAME_EXCHANGE), "renameat2");
}

static void event_link(struct scene *s)
{
	check(linkat(s->dirfd, TARGET, s->dirfd, "second name", 0), "linkat");
}

static void event_mkdir(struct scene *s)
{
	check(mkdirat(s->dirfd, "sub/deeper", 0700), "mkdirat");
}

static void event_symlink(struct scene *s)
{
	event_unlink(s);
	check(symlinkat("sub", s->dirfd, TARGET), "symlinkat");
}

static void event_rmdir(struct scene *s)
{
	char path[4200];

	snprintf(path, sizeof(path), "%s/sub", s->dir);
	check(rmdir(path), path);
}

static void event_mknod(struct scene *s)
{
	check(mknodat(s->dirfd, "sub/node", S_IFREG | 0600, 0), "mknodat");
}

static void event_removexattr(struct scene *s)
{
	check(removexattr(s->target, "user.cosy"), "removexattr");
}

static char mounted[4200];

static void unmount(void)
{
	umount2(mounted, MNT_DETACH);
}

static void event_mount(struct scene *s)
{
	snprintf(mounted, sizeof(mounted), "%s/sub", s->dir);
	check(mount("none", mounted, "tmpfs", 0, NULL), mounted);
	atexit(unmount);
}

// Its path must be short.
static void event_bind(struct scene *s)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(at.sun_path, sizeof(at.sun_path), "/proc/self/fd/%d/sub/socket", s->dirfd);
	check(fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof(at)), at.sun_path);
}

// --- contents ------------------------------------------------------------------

static void open_target(struct scene *s)
{
	s->targetfd = open(s->target, O_RDWR);
	check(s->targetfd < 0, s->target);
}

static void open_both(struct scene *s)
{
	char path[4200];

	open_target(s);
	snprintf(path, sizeof(path), "%s/%s", s->other, TARGET);
	s->otherfd = open(path, O_RDONLY);
	check(s->otherfd < 0, path);
	check(pipe(s->news), "pipe");
	check(write(s->news[1], buffer, 100) != 100, "write to the pipe");
}

static void event_write(struct scene *s)
{
	check(write(s->targetfd, buffer, 100) != 100, "write");
}

static void event_open_write(struct scene *s)
{
	open_target(s);
	event_write(s);
}

static void event_pwrite(struct scene *s)
{
	check(pwrite(s->targetfd, buffer, 100, 50) != 100, "pwrite");
}

static void event_writev(struct scene *s)
{
	struct iovec part = { buffer, 100 };

	check(writev(s->targetfd, &part, 1) != 100, "writev");
}

static void event_copy_range(struct scene *s)
{
	check(copy_file_range(s->otherfd, NULL, s->targetfd, NULL, 20, 0) != 20, "copy_file_range");
}

static void event_sendfile(struct scene *s)
{
	check(sendfile(s->targetfd, s->otherfd, NULL, 20) != 20, "sendfile");
}

static void event_splice(struct scene *s)
{
	check(splice(s->news[0], NULL, s->targetfd, NULL, 100, 0) != 100, "splice");
}

static void event_fallocate(struct scene *s)
{
	check(fallocate(s->targetfd, 0, 0, 10000), "fallocate");
}

static void map_target(struct scene *s)
{
	open_target(s);
	s->map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, s->targetfd, 0);
	check(s->map == MAP_FAILED, "mmap");
}

static void event_store(struct scene *s)
{
	*(volatile char *)s->map = 'x';
}

static void event_map_and_store(struct scene *s)
{
	map_target(s);
	event_store(s);
}

static void map_target_for_reading(struct scene *s)
{
	open_target(s);
	s->map = mmap(NULL, 4096, PROT_READ, MAP_SHARED, s->targetfd, 0);
	check(s->map == MAP_FAILED, "mmap");
}

static void event_protect_and_store(struct scene *s)
{
	check(mprotect(s->map, 4096, PROT_READ | PROT_WRITE), "mprotect");
	event_store(s);
}

// --- access times ----------------------------------------------------------------

static void event_read(struct scene *s)
{
	check(read(s->targetfd, buffer, sizeof(buffer)) <= 0, "read");
}

static void event_pread(struct scene *s)
{
	check(pread(s->targetfd, buffer, 4, 1) != 4, "pread");
}

static void event_open_read(struct scene *s)
{
	s->targetfd = open(s->target, O_RDONLY);
	check(s->targetfd < 0, s->target);
	event_read(s);
}

static void event_map_and_load(struct scene *s)
{
	s->targetfd = open(s->target, O_RDONLY);
	s->map = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, s->targetfd, 0);
	check(s->map == MAP_FAILED, "mmap");
	*buffer = *(volatile char *)s->map;
}

static void event_readlink(struct scene *s)
{
	check(readlinkat(s->dirfd, "link", buffer, sizeof(buffer)) < 0, "readlinkat");
}

static void event_through_link(struct scene *s)
{
	check(faccessat(s->dirfd, "link/x", F_OK, 0) == 0, "faccessat");
}

static void event_read_folder(struct scene *s)
{
	int fd = openat(s->dirfd, "sub", O_RDONLY | O_DIRECTORY);

	check(fd < 0 || syscall(SYS_getdents64, fd, buffer, sizeof(buffer)) <= 0, "getdents64");
}

// --- descriptors --------------------------------------------------------------------

static void open_other(struct scene *s)
{
	s->otherfd = open(s->other, O_RDONLY | O_DIRECTORY);
	check(s->otherfd < 0, s->other);
}

// The other folder as a message: it arrives at the lowest free number.
static void send_other(struct scene *s)
{
	char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec part = { buffer, 1 };
	struct msghdr message = { .msg_iov = &part,
				  .msg_iovlen = 1,
				  .msg_control = control,
				  .msg_controllen = sizeof(control) };
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	open_other(s);
	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(header), &s->otherfd, sizeof(int));
	check(socketpair(AF_UNIX, SOCK_STREAM, 0, s->news), "socketpair");
	check(sendmsg(s->news[1], &message, 0) != 1, "sendmsg");
}

static void event_receive(struct scene *s)
{
	char control[CMSG_SPACE(sizeof(int))];
	struct iovec part = { buffer, 1 };
	struct msghdr message = { .msg_iov = &part,
				  .msg_iovlen = 1,
				  .msg_control = control,
				  .msg_controllen = sizeof(control) };

	close(s->dirfd);
	check(recvmsg(s->news[0], &message, 0) != 1, "recvmsg");
	check(memcmp(CMSG_DATA(CMSG_FIRSTHDR(&message)), &s->dirfd, sizeof(int)), "another number");
}

static void event_reopen(struct scene *s)
{
	close(s->dirfd);
	check(open(s->other, O_RDONLY | O_DIRECTORY) != s->dirfd, "another number");
}

static void event_reopen_path(struct scene *s)
{
	close(s->dirfd);
	check(open(s->other, O_PATH) != s->dirfd, "another number");
}

static void event_close(struct scene *s)
{
	close(s->dirfd);
}

static void event_close_range(struct scene *s)
{
	check((int)syscall(SYS_close_range, s->dirfd, s->dirfd, 0), "close_range");
}

static void event_dup2(struct scene *s)
{
	check(dup2(s->otherfd, s->dirfd) != s->dirfd, "dup2");
}

static void event_dup3(struct scene *s)
{
	check(dup3(s->otherfd, s->dirfd, O_CLOEXEC) != s->dirfd, "dup3");
}

static void event_dup(struct scene *s)
{
	close(s->dirfd);
	check(fcntl(s->otherfd, F_DUPFD, s->dirfd) != s->dirfd, "F_DUPFD");
}

// --- threads and processes -------------------------------------------------------------

static void *chmod_in_thread(void *arg)
{
	struct scene *s = arg;

	spin_until(&s->shared->go);
	event_chmod(s);
	s->shared->done = true;
	pause();
	return NULL;
}

static void *dup_in_thread(void *arg)
{
	struct scene *s = arg;

	spin_until(&s->shared->go);
	event_dup2(s);
	s->shared->done = true;
	pause();
	return NULL;
}

static void *write_in_thread(void *arg)
{
	struct scene *s = arg;

	spin_until(&s->shared->go);
	event_write(s);
	s->shared->done = true;
	pause();
	return NULL;
}

static void start_thread(struct scene *s, void *(*body)(void *))
{
	pthread_t thread;

	check(pthread_create(&thread, NULL, body, s), "pthread_create");
}

static void start_chmod_thread(struct scene *s)
{
	start_thread(s, chmod_in_thread);
}

static void start_dup_thread(struct scene *s)
{
	open_other(s);
	start_thread(s, dup_in_thread);
}

static void start_write_thread(struct scene *s)
{
	open_target(s);
	start_thread(s, write_in_thread);
}

static void event_let_thread(struct scene *s)
{
	s->shared->go = true;
	spin_until(&s->shared->done);
}

// The child tells by memory alone: only the fork itself can be the fence.
static void event_fork(struct scene *s)
{
	pid_t pid = fork();

	check(pid < 0, "fork");
	if (!pid) {
		event_chmod(s);
		s->shared->done = true;
		_exit(0);
	}
	spin_until(&s->shared->done);
}

static void event_vfork(struct scene *s)
{
	pid_t pid = vfork();

	check(pid < 0, "vfork");
	if (!pid) {
		event_chmod(s);
		_exit(0);
	}
}

static void event_system(struct scene *s)
{
	char command[4300];

	snprintf(command, sizeof(command), "chmod 600 '%s'", s->target);
	check(system(command), command);
}

// Nobody may search the directory: only its owner, who we cease to be.
static void close_folder(struct scene *s)
{
	check(chmod(s->dir, 0700), s->dir);
}

static void event_become_nobody(struct scene *s)
{
	(void)s;
	check(seteuid(65534), "seteuid");
}

static void event_chroot(struct scene *s)
{
	check(chroot(s->other), s->other);
}

const struct kind own_kinds[] = {
	{ .name = "nothing", .event = event_nothing },
	{ .name = "nothing-sub", .event = event_nothing, .last = "sub" },
	{ .name = "nothing-link", .event = event_nothing, .last = "link" },
	{ "chmod", .event = event_chmod },
	{ "fchmodat", .event = event_fchmodat },
	{ "fchmod", open_target, .event = event_fchmod },
	{ "chown", .event = event_chown },
	{ "utimes", .event = event_utimes },
	{ "futimens", open_target, .event = event_futimens },
	{ "setxattr", .event = event_setxattr },
	{ "truncate", .event = event_truncate },
	{ "ftruncate", open_target, .event = event_ftruncate },
	{ "open-truncate", .event = event_open_truncate },
	{ "creat", .event = event_creat },
	{ "unlink", .event = event_unlink },
	{ "unlinkat", .event = event_unlinkat },
	{ "rename-away", .event = event_rename_away },
	{ "rename-over", .event = event_rename_over },
	{ "exchange", .event = event_exchange },
	{ "link", .event = event_link },
	{ "mkdir", .event = event_mkdir, .last = "sub" },
	{ "symlink", .event = event_symlink },
	{ "rmdir", .event = event_rmdir, .last = "sub" },
	{ "mknod", .event = event_mknod, .last = "sub" },
	{ "removexattr", .event = event_removexattr },
	{ "mount", .event = event_mount, .last = "sub" },
	{ "bind", .event = event_bind, .last = "sub" },
	{ "write", open_target, .event = event_write },
	{ "open-write", .event = event_open_write },
	{ "pwrite", open_target, .event = event_pwrite },
	{ "writev", open_target, .event = event_writev },
	{ "copy-range", open_both, .event = event_copy_range },
	{ "sendfile", open_both, .event = event_sendfile },
	{ "splice", open_both, .event = event_splice },
	{ "fallocate", open_target, .event = event_fallocate },
	{ "store", map_target, .event = event_store },
	{ "map-and-store", .event = event_map_and_store },
	{ "protect-and-store", map_target_for_reading, .event = event_protect_and_store },
	{ "read", open_target, .event = event_read },
	{ "pread", open_target, .event = event_pread },
	{ "open-read", .event = event_open_read },
	{ "map-and-load", .event = event_map_and_load },
	{ "readlink", .event = event_readlink, .last = "link" },
	{ "through-link", .event = event_through_link, .last = "link" },
	{ "read-folder", .event = event_read_folder, .last = "sub" },
	{ "receive", send_other, .event = event_receive },
	{ "reopen", .event = event_reopen },
	{ "reopen-path", .event = event_reopen_path },
	{ "close", .event = event_close },
	{ "close-range", .event = event_close_range },
	{ "dup2", open_other, .event = event_dup2 },
	{ "dup3", open_other, .event = event_dup3 },
	{ "dup", open_other, .event = event_dup },
	{ "thread-chmod", start_chmod_thread, .event = event_let_thread },
	{ "thread-dup2", start_dup_thread, .event = event_let_thread },
	{ "thread-write", start_write_thread, .event = event_let_thread },
	{ "fork", .event = event_fork },
	{ "vfork", .event = event_vfork },
	{ "system", .event = event_system },
	{ "become-nobody", close_folder, .event = event_become_nobody },
	{ "chroot", .event = event_chroot },
	{ 0 },
};
