// SPDX-License-Identifier: MIT
/*
 * --learn: the program runs in tracing mode; what it leaves behind is mined in
 * the background, and the next run finds the profile in the store.
 *
 * A keeper, forked before the program starts, ends the recording when it is
 * large enough, when the program has ended, and when cosy-auto is killed. It then
 * puts the folder in the queue, which one learner at a time works off
 * (synth/learn.py). The names below `learn` in the cache folder tell it all:
 *
 *   rec-XXXXXX   being recorded: its keeper holds a lock on it (flock)
 *   due-XXXXXX   recorded, waits for a learner
 *   now-XXXXXX   being mined
 *   .lock        held by the learner (flock)
 */
#include "launcher.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <linux/ioprio.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MIB (1ull << 20)
/* Of one recording: some 2.7 million calls, which take the miner a quarter of a minute. */
#define MOST_BYTES (256 * MIB)
/* Of all that wait to be mined. */
#define MOST_WAITING_BYTES (1024 * MIB)
#define LEAST_BYTES (4 * MIB)
#define DISK_SHARE 4 /* no more than one in so many of the bytes that are free */
#define LOOK_MS 20 /* a busy thread writes some 10 MiB meanwhile */
/* What a learner needs; importing its libraries alone takes 1.6 GiB of address space. */
#define LEARNER_AS (4096 * MIB)
#define LEARNER_FILE (256 * MIB)
#define LEARNER_CPU_S 60
#define LOG_BYTES (256 << 10) /* a longer log begins anew */

/* The keeper's descriptors: of the talk, and of the folder, which is locked. */
enum { TALK = 3, FOLDER };

/* What the keeper says in the end. */
struct outcome {
	bool cut; /* the program made more calls than were recorded */
	bool learner; /* one is at work */
};

struct keeper {
	char queue[PATH_MAX], dir[PATH_MAX], log[PATH_MAX];
	char packages[PATH_MAX]; /* the folder that holds the Python packages */
	uint64_t room;
	int talk; /* closed by cosy-auto when the program has ended */
};

static int keeper_talk = -1;
static uint64_t keeper_room;
static struct outcome outcome;

/* Beside or above the library. */
static bool find_packages(const char *library, char path[PATH_MAX])
{
	char copy[PATH_MAX], probe[PATH_MAX], *dir = copy;

	strcpy(copy, library);
	for (int up = 0; up < 4; up++) {
		dir = dirname(dir);
		if (print_path(probe, "%s/synth/learn.py", dir) && !access(probe, R_OK))
			return print_path(path, "%s", dir);
	}
	return false;
}

/* What the files in a folder and in its folders take on disk. */
static uint64_t folder_bytes(int at, const char *name, bool deep)
{
	int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	uint64_t bytes = 0;
	struct dirent *entry;
	struct stat st;

	if (!dir) {
		if (fd >= 0)
			close(fd);
		return 0;
	}
	while ((entry = readdir(dir))) {
		if (entry->d_name[0] == '.' || fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW))
			continue;
		if (!S_ISDIR(st.st_mode))
			bytes += (uint64_t)st.st_blocks * 512;
		else if (deep)
			bytes += folder_bytes(fd, entry->d_name, false);
	}
	closedir(dir);
	return bytes;
}

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* How much may be recorded: no more than the disk and the queue have room for; NULL, or why not. */
static const char *find_room(const char *queue, uint64_t *room)
{
	uint64_t waiting = folder_bytes(AT_FDCWD, queue, true);
	static char full[96];
	struct statvfs fs;

	*room = waiting < MOST_WAITING_BYTES ? MOST_WAITING_BYTES - waiting : 0;
	if (*room < LEAST_BYTES) {
		snprintf(full, sizeof(full), "no room: %llu MiB of recordings wait to be mined",
			 (unsigned long long)(waiting / MIB));
		return full;
	}
	*room = least(*room, MOST_BYTES);
	if (!statvfs(queue, &fs))
		*room = least(*room, fs.f_bavail * fs.f_frsize / DISK_SHARE);
	return *room < LEAST_BYTES ? "no room: the disk is full" : NULL;
}

