// SPDX-License-Identifier: MIT
/*
 * Running the program as a child, for the options that have work to do after
 * its end, as if it were ourselves: its signals, its stops, its way to end.
 */
#include "launcher.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

int exec_failed(const char *name, const char *path, int error)
{
	const char *advice = "see its file";

	if (error == ENOENT && !access(path, F_OK))
		advice = "the interpreter that its file names is not there";
	else if (error == ENOENT)
		advice = strchr(name, '/') ? "check the path" : "check the name and PATH";
	else if (error == EACCES && !access(path, X_OK))
		advice = "check the interpreter in its first line, and for a mount without exec";
	else if (error == EACCES)
		advice = "only files with execute permission run (chmod +x)";
	fprintf(stderr, "cosy-auto: cannot run: %s: %s: %s\n", name, strerror(error), advice);
	return error == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE;
}

int be_command(const char *path, char **command, char **env)
{
	if (path[0])
		execve(path, command, env);
	// Rarely: our orders were the last straw.
	if (path[0] && errno == E2BIG)
		execve(path, command, env = environ);
	// Rarely: execvp(3) tries the shell, for a text, and the folders of PATH behind this one.
	execvpe(command[0], command, env);
	return exec_failed(command[0], path, errno);
}

/* Pass a signal on, unless the kernel gave it to the whole terminal group. */
static void forward(pid_t child, const siginfo_t *info)
{
	if (info->si_code <= 0)
		kill(child, info->si_signo);
}

/* A stopped child stops us, so that the shell has its prompt back. */
static void stop_with(pid_t child)
{
	raise(SIGSTOP);
	kill(child, SIGCONT);
}

/* Runs the command; returns its wait status, or -1. *started: it became the command. */
int run_wait(const char *path, char **command, char **env, bool *started)
{
	static const int faults[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS };
	struct sigaction old_child, plain = { .sa_handler = SIG_DFL };
	sigset_t all, old;
	bool *failed = mmap(NULL, sizeof(*failed), PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int status = -1;
	pid_t child;

	*started = false;
	if (failed == MAP_FAILED)
		return -1;
	// Blocked signals wait for sigwaitinfo, whatever their disposition: no handler, no race.
	sigfillset(&all);
	for (size_t i = 0; i < ARRAY_SIZE(faults); i++)
		sigdelset(&all, faults[i]);
	sigprocmask(SIG_BLOCK, &all, &old);
	sigaction(SIGCHLD, &plain, &old_child);
	child = fork();
	if (!child) {
		sigaction(SIGCHLD, &old_child, NULL);
		sigprocmask(SIG_SETMASK, &old, NULL);
		status = be_command(path, command, env);
		*failed = true;
		_exit(status);
	}
	while (child > 0) {
		siginfo_t info;

		if (sigwaitinfo(&all, &info) < 0)
			continue;
		if (info.si_signo != SIGCHLD) {
			forward(child, &info);
			continue;
		}
		if (waitpid(child, &status, WNOHANG | WUNTRACED) != child)
			continue;
		if (!WIFSTOPPED(status))
			break;
		stop_with(child);
	}
	sigaction(SIGCHLD, &old_child, NULL);
	sigprocmask(SIG_SETMASK, &old, NULL);
	*started = child > 0 && !*failed;
	munmap(failed, sizeof(*failed));
	return child > 0 ? status : -1;
}

/* End as the program did. */
void die_as(int status)
{
	struct sigaction plain = { .sa_handler = SIG_DFL };
	sigset_t none;

	if (status == -1) {
		fprintf(stderr, "cosy-auto: cannot start a process: %s: try again\n",
			strerror(errno));
		exit(EXIT_NOT_EXECUTABLE);
	}
	if (WIFSIGNALED(status)) {
		fflush(NULL);
		prctl(PR_SET_DUMPABLE, 0); // the program has left its core: no second one
		sigemptyset(&none);
		sigaction(WTERMSIG(status), &plain, NULL);
		sigprocmask(SIG_SETMASK, &none, NULL);
		raise(WTERMSIG(status));
		exit(128 + WTERMSIG(status));
	}
	exit(WEXITSTATUS(status));
}
