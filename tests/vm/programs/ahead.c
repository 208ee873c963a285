// SPDX-License-Identifier: MIT
/*
 * ahead cases DIR		which files COSY_WANT_AHEAD reads, and that nobody sees it
 * ahead events DIR CMD...	runs CMD and prints what inotify tells of DIR and its files
 */
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "context.h"

#define MOST 4096

static char path[4096];

static void make(const char *name, size_t bytes)
{
	struct timespec times[2] = { { .tv_sec = time(NULL) + 60 }, { .tv_sec = 1000000000 } };
	char *data = calloc(1, bytes + 1);
	int fd;

	snprintf(path, sizeof(path), "%s", name);
	fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	if (fd < 0 || write(fd, data, bytes) != (ssize_t)bytes || futimens(fd, times))
		fail("%s: %s", name, strerror(errno));
	close(fd);
	free(data);
}

// Is the file read, asked for by this name?
static const char *ask(const char *name)
{
	static _Alignas(8) unsigned char out[65536];
	struct cosy_fused call = {
		.op = COSY_OP_FILES,
		.flags = COSY_FUSED_USER | COSY_FUSED_PURE,
		.args = { (unsigned int)AT_FDCWD,
			  COSY_WANT_DATA | COSY_WANT_AHEAD | COSY_WANT_NOFOLLOW, (unsigned long)out,
			  sizeof(out), (unsigned long)name, strlen(name) + 1, 0, MOST },
	};
	const struct cosy_entry *e = (const void *)(out + sizeof(struct cosy_block));
	int fd = open(COSY_DEVICE, O_RDWR | O_CLOEXEC);

	if (fd < 0 || ioctl(fd, COSY_IOC_FUSED, &call) || call.result != 1)
		fail("%s: %s, %lld", name, strerror(errno), (long long)call.result);
	close(fd);
	if (!(e->flags & COSY_ENTRY_AHEAD))
		return e->data > 0 ? "read" : "left";
	return e->data == (int)e->size ? "ahead" : "cut";
}

static void say(const char *what)
{
	printf("%s: %s\n", what, ask(path));
}

static void watched(const char *what, const char *where)
{
	char events[4096];
	int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);

	if (inotify_add_watch(fd, where, IN_ALL_EVENTS) < 0)
		fail("inotify: %s", strerror(errno));
	say(what);
	if (read(fd, events, sizeof(events)) > 0)
		fail("%s: it was seen", what);
	close(fd);
}

static void marked(const char *what, unsigned int kind)
{
	int fd = fanotify_init(FAN_CLASS_NOTIF | FAN_CLOEXEC | FAN_NONBLOCK, O_RDONLY);

	if (fd < 0 || fanotify_mark(fd, FAN_MARK_ADD | kind, FAN_OPEN, AT_FDCWD, path))
		fail("fanotify: %s", strerror(errno));
	say(what);
	close(fd);
}

static void cases(void)
{
	struct timespec old[2] = { { .tv_sec = 1000 }, { .tv_sec = 2000 } };
	struct flock lock = { .l_type = F_RDLCK, .l_whence = SEEK_SET };
	struct stat before, after;
	int fd;

	make("file", 100);
	stat(path, &before);
	say("file");
	stat(path, &after);
	if (memcmp(&before.st_atim, &after.st_atim, sizeof(before.st_atim)))
		fail("its access time moved");
	make("empty", 0);
	say("empty");
	make("most", MOST);
	say("most");
	make("more", MOST + 1);
	say("more");
	make("file", 100);
	watched("inotify", path);
	watched("inotify on its folder", ".");
	say("no more");
	marked("fanotify", 0);
	marked("fanotify on the file system", FAN_MARK_FILESYSTEM);
	say("no more");
	fd = open(path, O_RDONLY);
	if (fcntl(fd, F_SETLK, &lock))
		fail("lock: %s", strerror(errno));
	say("lock");
	close(fd);
	fd = open(path, O_RDONLY);
	if (fcntl(fd, F_SETLEASE, F_RDLCK))
		fail("lease: %s", strerror(errno));
	say("lease");
	close(fd);
	say("no more");
	utimensat(AT_FDCWD, path, old, 0);
	say("access time would move");
	if (symlink("file", "link") || mkfifo("fifo", 0600) || mkdir("folder", 0700))
		fail("%s", strerror(errno));
	for (int i = 0; i < 4; i++) {
		static const char *const names[] = { "link", "fifo", "folder", "none" };

		snprintf(path, sizeof(path), "%s", names[i]);
		say(names[i]);
	}
	// The same folder again and again, by paths.
	make("folder/a", 10);
	say("folder/a");
	say("./folder/a");
}

static void events(char **command)
{
	static char buffer[1 << 20] __attribute__((aligned(8)));
	int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	ssize_t n, at;
	pid_t child;

	if (inotify_add_watch(fd, ".", IN_ALL_EVENTS) < 0)
		fail("inotify: %s", strerror(errno));
	child = fork();
	if (!child) {
		execvp(*command, command);
		_exit(127);
	}
	waitpid(child, NULL, 0);
	while ((n = read(fd, buffer, sizeof(buffer))) > 0) {
		for (at = 0; at < n;) {
			const struct inotify_event *e = (const void *)(buffer + at);

			printf("%x %s\n", e->mask, e->len ? e->name : ".");
			at += (ssize_t)(sizeof(*e) + e->len);
		}
	}
}

int main(int argc, char **argv)
{
	if (argc < 3 || chdir(argv[2]))
		fail("%s: %s", argc < 3 ? "usage" : argv[2], strerror(errno));
	if (!strcmp(argv[1], "cases"))
		cases();
	else
		events(argv + 3);
	return 0;
}
