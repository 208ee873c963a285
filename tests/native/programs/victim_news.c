// SPDX-License-Identifier: MIT
/* Another process changes the target; one way for each to learn of it. */
#define _GNU_SOURCE
#include "victim.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <mqueue.h>
#include <pthread.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <poll.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static char buffer[4096];

// --- descriptors that can be read -----------------------------------------

static void open_pipe(struct scene *s)
{
	check(pipe(s->news), "pipe");
}

static void open_eventfd(struct scene *s)
{
	s->news[0] = s->news[1] = eventfd(0, 0);
	check(s->news[0] < 0, "eventfd");
}

static void open_sockets(struct scene *s)
{
	check(socketpair(AF_UNIX, SOCK_STREAM, 0, s->news), "socketpair");
}

static void open_terminal(struct scene *s)
{
	struct termios raw;

	check(openpty(&s->news[0], &s->news[1], NULL, NULL, NULL), "openpty");
	check(tcgetattr(s->news[1], &raw), "tcgetattr");
	cfmakeraw(&raw);
	check(tcsetattr(s->news[1], TCSANOW, &raw), "tcsetattr");
}

static void open_inotify(struct scene *s)
{
	s->news[0] = inotify_init();
	check(s->news[0] < 0 || inotify_add_watch(s->news[0], s->dir, IN_ATTRIB) < 0, "inotify");
}

static void open_signalfd(struct scene *s)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	check(sigprocmask(SIG_BLOCK, &set, NULL), "sigprocmask");
	s->news[0] = signalfd(-1, &set, 0);
	check(s->news[0] < 0, "signalfd");
}

static void open_timer(struct scene *s)
{
	struct itimerspec soon = { .it_value = { 0, 1000000 } };

	s->news[0] = timerfd_create(CLOCK_MONOTONIC, 0);
	check(s->news[0] < 0 || timerfd_settime(s->news[0], 0, &soon, NULL), "timerfd");
}

static void tell_memory(struct scene *s)
{
	s->shared->done = true;
}

static void tell_bytes(struct scene *s)
{
	check(write(s->news[1], "12345678", 8) != 8, "write of the news");
}

static void event_read(struct scene *s)
{
	check(read(s->news[0], buffer, sizeof(buffer)) <= 0, "read of the news");
}

static void event_readv(struct scene *s)
{
	struct iovec part = { buffer, sizeof(buffer) };

	check(readv(s->news[0], &part, 1) <= 0, "readv of the news");
}

static void event_timer(struct scene *s)
{
	spin_until(&s->shared->done);
	event_read(s);
}

static void event_splice(struct scene *s)
{
	int null = open("/dev/null", O_WRONLY);

	check(splice(s->news[0], NULL, null, NULL, 8, 0) != 8, "splice of the news");
}

static void event_recv(struct scene *s)
{
	check(recv(s->news[0], buffer, sizeof(buffer), 0) <= 0, "recv");
}

static void event_recvmsg(struct scene *s)
{
	struct iovec part = { buffer, sizeof(buffer) };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };

	check(recvmsg(s->news[0], &message, 0) <= 0, "recvmsg");
}

static void event_recvmmsg(struct scene *s)
{
	struct iovec part = { buffer, sizeof(buffer) };
	struct mmsghdr message = { .msg_hdr = { .msg_iov = &part, .msg_iovlen = 1 } };

	check(recvmmsg(s->news[0], &message, 1, 0, NULL) != 1, "recvmmsg");
}

static struct sockaddr_un address(const struct scene *s)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };

	// Abstract: the first byte stays zero.
	snprintf(to.sun_path + 1, sizeof(to.sun_path) - 1, "cosy-victim-%d", s->victim);
	return to;
}

static void open_listener(struct scene *s)
{
	struct sockaddr_un at = address(s);

	s->news[0] = socket(AF_UNIX, SOCK_STREAM, 0);
	check(s->news[0] < 0 || bind(s->news[0], (struct sockaddr *)&at, sizeof(at)) ||
		      listen(s->news[0], 1),
	      "listen");
}

static void tell_connect(struct scene *s)
{
	struct sockaddr_un to = address(s);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	check(fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)), "connect");
}

