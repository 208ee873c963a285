# SPDX-License-Identifier: MIT
"""Watches programs with ptrace(2): no privileges, static programs too, slow.

Each call stops the program twice: a call takes some 40 µs longer (docs/cosy-trace.md).
By python-ptrace's binding; PTRACE_SEIZE and PTRACE_GET_SYSCALL_INFO, which it does not name,
are called through it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ptrace import PtraceError
from ptrace.binding import func as binding

from tracer import identity, kept
from tracer.backends import ALL, BackendError
from tracer.events import DONE, NO_RETURN, RAW_DIRENTS
from tracer.run import WALL
from tracer.stream import StreamWriter, read_stream
from tracer.syscalls import ArgKind, by_name
from tracer.timeline import End, RawTrace

NAME = "ptrace"
CLOCK = "CLOCK_MONOTONIC"

SEIZE, INTERRUPT, LISTEN, GET_SYSCALL_INFO = 0x4206, 0x4207, 0x4208, 0x420E
EVENT_STOP = 128
SYSCALL_STOP = signal.SIGTRAP | 0x80
ENTRY, EXIT = 1, 2
_OPTIONS = (
    binding.PTRACE_O_TRACESYSGOOD
    | binding.PTRACE_O_TRACEFORK
    | binding.PTRACE_O_TRACEVFORK
    | binding.PTRACE_O_TRACECLONE
    | binding.PTRACE_O_TRACEEXEC
    | binding.PTRACE_O_TRACEEXIT
)
_NEW_TASK = (binding.PTRACE_EVENT_FORK, binding.PTRACE_EVENT_VFORK, binding.PTRACE_EVENT_CLONE)
_STOPS = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
_INFO_BYTES = 88  # struct ptrace_syscall_info
_ENTRY = struct.Struct("<B7xQQQ6Q")  # op, ip, sp, nr, args
_EXIT = struct.Struct("<B7xQQq")  # op, ip, sp, ret
_NO_ARGS = (0, 0, 0, 0, 0, 0)
X86_64 = 0xC000003E  # AUDIT_ARCH_X86_64
FLUSH_NS = 1_000_000_000
LEAVE_S = 2.0  # for tasks to stop and be left alone
LOOK_S = 0.001  # between two looks at them
_ENDED = (os.CLD_EXITED, os.CLD_KILLED, os.CLD_DUMPED)


@dataclass
class _Thread:
    pid: int
    running: bool = False
    """Its calls are followed: false from PTRACE_SEIZE to the exec that is waited for."""
    nr: int = -1
    """Of the call that it is in; -1: in none."""
    t_ns: int = 0
    args: tuple[int, ...] = _NO_ARGS
    site: int = 0
    path: bytes = b""
    """Of an exec: cannot be read afterwards."""


@dataclass
class _Process:
    threads: set[int] = field(default_factory=set)
    memory: int = -1
    cpu_ns: tuple[int, int] | None = None
    """As its last thread found it that ended."""


class Heir(Protocol):
    """Somebody who takes over tasks that are stopped, in no call."""

    def take_over(self, tid: int, pid: int) -> None:
        """Follow a task of a process from now on."""


class Ptrace:
    """Follows processes and their descendants, and writes what they do; a run.Watcher."""

    signal: int | None = None

    def __init__(self, writer: StreamWriter) -> None:
        self._writer = writer
        self._threads: dict[int, _Thread] = {}
        self._processes: dict[int, _Process] = {}
        self._info = ctypes.create_string_buffer(_INFO_BYTES)
        self._kept = kept.by_call()
        names = by_name()
        self._execs = {names[name].nr for name in ("execve", "execveat")}
        self._ends = {names[name].nr for name in ("exit", "exit_group")}
        self._flushed_ns = 0
        self._stopping = False
        self.n_calls = 0
        self.heir: Heir | None = None
        """Who follows tasks from the end of their next call on, instead."""

    # --- whom to follow ----------------------------------------------------------

    def hold(self, pid: int) -> None:
        """Follow a process from its next exec on; raises PtraceError."""
        self._seize(pid, binding.PTRACE_O_TRACESYSGOOD | binding.PTRACE_O_TRACEEXEC)
        self._threads[pid] = _Thread(identity.tgid(pid))

    def attach(self, pid: int) -> None:
        """Follow a running process, its threads and descendants; raises PtraceError."""
        self._attach(pid, pid)
        known = {pid}
        while True:
            tasks = [(tid, p) for p in identity.tree(pid) for tid in identity.threads(p)]
            new = [(tid, p) for tid, p in tasks if tid not in known]
            if not new:
                return
            for tid, member in new:
                known.add(tid)
                with contextlib.suppress(PtraceError):  # gone, or another user's
                    self._attach(tid, member)

    def _attach(self, tid: int, pid: int) -> None:
        if tid in self._threads:
            return
        self._seize(tid, _OPTIONS)
        if tid == pid:
            self._announce(pid)
        self._adopt(tid, pid)
        binding.ptrace(INTERRUPT, tid)

    def stop(self) -> None:
        """Leave all that are still followed alone.

        No task is waited for by itself: the one of vfork(2) stops only after its child has gone on,
        and a fork that was under way brings one more. Who takes longer leaves by changed().
        """
        self._stopping = True
        for tid in list(self._threads):
            try:
                binding.ptrace(INTERRUPT, tid)
            except PtraceError:
                del self._threads[tid]  # gone
        deadline = time.monotonic() + LEAVE_S
        while self._threads and time.monotonic() < deadline:
            if not [tid for tid in list(self._threads) if self._left(tid)]:
                time.sleep(LOOK_S)
        self._writer.flush()

    def _left(self, tid: int) -> bool:
        """Look whether a task has stopped or ended, and let it go; returns whether it had."""
        options = os.WEXITED | os.WSTOPPED | os.WNOHANG | WALL
        try:
            info = os.waitid(os.P_PID, tid, options | os.WNOWAIT)
            if info is None:
                return False
            if info.si_code in _ENDED and identity.parent(tid) == os.getpid():
                del self._threads[tid]  # a child of ours: its status is for run()
                return True
            _, status = os.waitpid(tid, os.WNOHANG | WALL)
        except ChildProcessError:
            del self._threads[tid]
            return True
        if os.WIFSTOPPED(status):
            self._leave(tid, status)
        else:
            self._gone(tid, status)
        return True

    def _leave(self, tid: int, status: int) -> None:
        """Let a stopped task go on unwatched, or to its next stop where it must be."""
        number, event = os.WSTOPSIG(status), status >> 16
        with contextlib.suppress(PtraceError):  # killed meanwhile
            if event and event != EVENT_STOP:
                self._event(tid, event)
                binding.ptrace(binding.PTRACE_CONT, tid, 0, 0)
                return
            if number == SYSCALL_STOP:
                self._syscall(tid, self._threads[tid])
            signal_too = 0 if event or number == SYSCALL_STOP else number
            binding.ptrace(binding.PTRACE_DETACH, tid, 0, signal_too)
        self._threads.pop(tid, None)

    def _seize(self, tid: int, options: int) -> None:
        binding.ptrace(SEIZE, tid, 0, options)

    def _adopt(self, tid: int, pid: int) -> _Thread:
        """Begin to follow the calls of a thread."""
        thread = self._threads.setdefault(tid, _Thread(pid))
        thread.pid, thread.running = pid, True
        self._processes.setdefault(pid, _Process()).threads.add(tid)
        return thread

    def _announce(self, pid: int, path: bytes = b"") -> None:
        """Tell who a process is; `path` is what it exec'ed, if it is gone already."""
        process = self._processes.setdefault(pid, _Process())
        if process.memory >= 0:
            os.close(process.memory)  # of the program before
            process.memory = -1
        now = time.monotonic_ns()
        who = identity.identify(pid)
        self._writer.process(pid, now, who.ppid, who.exe or path, who.cwd, who.argv)
        for address, name in who.modules.items():
            self._writer.module(pid, now, address, name)

    # --- what they do -------------------------------------------------------------

    def signalled(self) -> None:
        """No signal is ours."""

    def changed(self, pid: int, status: int) -> int | None:
        """Take a wait status of a task; returns what is left of it for others to know."""
        thread = self._threads.get(pid)
        if not os.WIFSTOPPED(status):
            self._gone(pid, status)
            return status
        number, event = os.WSTOPSIG(status), status >> 16
        if thread is None:
            if event != EVENT_STOP:
                return status  # a child of ours that nobody follows
            thread = self._new(pid)
        if self._stopping:
            self._leave(pid, status)
            return number << 8 | 0x7F if event == EVENT_STOP and number in _STOPS else None
        how, arg = binding.PTRACE_SYSCALL if thread.running else binding.PTRACE_CONT, 0
        left: int | None = None
        try:
            if number == SYSCALL_STOP:
                self._syscall(pid, thread)
                if self.heir and thread.running and thread.nr < 0:
                    self._hand_over(pid, thread, self.heir)
                    return None
            elif event == EVENT_STOP:
                if number in _STOPS:
                    how, left = LISTEN, number << 8 | 0x7F
            elif event:
                if self._event(pid, event):
                    how = binding.PTRACE_SYSCALL
            else:
                arg = number  # a signal on its way
            binding.ptrace(how, pid, 0, arg)
        except PtraceError as error:
            if error.errno != errno.ESRCH:  # killed meanwhile
                raise
        return left

    def _new(self, tid: int) -> _Thread:
        """A task made by one that we follow has its first stop."""
        pid = identity.tgid(tid)
        if pid == tid and pid not in self._processes:
            self._announce(pid)
        return self._adopt(tid, pid)

    def _gone(self, tid: int, status: int) -> None:
        thread = self._threads.get(tid)
        if thread is None or thread.pid not in self._processes:
            self._threads.pop(tid, None)
            return
        process = self._processes[thread.pid]
        end = End(status, process.cpu_ns) if tid == thread.pid else None
        self._writer.exit(thread.pid, tid, time.monotonic_ns(), end)
        self._forget(tid, thread)

    def _hand_over(self, tid: int, thread: _Thread, heir: Heir) -> None:
        heir.take_over(tid, thread.pid)
        self._forget(tid, thread)
        binding.ptrace(binding.PTRACE_DETACH, tid, 0, 0)

    def _forget(self, tid: int, thread: _Thread) -> None:
        """Follow a thread no longer, and its process neither if it was the last."""
        self._threads.pop(tid, None)
        process = self._processes.get(thread.pid)
        if process is None:
            return
        process.threads.discard(tid)
        if not process.threads:
            if process.memory >= 0:
                os.close(process.memory)
            del self._processes[thread.pid]

    def _event(self, tid: int, event: int) -> bool:
        """Take a stop that PTRACE_O_... asked for; returns whether calls are followed now."""
        if event in _NEW_TASK:
            new = binding.ptrace_geteventmsg(tid)
            if new not in self._threads:
                self._new(new)
        elif event == binding.PTRACE_EVENT_EXEC:
            former = binding.ptrace_geteventmsg(tid)
            before = self._threads.pop(former, None) or self._threads.get(tid) or _Thread(tid)
            for other in self._processes.get(tid, _Process()).threads - {tid, former}:
                if self._threads.pop(other, None):  # the exec ended them
                    self._writer.exit(tid, other, time.monotonic_ns())
            if before.running:
                self._write(former, before, 0, b"", NO_RETURN)
            else:
                binding.ptrace_setoptions(tid, _OPTIONS)
            self._processes.setdefault(tid, _Process()).threads.clear()
            self._announce(tid, before.path)
            thread = self._adopt(tid, tid)
            # The stop at the end of execve follows; it says nothing new.
            thread.nr = -1
            return True
        elif event == binding.PTRACE_EVENT_EXIT and tid in self._threads:
            pid = self._threads[tid].pid
            if pid in self._processes:
                self._processes[pid].cpu_ns = identity.own_cpu_ns(pid)
            return True
        return False

    def _syscall(self, tid: int, thread: _Thread) -> None:
        now = time.monotonic_ns()
        info = self._info
        binding.ptrace(GET_SYSCALL_INFO, tid, _INFO_BYTES, ctypes.addressof(info))
        if info.raw[0] == ENTRY:
            if int.from_bytes(info.raw[4:8], "little") != X86_64:
                thread.nr = -1
                return
            _, thread.site, _, thread.nr, *args = _ENTRY.unpack_from(info)
            thread.t_ns, thread.args = now, tuple(args)
            if thread.nr in self._ends:
                self._write(tid, thread, 0, b"", NO_RETURN)
                thread.nr = -1
            elif thread.nr in self._execs:
                which = self._kept[thread.nr].path or 0
                thread.path = self._string(thread.pid, thread.args[which])
        elif thread.nr >= 0:
            self.n_calls += 1
            self._exit(tid, thread, _EXIT.unpack_from(info)[3], now)
            if now - self._flushed_ns > FLUSH_NS:
                self._writer.flush()
                self._flushed_ns = now

    def _exit(self, tid: int, thread: _Thread, ret: int, now: int) -> None:
        path = thread.path
        path2 = out = b""
        flags = 0
        what = self._kept.get(thread.nr)
        if what and (ret >= 0 or ret in kept.PATH_WAS_READ) and not path:
            if what.path is not None:
                path = self._string(thread.pid, thread.args[what.path])
            if what.path2 is not None:
                path2 = self._string(thread.pid, thread.args[what.path2])
        if what and what.out is not None and what.out_kind and ret >= 0:
            size = kept.out_size(what.out_kind, ret)
            out = kept.out_of(what.out_kind, self._read(thread.pid, thread.args[what.out], size))
            flags = RAW_DIRENTS if what.out_kind == ArgKind.DIRENTS_OUT else 0
        thread.path = path
        self._write(tid, thread, ret, out, flags, path2, now)
        thread.nr, thread.path = -1, b""

    def _write(
        self,
        tid: int,
        thread: _Thread,
        ret: int,
        out: bytes,
        flags: int,
        path2: bytes = b"",
        now: int = 0,
    ) -> None:
        self._writer.event(
            thread.pid,
            tid,
            thread.nr,
            thread.t_ns,
            max(0, now - thread.t_ns),
            ret,
            thread.args,
            thread.path,
            path2,
            out,
            thread.site,
            flags | DONE,
        )

    # --- their memory -------------------------------------------------------------

    def _read(self, pid: int, address: int, size: int) -> bytes:
        process = self._processes[pid]
        try:
            if process.memory < 0:
                process.memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
            return os.pread(process.memory, size, address)
        except (OSError, OverflowError):
            return b""

    def _string(self, pid: int, address: int) -> bytes:
        text, step = b"", 256
        while len(text) < kept.MAX_PATH_LEN:
            part = self._read(pid, address + len(text), step)
            if b"\0" in part:
                return text + part[: part.index(b"\0")]
            if not part:
                break
            text, step = text + part, kept.MAX_PATH_LEN
        return text[: kept.MAX_PATH_LEN]


class Session:
    """One recorded run, or a look at a process that runs already."""

    name = NAME
    clock = CLOCK
    restarts = ALL

    def __init__(self, folder: Path, env: Mapping[bytes, bytes]) -> None:
        self._stream = folder / "ptrace.stream"
        self._writer = StreamWriter(self._stream)
        self.env = dict(env)
        self.watcher = Ptrace(self._writer)

    def attach(self, pid: int) -> None:
        """Begin to follow a process; raises BackendError."""
        try:
            self.watcher.attach(pid)
        except PtraceError as error:
            if identity.has_ended(pid):
                raise BackendError(f"it has ended: {pid}: see `ps`") from error
            why = os.strerror(error.errno or errno.EPERM).lower()
            hint = "is it yours? see kernel.yama.ptrace_scope, or be root"
            raise BackendError(f"cannot attach: {pid}: {why}: {hint}") from error

    def close(self) -> None:
        """The program has ended, or enough was seen."""
        self.watcher.stop()
        self._writer.close()

    def raw(self) -> RawTrace:
        """Return what was recorded."""
        return read_stream(self._stream)
