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
import select
import signal
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from tracer import identity

NOT_FOUND = 127
NOT_EXECUTABLE = 126
WALL = 0x40000000  # of wait(2): tasks of any kind
LOOK_NS = 200_000_000  # between two looks whether somebody else's process is still there
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


_mask_at_start: set[int] | None = None


def hold_signals() -> None:
    """Block what run() and watch() wait for; to be called before any library starts a thread.

    A thread that has SIGCHLD unblocked may be the one that the kernel gives it to, where it is
    dropped (numpy's are such), and then nobody would ever hear of it.
    """
    global _mask_at_start
    if _mask_at_start is None:
        watched = _FORWARDED | {signal.SIGCHLD}
        _mask_at_start = {int(n) for n in signal.pthread_sigmask(signal.SIG_BLOCK, watched)}


def _release_signals() -> None:
    if _mask_at_start is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, _mask_at_start)


class CommandError(Exception):
    """The program cannot be run; `code` is the exit code that env(1) would give."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended."""

    pid: int
    status: int | None
    """As wait(2) tells it; None: it goes on, or was no child of ours."""
    wall_ns: int
    """While it was watched: less than its life, if that was limited."""
    user_ns: int
    """CPU time in wall_ns of the program and of all descendants that were waited for; 0: not
    known."""
    system_ns: int
    own_ns: tuple[int, int] | None = None
    """The same of the program alone; None: not known."""
    at_ns: int | None = None
    """When it ended, CLOCK_MONOTONIC; None: it goes on, or that was not seen."""


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


class Watcher(Protocol):
    """Somebody who looks at programs from outside while run() waits for one."""

    signal: int | None
    """A signal that is meant for the watcher, and comes only after hold()."""

    def hold(self, pid: int) -> None:
        """A process waits for this to return before it goes on to its program."""

    def changed(self, pid: int, status: int) -> int | None:
        """A task changed. Returns what wait(2) would have said unwatched; None: nothing."""

    def signalled(self) -> None:
        """The signal has come."""

    def stop(self) -> None:
        """Look no longer; the programs go on."""