static void event_accept(struct scene *s)
{
	check(accept(s->news[0], NULL, NULL) < 0, "accept");
}

// --- waiting for descriptors ----------------------------------------------

static void event_poll(struct scene *s)
{
	struct pollfd fd = { .fd = s->news[0], .events = POLLIN };

	check(poll(&fd, 1, -1) != 1, "poll");
}

static void event_ppoll(struct scene *s)
{
	struct pollfd fd = { .fd = s->news[0], .events = POLLIN };

	check(ppoll(&fd, 1, NULL, NULL) != 1, "ppoll");
}

static void event_select(struct scene *s)
{
	fd_set set;

	FD_ZERO(&set);
	FD_SET(s->news[0], &set);
	// Which of the two calls select() makes depends on the C library.
	check(syscall(SYS_select, s->news[0] + 1, &set, NULL, NULL, NULL) != 1, "select");
}

static void event_pselect6(struct scene *s)
{
	fd_set set;

	FD_ZERO(&set);
	FD_SET(s->news[0], &set);
	check(syscall(SYS_pselect6, s->news[0] + 1, &set, NULL, NULL, NULL, NULL) != 1, "pselect6");
}

static int epoll_fd;

static void open_epoll(struct scene *s)
{
	struct epoll_event event = { .events = EPOLLIN };

	open_pipe(s);
	epoll_fd = epoll_create1(0);
	check(epoll_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, s->news[0], &event), "epoll");
}

static void event_epoll(struct scene *s)
{
	struct epoll_event event;

	(void)s;
	check(epoll_wait(epoll_fd, &event, 1, -1) != 1, "epoll_wait");
}

static void event_epoll_pwait(struct scene *s)
{
	struct epoll_event event;

	(void)s;
	check(syscall(SYS_epoll_pwait, epoll_fd, &event, 1, -1, NULL, 8) != 1, "epoll_pwait");
}

static void event_epoll_pwait2(struct scene *s)
{
	struct epoll_event event;

	(void)s;
	check(syscall(SYS_epoll_pwait2, epoll_fd, &event, 1, NULL, NULL, 8) != 1, "epoll_pwait2");
}

// --- processes and signals -------------------------------------------------

static void event_wait4(struct scene *s)
{
	check(waitpid(s->helper, NULL, 0) != s->helper, "waitpid");
}

static void event_waitid(struct scene *s)
{
	siginfo_t info;

	check(waitid(P_PID, (id_t)s->helper, &info, WEXITED), "waitid");
}

static void on_signal(int number)
{
	(void)number;
}

static volatile sig_atomic_t arrived;

static void on_flag(int number)
{
	(void)number;
	arrived = 1;
}

static void set_handler(void (*handler)(int))
{
	struct sigaction action = { .sa_handler = handler };

	check(sigaction(SIGUSR1, &action, NULL), "sigaction");
}

static void handle_flag(struct scene *s)
{
	(void)s;
	set_handler(on_flag);
}

// For kinds that wait in the kernel: the signal stays blocked until then.
static void block_and_handle(struct scene *s)
{
	open_signalfd(s);
	set_handler(on_signal);
}

static void tell_signal(struct scene *s)
{
	check(kill(s->victim, SIGUSR1), "kill");
}

static void event_signal(struct scene *s)
{
	(void)s;
	while (!arrived)
		__builtin_ia32_pause();
}

static void event_sigwait(struct scene *s)
{
	siginfo_t info;
	sigset_t set;

	(void)s;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	check(sigwaitinfo(&set, &info) != SIGUSR1, "sigwaitinfo");
}

static void event_sigsuspend(struct scene *s)
{
	sigset_t none;

	(void)s;
	sigemptyset(&none);
	check(sigsuspend(&none) != -1, "sigsuspend");
}

// --- memory, locks, queues ---------------------------------------------------

