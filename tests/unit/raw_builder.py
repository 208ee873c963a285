# SPDX-License-Identifier: MIT
"""Raw trace files made by hand, as the shim's tracing mode leaves them."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

from tracer.events import DONE, NO_RETURN, NR_MODULE, NR_PROCESS
from tracer.raw import MAGIC, PAGE, TAKEN, read_folder
from tracer.syscalls import by_name
from tracer.timeline import RawTrace

LIVE_SLOTS = 8
LIVE_HEAP = 16 + LIVE_SLOTS * 96
LIVE_SIZE = LIVE_HEAP + 2048

_EVENT = struct.Struct("<QQq6QQHHIHHI")
assert _EVENT.size == 96


@dataclass
class Event:
    """One event; `nr` may be the name of a call."""

    nr: int | str
    args: tuple[int, ...] = ()
    ret: int = 0
    path: bytes = b""
    path2: bytes = b""
    out: bytes = b""
    tsc: int | None = None
    dur: int = 10
    flags: int = DONE
    site: int = 0


@dataclass
class RawBuilder:
    """One thread's file; events get ascending time stamps unless they have their own.

    One tick of the TSC is two nanoseconds.
    """

    pid: int = 100
    tid: int = 100
    ppid: int = 1
    start_tsc: int = 1000
    flushed: list[list[Event]] = field(default_factory=list)
    live: list[Event] = field(default_factory=list)
    lost: int = 0
    live_seq: int | None = None
    taken: list[list[Event]] = field(default_factory=list)
    """Blocks that a recorder took away, behind the flushed ones."""
    ring: list[tuple[int, list[Event]]] = field(default_factory=list)
    """Further live blocks, with their seq."""
    _clock: int = 0

    def __post_init__(self) -> None:
        self._clock = self.start_tsc

    def block(self, seq: int, events: list[Event]) -> tuple[bytes, bytes]:
        rows, heap = b"", b""
        for event in events:
            nr = by_name()[event.nr].nr if isinstance(event.nr, str) else event.nr
            if event.tsc is None:
                self._clock += 100
                event.tsc = self._clock
            args = [value & (2**64 - 1) for value in event.args]
            payload = event.path + event.path2 + event.out
            rows += _EVENT.pack(
                event.tsc,
                event.dur,
                event.ret,
                *args,
                *[0] * (6 - len(args)),
                event.site,
                nr,
                event.flags,
                len(heap),
                len(event.path),
                len(event.path2),
                len(event.out),
            )
            heap += payload
        return struct.pack("<QII", seq, len(events), len(heap)) + rows, heap

    def data(self) -> bytes:
        flushed = self._joined(0, self.flushed)
        self._joined(len(self.flushed), self.taken)  # gets its times before the live one
        seq = len(self.flushed) + len(self.taken) if self.live_seq is None else self.live_seq
        live = b""
        for number, events in [(seq, self.live), *self.ring]:
            head, heap = self.block(number, events)
            live += (head.ljust(LIVE_HEAP, b"\0") + heap).ljust(LIVE_SIZE, b"\0")
        header = struct.pack(
            "<8sIIIIIIQQQQqQQIIQQ",
            MAGIC,
            0,
            LIVE_SIZE,
            LIVE_HEAP,
            self.pid,
            self.tid,
            self.ppid,
            self.start_tsc,
            2 * self.start_tsc,
            self._clock + 1000,
            2 * (self._clock + 1000),
            0,
            self.lost,
            len(flushed),
            1 + len(self.ring),
            1 + len(self.ring),
            0,
            seq,
        )
        return header.ljust(PAGE, b"\0") + live + flushed

    def _joined(self, first: int, blocks: list[list[Event]]) -> bytes:
        return b"".join(b"".join(self.block(seq, e)) for seq, e in enumerate(blocks, first))

    def write(self, folder: Path) -> Path:
        data = self.data()
        path = folder / f"{self.pid}.{self.tid}.{self.start_tsc:016x}.raw"
        path.write_bytes(data)
        if self.taken:
            path.with_suffix(TAKEN).write_bytes(self._joined(len(self.flushed), self.taken))
        return path


def process(exe: bytes, *argv: bytes, cwd: bytes = b"/home") -> Event:
    """What a program image announces first."""
    return Event(NR_PROCESS, path=exe, path2=cwd, out=b"\0".join(argv) + b"\0")


def module(address: int, path: bytes) -> Event:
    return Event(NR_MODULE, (address,), path=path)


def executed(path: bytes) -> Event:
    """An exec that succeeded."""
    return Event("execve", path=path, flags=DONE | NO_RETURN)


def trace(folder: Path, *files: RawBuilder) -> RawTrace:
    for file in files:
        file.write(folder)
    return read_folder(folder)