// --- the keeper ----------------------------------------------------------

/* Threads stop recording when they flush their next block; who starts now does not begin. */
static void end_recording(const char *dir, const char *why)
{
	char path[PATH_MAX];
	int fd = -1;

	if (print_path(path, "%s/stop", dir))
		fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return;
	// A full disk: then nobody can say that it was cut, but it has ended.
	if (write(fd, why, strlen(why)) < 0)
		errno = 0;
	close(fd);
}

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Until cosy-auto wants no more; true: the recording was ended before. */
static bool watch(const struct keeper *k)
{
	struct pollfd talk = { .fd = k->talk, .events = POLLIN };
	int64_t pause_ms = LOOK_MS;

	while (!poll(&talk, 1, (int)pause_ms)) {
		int64_t began_ms = now_ms();

		if (folder_bytes(AT_FDCWD, k->dir, false) >= k->room) {
			end_recording(k->dir, "cut\n");
			poll(&talk, 1, -1);
			return true;
		}
		// Many processes, many files: no more than a twentieth of the time goes into this.
		pause_ms = LOOK_MS + 20 * (now_ms() - began_ms);
	}
	return false;
}

static bool allow(__rlimit_resource_t what, rlim_t enough)
{
	struct rlimit limit = { RLIM_INFINITY, RLIM_INFINITY };

	if (!setrlimit(what, &limit))
		return true;
	if (getrlimit(what, &limit))
		return false;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(what, &limit);
	return limit.rlim_max == RLIM_INFINITY || limit.rlim_max >= enough;
}

/* The limits of the program's are not the learner's, as far as they may be raised. */
static bool raise_limits(void)
{
	bool enough = allow(RLIMIT_AS, LEARNER_AS);

	enough = allow(RLIMIT_DATA, LEARNER_AS) && enough;
	enough = allow(RLIMIT_FSIZE, LEARNER_FILE) && enough;
	enough = allow(RLIMIT_CPU, LEARNER_CPU_S) && enough;
	allow(RLIMIT_NPROC, 0);
	allow(RLIMIT_NOFILE, 0);
	return enough;
}

/* Nothing of cosy-auto's but our end of the talk and the locked folder. */
static void leave_home(struct keeper *k, int locked)
{
	struct sigaction plain = { .sa_handler = SIG_DFL };
	int null = open("/dev/null", O_RDWR), talk;
	sigset_t none;

	setsid();
	if (chdir("/"))
		errno = 0;
	umask(077);
	for (int i = 1; i < NSIG; i++)
		sigaction(i, &plain, NULL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	talk = fcntl(k->talk, F_DUPFD, FOLDER + 1);
	locked = fcntl(locked, F_DUPFD, FOLDER + 1);
	for (int fd = 0; fd < 3; fd++)
		dup2(null, fd);
	k->talk = dup2(talk, TALK);
	dup2(locked, FOLDER);
	syscall(SYS_close_range, FOLDER + 1, ~0u, 0);
}

/* Standard error becomes the log. */
static void open_log(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);
	struct stat st;

	if (fd < 0)
		return;
	if (!fstat(fd, &st) && st.st_size > LOG_BYTES && ftruncate(fd, 0))
		errno = 0;
	dup2(fd, 2);
	close(fd);
}

static void __attribute__((noreturn)) be_learner(const struct keeper *k, int lock)
{
	char self[PATH_MAX], python[PATH_MAX], path[2 * PATH_MAX], number[16];
	const char *old = getenv("PYTHONPATH");
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	setpriority(PRIO_PROCESS, 0, 19);
	syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_PRIO_VALUE(IOPRIO_CLASS_IDLE, 0));
	snprintf(number, sizeof(number), "%d", lock);
	snprintf(path, sizeof(path), "%s%s%s", k->packages, old && *old ? ":" : "", old ? old : "");
	setenv("PYTHONPATH", path, 1);
	self[n > 0 ? n : 0] = 0;
	if (print_path(python, "%s/python3", dirname(self)))
		execl(python, "python3", "-m", "synth.learn", k->queue, number, (char *)NULL);
	execlp("python3", "python3", "-m", "synth.learn", k->queue, number, (char *)NULL);
	dprintf(2, "cosy-auto: no learner: python3: %s: recordings wait in %s\n", strerror(errno),
		k->queue);
	_exit(EXIT_NOT_FOUND);
}

