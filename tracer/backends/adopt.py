# SPDX-License-Identifier: MIT
"""Children that the shim cannot follow: statically linked ones, for instance.

Before such a program is exec'ed, the shim asks here, through a FIFO in the folder of raw files,
and waits for an answer (shim/adopt.c). The process is then watched from outside, from its
exec on, and with it whatever it starts.

By ptrace at first: that is there at once, and tells a program from the one that its exec replaces.
As root, when it has cost about what compiling takes, bcc is compiled, while the programs go on, and
takes over each thread at the end of a call.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import struct
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tracer.backends import RING_BYTES, BackendError

if TYPE_CHECKING:
    from tracer.backends.bcc import Bcc
    from tracer.backends.ptrace import Ptrace
    from tracer.stream import StreamWriter

FIFO = "adopt"
ANSWER = "adopted.{}"
_REQUEST = struct.Struct("<II")  # the task that is about to exec; whether it will have other rights
PTRACE_CALLS = 1 << 15
"""So many of 30 us each take a second of ours and the programs': half of what compiling takes."""


class Adopter:
    """Answers the shim's requests; a run.Watcher."""

    STREAMS: Mapping[str, str] = {"ptrace": "adopted.stream", "bcc": "adopted-bcc.stream"}
    """By backend, in the order of their turns."""
    STOPPED = "stop"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.signal: int | None = signal.SIGRTMIN + 7
        os.mkfifo(folder / FIFO, 0o600)
        self._fifo = os.open(folder / FIFO, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.fcntl(self._fifo, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(self._fifo, fcntl.F_SETSIG, self.signal)
        flags = fcntl.fcntl(self._fifo, fcntl.F_GETFL)
        fcntl.fcntl(self._fifo, fcntl.F_SETFL, flags | os.O_ASYNC)
        self._writers: list[StreamWriter] = []
        self._ptrace: Ptrace | None = None
        self._bcc: Bcc | None = None
        self._compiler: threading.Thread | None = None

    def stop(self) -> None:
        """Record no longer: the shim looks for this file at each flush."""
        stopped = self._folder / self.STOPPED
        # It may be there already, or there is no room for it.
        with contextlib.suppress(OSError), stopped.open("x") as file:
            file.write(f"{time.monotonic_ns()}\n")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._folder / FIFO)
        if self._ptrace:
            self._ptrace.heir = None
            self._ptrace.stop()
        if self._compiler:
            self._compiler.join()  # it has our standard error
        if self._bcc:
            self._bcc.stop()

    def close(self) -> None:
        """The program has ended."""
        self.stop()
        os.close(self._fifo)
        for writer in self._writers:
            writer.close()

    def hold(self, pid: int) -> None:
        """The first program is the shim's."""

    def signalled(self) -> None:
        """Somebody asks."""
        while True:
            try:
                data = os.read(self._fifo, _REQUEST.size * 64)
            except BlockingIOError:
                return
            whole = len(data) // _REQUEST.size * _REQUEST.size
            for pid, set_id in _REQUEST.iter_unpack(data[:whole]):
                if not set_id or os.geteuid() == 0:
                    self._adopt(pid)
                with contextlib.suppress(OSError):
                    (self._folder / ANSWER.format(pid)).touch()

    def _adopt(self, pid: int) -> None:
        from ptrace import PtraceError  # seldom needed, and slow to load

        from tracer.backends.ptrace import Ptrace

        if self._ptrace is None:
            self._ptrace = Ptrace(self._writer("ptrace"))
        # Refused, or gone: it runs as it is, and the summary names it.
        with contextlib.suppress(PtraceError):
            self._ptrace.hold(pid)

    def _writer(self, backend: str) -> StreamWriter:
        from tracer.stream import StreamWriter

        self._writers.append(StreamWriter(self._folder / self.STREAMS[backend]))
        return self._writers[-1]

    def changed(self, pid: int, status: int) -> int | None:
        """Pass on to who watches."""
        if self._ptrace is None:
            return status
        left = self._ptrace.changed(pid, status)
        if self._ptrace.n_calls >= PTRACE_CALLS and self._compiler is None:
            self._compiler = threading.Thread(target=self._compile, daemon=True)
            self._compiler.start()
        if self._bcc and self._ptrace.heir is None:
            self._ptrace.heir = self._bcc
        return left

    def _compile(self) -> None:
        from tracer.backends import bcc

        if bcc.why_not() is None:
            with contextlib.suppress(BackendError):  # then ptrace goes on
                self._bcc = bcc.Bcc(self._writer("bcc"), RING_BYTES)