static void tell_futex(struct scene *s)
{
	s->shared->word = 1;
	syscall(SYS_futex, &s->shared->word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void event_futex(struct scene *s)
{
	while (!s->shared->word)
		syscall(SYS_futex, &s->shared->word, FUTEX_WAIT, 0, NULL, NULL, 0);
}

static struct {
	pthread_mutex_t mutex;
	pthread_cond_t changed;
} *meeting;

static void open_meeting(struct scene *s)
{
	pthread_mutexattr_t mutex;
	pthread_condattr_t cond;

	(void)s;
	meeting = mmap(NULL, sizeof(*meeting), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		       -1, 0);
	check(meeting == MAP_FAILED, "mmap");
	pthread_mutexattr_init(&mutex);
	pthread_mutexattr_setpshared(&mutex, PTHREAD_PROCESS_SHARED);
	pthread_mutex_init(&meeting->mutex, &mutex);
	pthread_condattr_init(&cond);
	pthread_condattr_setpshared(&cond, PTHREAD_PROCESS_SHARED);
	pthread_cond_init(&meeting->changed, &cond);
}

static void tell_meeting(struct scene *s)
{
	pthread_mutex_lock(&meeting->mutex);
	s->shared->done = true;
	pthread_cond_signal(&meeting->changed);
	pthread_mutex_unlock(&meeting->mutex);
}

static void event_meeting(struct scene *s)
{
	pthread_mutex_lock(&meeting->mutex);
	while (!s->shared->done)
		pthread_cond_wait(&meeting->changed, &meeting->mutex);
	pthread_mutex_unlock(&meeting->mutex);
}

static char lock_path[4200];

static void open_lock(struct scene *s)
{
	snprintf(lock_path, sizeof(lock_path), "%s/lock", s->other);
	s->news[0] = open(lock_path, O_RDWR | O_CREAT, 0600);
	check(s->news[0] < 0, lock_path);
}

// The helper needs an open file of its own.
static void take_file(struct scene *s)
{
	s->news[1] = open(lock_path, O_RDWR);
	check(s->news[1] < 0, lock_path);
}

static void take_posix_lock(struct scene *s)
{
	struct flock lock = { .l_type = F_WRLCK };

	take_file(s);
	check(fcntl(s->news[1], F_SETLK, &lock), "lock by the helper");
}

static void take_flock(struct scene *s)
{
	take_file(s);
	check(flock(s->news[1], LOCK_EX), "flock by the helper");
}

static void tell_close(struct scene *s)
{
	close(s->news[1]);
}

static void event_posix_lock(struct scene *s)
{
	struct flock lock = { .l_type = F_WRLCK };

	check(fcntl(s->news[0], F_SETLKW, &lock), "F_SETLKW");
}

static void event_try_lock(struct scene *s)
{
	struct flock lock = { .l_type = F_WRLCK };

	while (fcntl(s->news[0], F_SETLK, &lock))
		;
}

static void event_ofd_lock(struct scene *s)
{
	struct flock lock = { .l_type = F_WRLCK };

	check(fcntl(s->news[0], F_OFD_SETLKW, &lock), "F_OFD_SETLKW");
}

static void event_flock(struct scene *s)
{
	check(flock(s->news[0], LOCK_EX), "flock");
}

static void open_queue(struct scene *s)
{
	s->news[0] = msgget(IPC_PRIVATE, 0600);
	check(s->news[0] < 0, "msgget");
}

static void tell_queue(struct scene *s)
{
	long message[2] = { 1, 0 };

	check(msgsnd(s->news[0], message, sizeof(long), 0), "msgsnd");
}

static void event_queue(struct scene *s)
{
	long message[2];

	check(msgrcv(s->news[0], message, sizeof(long), 0, 0) < 0, "msgrcv");
	msgctl(s->news[0], IPC_RMID, NULL);
}

static void open_posix_queue(struct scene *s)
{
	struct mq_attr few = { .mq_maxmsg = 1, .mq_msgsize = 8 };
	char name[32];

	snprintf(name, sizeof(name), "cosy-victim-%d", s->victim);
	s->news[0] = s->news[1] = (int)syscall(SYS_mq_open, name, O_RDWR | O_CREAT, 0600, &few);
	check(s->news[0] < 0 || syscall(SYS_mq_unlink, name), "mq_open");
}

static void tell_posix_queue(struct scene *s)
{
	check((int)syscall(SYS_mq_timedsend, s->news[1], "1234567", 8, 0, NULL), "mq_timedsend");
}

static void event_posix_queue(struct scene *s)
{
	check(syscall(SYS_mq_timedreceive, s->news[0], buffer, 8, NULL, NULL) != 8,
	      "mq_timedreceive");
}

static void open_semaphore(struct scene *s)
{
	s->news[0] = semget(IPC_PRIVATE, 1, 0600);
	check(s->news[0] < 0, "semget");
}

static void tell_semaphore(struct scene *s)
{
	struct sembuf up = { 0, 1, 0 };

	check(semop(s->news[0], &up, 1), "semop by the helper");
}

static void event_semaphore(struct scene *s)
{
	struct sembuf down = { 0, -1, 0 };

	check(semop(s->news[0], &down, 1), "semop");
	semctl(s->news[0], 0, IPC_RMID);
}

// --- time, FIFOs, and none of all that ---------------------------------------

static void event_nanosleep(struct scene *s)
{
	do
		usleep(1000);
	while (!s->shared->done);
}

static void event_clock_nanosleep(struct scene *s)
{
	struct timespec pause_ns = { 0, 1000000 };

	do
		check(clock_nanosleep(CLOCK_MONOTONIC, 0, &pause_ns, NULL), "clock_nanosleep");
	while (!s->shared->done);
}

static void open_fifo(struct scene *s)
{
	snprintf(lock_path, sizeof(lock_path), "%s/fifo", s->other);
	check(mkfifo(lock_path, 0600), lock_path);
}

static void tell_fifo(struct scene *s)
{
	(void)s;
	check(open(lock_path, O_WRONLY) < 0, lock_path);
}

static void event_fifo(struct scene *s)
{
	(void)s;
	check(open(lock_path, O_RDONLY) < 0, lock_path);
}

// What was opened is asked for, or can be no more when the question comes.
static void event_fifo_asked(struct scene *s)
{
	struct stat st;

	(void)s;
	check(fstat(open(lock_path, O_RDONLY), &st), lock_path);
}

static void event_fifo_closed(struct scene *s)
{
	(void)s;
	check(close(open(lock_path, O_RDONLY)), lock_path);
}

static void event_fifo_replaced(struct scene *s)
{
	check(dup2(s->dirfd, open(lock_path, O_RDONLY)) < 0, lock_path);
}

static void event_fifo_and_file(struct scene *s)
{
	event_fifo(s);
	check(open("/dev/null", O_RDONLY) < 0, "/dev/null");
}

// Told by memory alone: neither lock nor wait.
static void event_untold(struct scene *s)
{
	spin_until(&s->shared->done);
}

// Told by the contents of a file: with --strict, reading it is news.
static void tell_contents(struct scene *s)
{
	check(write(open(lock_path, O_WRONLY), "1", 1) != 1, lock_path);
	tell_memory(s);
}

static void event_contents(struct scene *s)
{
	while (pread(s->news[0], buffer, 1, 0) != 1)
		;
}

static void event_contents_read(struct scene *s)
{
	spin_until(&s->shared->done);
	event_read(s);
}

// The same, but whoever opens a file wants to know whether it changes from now on.
static void event_untold_open(struct scene *s)
{
	int fd;

	spin_until(&s->shared->done);
	fd = openat(s->dirfd, strrchr(s->target, '/') + 1, O_RDONLY);
	check(fd < 0 || close(fd), "open");
}

static void event_untold_long(struct scene *s)
{
	spin_until(&s->shared->done);
	spin_ms(300);
}

// --- another thread learns of it ----------------------------------------------

static void *read_in_thread(void *arg)
{
	struct scene *s = arg;

	event_read(s);
	s->shared->done = true;
	pause();
	return NULL;
}

static void open_pipe_and_thread(struct scene *s)
{
	pthread_t thread;

	open_pipe(s);
	check(pthread_create(&thread, NULL, read_in_thread, s), "pthread_create");
}

static void event_thread(struct scene *s)
{
	spin_until(&s->shared->done);
}

const struct kind news_kinds[] = {
	{ "pipe", open_pipe, NULL, tell_bytes, event_read },
	{ "pipe-readv", open_pipe, NULL, tell_bytes, event_readv },
	{ "pipe-splice", open_pipe, NULL, tell_bytes, event_splice },
	{ "eventfd", open_eventfd, NULL, tell_bytes, event_read },
	{ "terminal", open_terminal, NULL, tell_bytes, event_read },
	{ "inotify", open_inotify, NULL, NULL, event_read },
	{ "signalfd", open_signalfd, NULL, tell_signal, event_read },
	{ "timerfd", open_timer, NULL, tell_memory, event_timer },
	{ "socket-read", open_sockets, NULL, tell_bytes, event_read },
	{ "recv", open_sockets, NULL, tell_bytes, event_recv },
	{ "recvmsg", open_sockets, NULL, tell_bytes, event_recvmsg },
	{ "recvmmsg", open_sockets, NULL, tell_bytes, event_recvmmsg },
	{ "accept", open_listener, NULL, tell_connect, event_accept },
	{ "poll", open_pipe, NULL, tell_bytes, event_poll },
	{ "ppoll", open_pipe, NULL, tell_bytes, event_ppoll },
	{ "select", open_pipe, NULL, tell_bytes, event_select },
	{ "pselect6", open_pipe, NULL, tell_bytes, event_pselect6 },
	{ "epoll", open_epoll, NULL, tell_bytes, event_epoll },
	{ "epoll-pwait", open_epoll, NULL, tell_bytes, event_epoll_pwait },
	{ "epoll-pwait2", open_epoll, NULL, tell_bytes, event_epoll_pwait2 },
	{ "wait4", NULL, NULL, NULL, event_wait4 },
	{ "waitid", NULL, NULL, NULL, event_waitid },
	{ "signal", handle_flag, NULL, tell_signal, event_signal },
	{ "sigwait", open_signalfd, NULL, tell_signal, event_sigwait },
	{ "sigsuspend", block_and_handle, NULL, tell_signal, event_sigsuspend },
	{ "futex", NULL, NULL, tell_futex, event_futex, .late = true },
	{ "condition", open_meeting, NULL, tell_meeting, event_meeting, .late = true },
	{ "lock", open_lock, take_posix_lock, tell_close, event_posix_lock, .late = true },
	{ "try-lock", open_lock, take_posix_lock, tell_close, event_try_lock, .late = true },
	{ "ofd-lock", open_lock, take_posix_lock, tell_close, event_ofd_lock, .late = true },
	{ "flock", open_lock, take_flock, tell_close, event_flock, .late = true },
	{ "queue", open_queue, NULL, tell_queue, event_queue },
	{ "posix-queue", open_posix_queue, NULL, tell_posix_queue, event_posix_queue },
	{ "semaphore", open_semaphore, NULL, tell_semaphore, event_semaphore },
	{ "nanosleep", NULL, NULL, tell_memory, event_nanosleep },
	{ "clock-nanosleep", NULL, NULL, tell_memory, event_clock_nanosleep },
	{ "fifo", open_fifo, NULL, tell_fifo, event_fifo },
	{ "fifo-asked", open_fifo, NULL, tell_fifo, event_fifo_asked },
	{ "fifo-closed", open_fifo, NULL, tell_fifo, event_fifo_closed },
	{ "fifo-replaced", open_fifo, NULL, tell_fifo, event_fifo_replaced },
	{ "fifo-and-file", open_fifo, NULL, tell_fifo, event_fifo_and_file },
	{ "thread-pipe", open_pipe_and_thread, NULL, tell_bytes, event_thread },
	{ "untold", NULL, NULL, tell_memory, event_untold },
	{ "contents", open_lock, NULL, tell_contents, event_contents },
	{ "contents-read", open_lock, NULL, tell_contents, event_contents_read },
	{ "untold-long", NULL, NULL, tell_memory, event_untold_long },
	// The body of the shipped compound holds the call twice.
	{ "asked-before", NULL, NULL, tell_memory, event_untold, .ask = 2 },
	{ "opened", NULL, NULL, tell_memory, event_untold_open },
	{ 0 },
};