static void __attribute__((noreturn)) be_keeper(struct keeper *k, int locked)
{
	struct outcome end = { 0 };
	char path[PATH_MAX];
	bool enough;
	int lock = -1;

	leave_home(k, locked);
	enough = raise_limits();
	end.cut = watch(k);
	end_recording(k->dir, "");
	// First into the queue, then for the lock: whoever gives it up looks again (synth/learn.py).
	print_path(path, "%s/due-%s", k->queue, k->dir + strlen(k->dir) - 6);
	if (rename(k->dir, path))
		_exit(EXIT_WORK);
	open_log(k->log);
	if (!enough)
		dprintf(2,
			"cosy-auto: no learner under these limits (ulimit -v, -d, -f, -t): "
			"the recording waits in %s for the next one\n",
			k->queue);
	else if (print_path(path, "%s/.lock", k->queue))
		lock = open(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0600);
	end.learner = enough && lock >= 0;
	send(k->talk, &end, sizeof(end), MSG_NOSIGNAL); // or cosy-auto was killed
	close(k->talk);
	if (lock >= 0 && !flock(lock, LOCK_EX | LOCK_NB))
		be_learner(k, lock);
	_exit(0);
}

// --- for cosy-auto -------------------------------------------------------

/* A process of its own: not our child and not our parent's, init takes it over. */
static bool start_keeper(struct keeper *k, int locked)
{
	int ends[2];
	pid_t child;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
		return false;
	child = fork();
	if (!child) {
		child = fork();
		if (child)
			_exit(child < 0);
		close(ends[0]);
		k->talk = ends[1];
		be_keeper(k, locked);
	}
	close(ends[1]);
	keeper_talk = ends[0];
	keeper_room = k->room;
	if (child > 0) {
		int status = -1;

		waitpid(child, &status, 0);
		if (!status)
			return true;
	}
	close(keeper_talk);
	return false;
}

/* A fresh folder for the raw trace, and its keeper; NULL, or why there is none. */
const char *learn_prepare(const struct places *places, char dir[PATH_MAX])
{
	static struct keeper k;
	const char *trouble;
	int locked;

	if (!places->cache[0] || strchr(places->cache, ';'))
		return "the cache folder cannot be used";
	if (!find_packages(places->library, k.packages))
		return "Cosy's Python packages are not beside its library";
	if (print_path(k.queue, "%s/learn", places->cache))
		mkdir(k.queue, 0700);
	print_path(k.log, "%s", places->log);
	trouble = find_room(k.queue, &k.room);
	if (trouble)
		return trouble;
	if (!print_path(dir, "%s/rec-XXXXXX", k.queue) || !mkdtemp(dir))
		return "the cache folder cannot be written";
	strcpy(k.dir, dir);
	locked = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (locked < 0 || flock(locked, LOCK_EX) || !start_keeper(&k, locked)) {
		rmdir(dir);
		return "no process for the background could be started";
	}
	close(locked);
	return NULL;
}

/* The program has ended; NULL, or why nothing is learnt from it now. */
const char *learn_start(void)
{
	ssize_t n;

	shutdown(keeper_talk, SHUT_WR);
	do {
		n = read(keeper_talk, &outcome, sizeof(outcome));
	} while (n < 0 && errno == EINTR);
	close(keeper_talk);
	if (n != sizeof(outcome))
		return "what kept the recording was killed";
	if (!outcome.learner)
		return "no learner can run under these limits (ulimit -v, -d, -f, -t); the recording "
		       "waits for the next one";
	return NULL;
}

/* With --stats: what learn_start did. */
void learn_say(const char *command, const struct places *places)
{
	fprintf(stderr, "cosy-auto: %s: learning in the background: log %s\n", command,
		places->log);
	if (outcome.cut)
		fprintf(stderr, "cosy-auto: %s: recorded only until there were %llu MiB\n", command,
			(unsigned long long)(keeper_room / MIB));
}
