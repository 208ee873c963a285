# SPDX-License-Identifier: MIT
"""Run a program so that nobody can tell that it has another parent.

It shares our terminal, process group, descriptors and signal mask. Signals that were
meant for it come through, it can be stopped and continued, and the way it ended
can be handed on.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

NOT_FOUND = 127
NOT_EXECUTABLE = 126
SI_USER, SI_QUEUE, SI_TKILL = 0, -1, -6

# Signals that somebody may send us but means for the program.
_FORWARDED = {
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGWINCH,
}


class CommandError(Exception):
    """The program cannot be run; `code` is the exit code that env(1) would give."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended."""

    pid: int
    status: int
    """As wait(2) tells it."""
    wall_ns: int


def find_program(name: str, env: Mapping[bytes, bytes]) -> str:
    """Return the file that execvp(3) would run for `name`; raises CommandError."""
    if "/" in name:
        places = [name]
    else:
        search = os.fsdecode(env.get(b"PATH", os.fsencode(os.defpath)))
        places = [os.path.join(folder, name) for folder in search.split(":")]
    denied = None
    for place in places:
        try:
            mode = os.stat(place).st_mode
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            denied = denied or f"{place}: {(error.strerror or '').lower()}"
            continue
        if stat.S_ISREG(mode) and os.access(place, os.X_OK):
            return place
        denied = denied or f"{place}: {'is a directory' if stat.S_ISDIR(mode) else 'no permission'}"
    if denied and name:
        raise CommandError(f"cannot run: {denied}: is it a program?", NOT_EXECUTABLE)
    where = "no such file" if "/" in name else "not in PATH"
    raise CommandError(f"cannot run: {name}: {where}: check the name", NOT_FOUND)


def _spawn(path: str, argv: list[str], env: Mapping[bytes, bytes], mask: set[int]) -> int:
    # Not posix_spawn: glibc's leaves the signals 32 and 33 ignored in the program.
    def start(path: str, argv: list[str]) -> int:
        process = subprocess.Popen(
            argv,
            executable=path,
            env=env,
            close_fds=False,
            restore_signals=True,  # of SIGPIPE and SIGXFSZ, which Python ignores for itself
            preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, mask),
        )
        process.returncode = 0  # we wait by ourselves
        return process.pid

    try:
        return start(path, argv)
    except OSError as error:
        if error.errno == errno.ENOEXEC:
            # As execvp(3) does with a script that names no interpreter.
            return start("/bin/sh", ["sh", path, *argv[1:]])
        code = NOT_FOUND if error.errno == errno.ENOENT else NOT_EXECUTABLE
        reason = (error.strerror or "failed").lower()
        raise CommandError(f"cannot run: {path}: {reason}: is it a program?", code) from error


def run(
    path: str,
    argv: list[str],
    env: Mapping[bytes, bytes],
    started: Callable[[int], None] | None = None,
) -> Ended:
    """Run a program to its end; raises CommandError when it does not start.

    `started` is called with its process id.
    """
    watched = _FORWARDED | {signal.SIGCHLD}
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    try:
        begin = time.monotonic_ns()
        pid = _spawn(path, argv, env, {int(number) for number in mask})
        if started:
            started(pid)
        status = _wait(pid, {int(number) for number in watched})
        return Ended(pid, status, time.monotonic_ns() - begin)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _wait(child: int, watched: set[int]) -> int:
    while True:
        info = signal.sigwaitinfo(watched)
        if info.si_signo != signal.SIGCHLD:
            # The terminal's own signals reach the whole process group by themselves.
            sent = info.si_code in (SI_USER, SI_QUEUE, SI_TKILL)
            if sent and info.si_pid != child:
                os.kill(child, info.si_signo)
            continue
        pid, status = os.waitpid(child, os.WNOHANG | os.WUNTRACED)
        if not pid:
            continue
        if os.WIFSTOPPED(status):
            # The shell must see that its job has stopped.
            os.kill(os.getpid(), signal.SIGSTOP)
            os.kill(child, signal.SIGCONT)
            continue
        return status


def end_like(status: int) -> None:
    """End this process as the program with this wait status ended."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, AttributeError):  # full, or closed from the start
            stream.flush()
    if not os.WIFSIGNALED(status):
        os._exit(os.WEXITSTATUS(status))
    number = os.WTERMSIG(status)
    # The program has dumped its core already, if it was to.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
    os.kill(os.getpid(), number)
    os._exit(128 + number)