def _start(path: str, argv: list[str], env: Mapping[bytes, bytes], mask: set[int]) -> int:
    """What the child does; returns the error number of its exec."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores for itself
        signal.signal(number, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # one that waits is the program's
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    try:
        os.execve(path, argv, env)
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            return error.errno or errno.EIO
    try:
        # As execvp(3) does with a script that names no interpreter.
        os.execve("/bin/sh", ["sh", path, *argv[1:]], env)
    except OSError as error:
        return error.errno or errno.EIO


def _spawn(
    path: str,
    argv: list[str],
    env: Mapping[bytes, bytes],
    mask: set[int],
    hold: Callable[[int], None] | None,
) -> int:
    # Not posix_spawn: glibc's leaves the signals 32 and 33 ignored in the program.
    # Not subprocess: it returns after the exec, and so cannot hold the child.
    failure_read, failure_write = os.pipe2(os.O_CLOEXEC)
    gate_read, gate_write = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if not pid:
        number = errno.EIO
        try:
            os.close(gate_write)
            os.read(gate_read, 1)
            number = _start(path, argv, env, mask)
        finally:
            os.write(failure_write, bytes([number]))
            os._exit(NOT_FOUND)
    os.close(gate_read)
    os.close(failure_write)
    try:
        if hold:
            hold(pid)
        # What came until now was meant for the program, as if it had been there from the start.
        # One that it has got itself, since it was made, does not come twice: the gate is closed.
        for number in signal.sigpending() & _FORWARDED:
            signal.sigwaitinfo([number])
            os.kill(pid, number)
    finally:
        os.close(gate_write)
        told = os.read(failure_read, 1)
        os.close(failure_read)
    if told:
        os.waitpid(pid, 0)
        code = NOT_FOUND if told[0] == errno.ENOENT else NOT_EXECUTABLE
        reason = os.strerror(told[0]).lower()
        raise CommandError(f"cannot run: {path}: {reason}: is it a program?", code)
    return pid


def run(
    path: str,
    argv: list[str],
    env: Mapping[bytes, bytes],
    watcher: Watcher | None = None,
    duration_s: float | None = None,
) -> Ended:
    """Run a program to its end; raises CommandError when it does not start.

    After `duration_s` its watcher is told to stop; the program goes on.
    """
    watched = {int(number) for number in _FORWARDED | {signal.SIGCHLD}}
    if watcher and watcher.signal:
        watched.add(watcher.signal)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    hold_signals()
    signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    assert _mask_at_start is not None
    try:
        begin = time.monotonic_ns()
        pid = _spawn(path, argv, env, _mask_at_start, watcher.hold if watcher else None)
        stop_ns = begin + round(duration_s * 1e9) if duration_s is not None else None
        status, usage, own_ns, stopped = _wait(pid, watched, watcher, stop_ns)
        end = time.monotonic_ns()
        until, user_ns, system_ns = stopped or (
            end,
            int(usage.ru_utime * 1e9),
            int(usage.ru_stime * 1e9),
        )
        return Ended(pid, status, until - begin, user_ns, system_ns, own_ns, end)
    finally:
        if watcher and watcher.signal:
            signal.signal(watcher.signal, signal.SIG_IGN)  # drops what is still pending
        _release_signals()


def _next_signal(watched: set[int], until_ns: int | None) -> signal.struct_siginfo | None:
    """Wait for a signal; None: none has come by `until_ns` of CLOCK_MONOTONIC."""
    if until_ns is None:
        return signal.sigwaitinfo(watched)
    return signal.sigtimedwait(watched, max(0, until_ns - time.monotonic_ns()) / 1e9)


def _wait(
    child: int, watched: set[int], watcher: Watcher | None, stop_ns: int | None
) -> tuple[int, resource.struct_rusage, tuple[int, int] | None, tuple[int, int, int] | None]:
    """Return wait status, all its CPU time, its own, and when the watcher stopped, if it did: the
    time, and what user and system time had been used by then."""
    stopped = None
    whom = (os.P_ALL, 0) if watcher else (os.P_PID, child)
    kinds = os.WNOHANG | (WALL if watcher else 0)
    options = kinds | os.WUNTRACED
    changes = kinds | os.WEXITED | os.WSTOPPED | os.WNOWAIT
    while True:
        info = _next_signal(watched, stop_ns)
        if info is None:
            stop_ns = None
            if watcher:
                stopped = time.monotonic_ns(), *identity.cpu_ns(child)
                watcher.stop()
            continue
        if watcher and info.si_signo == watcher.signal:
            watcher.signalled()
        elif info.si_signo != signal.SIGCHLD:
            # The terminal's own signals reach the whole process group by themselves.
            sent = info.si_code in (SI_USER, SI_QUEUE, SI_TKILL)
            if sent and info.si_pid != child:
                os.kill(child, info.si_signo)
            continue
        while True:
            try:
                change = os.waitid(*whom, changes)
            except ChildProcessError:
                break
            if change is None:
                break
            own_ns = identity.own_cpu_ns(child) if change.si_pid == child else None
            try:
                pid, status, usage = os.wait4(change.si_pid, options)
            except ChildProcessError:  # an exec has ended that thread
                continue
            if not pid:
                break
            plain = watcher.changed(pid, status) if watcher else status
            if pid != child or plain is None:
                continue
            if not os.WIFSTOPPED(plain):
                return plain, usage, own_ns, stopped
            # The shell must see that its job has stopped.
            os.kill(os.getpid(), signal.SIGSTOP)
            os.kill(child, signal.SIGCONT)


def watch(
    pid: int, watcher: Watcher, attach: Callable[[int], None], duration_s: float | None = None
) -> Ended:
    """Let a watcher look at somebody else's process, from `attach` to its stop().

    Ends with the process, after `duration_s`, or at SIGINT, SIGTERM or SIGHUP. The wall time holds
    all that is seen: also calls that it is in when it is found, and those that go on at the end.
    """
    ending = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    watched = {int(number) for number in ending | {signal.SIGCHLD}}
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    hold_signals()
    begin, user_ns, system_ns = time.monotonic_ns(), *identity.cpu_ns(pid)
    try:
        attach(pid)
        end_ns = time.monotonic_ns() + round(duration_s * 1e9) if duration_s is not None else None
        with _end_of(pid) as ended:
            while end_ns is None or time.monotonic_ns() < end_ns:
                look_ns = time.monotonic_ns() + LOOK_NS
                info = _next_signal(watched, look_ns if end_ns is None else min(look_ns, end_ns))
                if info is not None and info.si_signo in ending:
                    break
                _take_all(watcher)
                if ended():
                    break
        user, system = identity.cpu_ns(pid)
        watcher.stop()
        # It may be gone, and its number somebody else's.
        spent = max(0, user - user_ns), max(0, system - system_ns)
        return Ended(pid, None, time.monotonic_ns() - begin, *spent)
    finally:
        _release_signals()


@contextlib.contextmanager
def _end_of(pid: int) -> Iterator[Callable[[], bool]]:
    """Ask again and again whether a process has ended, be it that its parent has not asked yet."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:  # gone; or a thread's number
        yield lambda: not os.path.exists(f"/proc/{pid}")
        return
    try:
        look = select.poll()
        look.register(handle, select.POLLIN)
        yield lambda: bool(look.poll(0))
    finally:
        os.close(handle)


def _take_all(watcher: Watcher) -> None:
    """Hand over every change of state that there is."""
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG | WALL)
            if not pid:
                break
            watcher.changed(pid, status)


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
