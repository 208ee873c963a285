# SPDX-License-Identifier: MIT
"""Takes full blocks away from busy threads of programs under the shim, while they run.

Such a thread writes into a few blocks of its raw file (kmod/uapi/cosy_trace.h). As long as
somebody copies them in time, it never needs new memory, which costs it more than all the rest of an
event. Where nobody does, or too late, it flushes them itself: nothing depends on this here.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import signal
import struct
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tracer.events import EVENT_BYTES
from tracer.raw import BLOCK, HEADER, MAGIC, MAX_LIVE_SIZE, PAGE, RAW, TAKEN

FIFO = "drain"
REQUEST = struct.Struct("<IIQ")  # pid, tid, start_tsc
LOOK_S = 0.001
"""Between two looks at busy threads: less than half of the time in which one fills its blocks.
With four times as much a du goes round eight blocks instead of three and takes 3 % longer."""
LOOK_IDLE_S = 0.02


assert HEADER.fields
_TAKEN, _FILLED = (HEADER.fields[name][1] // 8 for name in ("taken", "filled"))


@dataclass
class _Ring:
    """The live blocks of one thread."""

    memory: memoryview
    words: memoryview
    """The same by 8 bytes; to look at one takes a tenth of what it takes in an array."""
    header: npt.NDArray[np.void]
    out: int
    """Descriptor of the file for what is taken."""
    size: int = 0
    """Of what it holds."""

    def __post_init__(self) -> None:
        h = self.header[0]
        self.heap_at = int(h["live_heap"])
        self.starts = [PAGE + i * int(h["live_size"]) for i in range(int(h["slots"]))]

    def close(self) -> None:
        """Give back what it holds of this process."""
        os.close(self.out)

    @property
    def alive(self) -> bool:
        """Whether its thread may still write."""
        h = self.header[0]
        return os.path.exists(f"/proc/{h['pid']}/task/{h['tid']}")

    def waiting(self) -> list[tuple[int, int]]:
        """Return seq and place of each full block that is to be kept, in their order."""
        taken, filled = self.words[_TAKEN], self.words[_FILLED]
        if taken == filled:
            return []
        used = self.starts[: int(self.header["ring"][0])]
        found = [(self.words[start // 8], start) for start in used]
        # One that was never used has no events.
        return sorted(
            (seq, start)
            for seq, start in found
            if taken <= seq < filled and self.words[start // 8 + 1]
        )


def _open(raw: Path) -> _Ring | None:
    """Return the blocks of a raw file; None: it has none, or is none. Raises OSError."""
    with raw.open("r+b", buffering=0) as file:
        mapped = mmap.mmap(file.fileno(), 0)
    if len(mapped) < PAGE:
        return None
    header = np.frombuffer(mapped, HEADER, 1)
    h = header[0]
    live, slots = int(h["live_size"]), int(h["slots"])
    fits = BLOCK.itemsize <= int(h["live_heap"]) <= live <= MAX_LIVE_SIZE and live % 8 == 0
    if h["magic"] != MAGIC or not fits or len(mapped) < PAGE + slots * live:
        return None
    memory = memoryview(mapped)
    words = memory[: PAGE + slots * live].cast("Q")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return _Ring(memory, words, header, os.open(raw.with_suffix(TAKEN), flags, 0o600))


def take(ring: _Ring) -> int:
    """Copy all full blocks; returns how many there were. Raises OSError where there is no room."""
    n = 0
    for seq, start in ring.waiting():
        used = ring.words[start // 8 + 1]
        events, heap = used & 0xFFFFFFFF, used >> 32
        head, heap_at = BLOCK.itemsize + events * EVENT_BYTES, start + ring.heap_at
        parts = [ring.memory[start : start + head], ring.memory[heap_at : heap_at + heap]]
        written = os.pwritev(ring.out, parts, ring.size)
        if ring.words[_TAKEN] > seq:
            os.truncate(ring.out, ring.size)  # it was overwritten meanwhile: flushed, then
            continue
        if written < head + heap:
            raise OSError("no room")
        ring.size += written
        n += 1
        ring.words[_TAKEN] = seq + 1
    return n


class Drain:
    """A thread that takes blocks away, from a folder of raw files, until close()."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        os.mkfifo(folder / FIFO, 0o600)
        self._fifo = os.open(folder / FIFO, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._wake_read, self._wake = os.pipe2(os.O_CLOEXEC)
        self._rings: list[_Ring] = []
        self._thread = threading.Thread(target=self._run, name="drain", daemon=True)
        # It inherits this: signals are for whoever waits for the program.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        self._thread.start()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def close(self) -> None:
        """Take no more; programs that go on flush their blocks themselves."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._folder / FIFO)
        os.close(self._wake)
        self._thread.join()
        os.close(self._wake_read)
        os.close(self._fifo)

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._fifo, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN | select.POLLHUP)
        wait_s = LOOK_S
        while True:
            ready = dict(poll.poll(wait_s * 1000 if self._rings else None))
            if self._wake_read in ready:
                break
            if self._fifo in ready:
                self._add()
            found = sum(map(self._take, list(self._rings)))
            wait_s = LOOK_S if found else min(2 * wait_s, LOOK_IDLE_S)
        for ring in self._rings:
            ring.close()

    def _add(self) -> None:
        self._forget_ended()
        data = os.read(self._fifo, REQUEST.size * 256)  # each was written in one piece
        for pid, tid, start in REQUEST.iter_unpack(data):
            # Not ours, gone, or too many files open: the thread helps itself.
            with contextlib.suppress(OSError, ValueError):
                ring = _open(self._folder / f"{pid}.{tid}.{start:016x}{RAW}")
                if ring:
                    self._rings.append(ring)

    def _forget_ended(self) -> None:
        """Each ring holds two descriptors. What is left in it is read with its file."""
        rings, self._rings = self._rings, []
        for ring in rings:
            if ring.alive:
                self._rings.append(ring)
            else:
                ring.close()

    def _take(self, ring: _Ring) -> int:
        try:
            return take(ring)
        except OSError:
            return 0  # no room now; the thread will find the same
