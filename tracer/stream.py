# SPDX-License-Identifier: MIT
"""A trace as one stream of records: what backends write that watch from outside.

A record is what a BPF ring buffer holds, so that such a buffer can be copied as it is:

    u32 length, u32 unused     of what follows, without padding
    u32 pid, u32 tid
    struct cosy_trace_event    kmod/uapi/cosy_trace.h; times in ns, `heap` unused
    path, path2, out           one behind the other
    padding to 8 bytes

A process tells who it is with an event COSY_EVENT_PROCESS, args[0] its parent, and again after each
exec. `read_stream` splits the records by thread and program image, which is what the shim's files
are, and from there on all backends go the same way.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from tracer.raw import (
    DONE,
    EVENT,
    MAX_TIME,
    NR_EXIT,
    NR_LOST,
    NR_MODULE,
    NR_PROCESS,
    Bytes,
    Ints,
    RawFile,
    RawTrace,
    gather,
)

SUFFIX = ".stream"
_HEAD = struct.Struct("<IIII")
_EVENT = struct.Struct("<QQq6QQHHIHHI")
_FIXED = _HEAD.size - 8 + _EVENT.size  # of a record's length
_PAD = [b"\0" * (-n % 8) for n in range(8)]
BUSY, DISCARD = 1 << 31, 1 << 30  # of a ring buffer's record
LENGTH = DISCARD - 1
MAX_PATH = 4096
_WHO = np.dtype([("pid", "<u4"), ("tid", "<u4")])
_U64 = (1 << 64) - 1
_WRITE_AT_BYTES = 1 << 18

assert _EVENT.size == EVENT.itemsize


class StreamWriter:
    """Appends records to a file; as a context manager it closes it.

    What was flushed is readable whatever happens to the writer.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self._parts: list[bytes] = []
        self._size = 0

    def __enter__(self) -> StreamWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def event(
        self,
        pid: int,
        tid: int,
        nr: int,
        t_ns: int,
        dur_ns: int,
        ret: int,
        args: Sequence[int] = (0, 0, 0, 0, 0, 0),
        path: bytes = b"",
        path2: bytes = b"",
        out: bytes = b"",
        site: int = 0,
        flags: int = DONE,
    ) -> None:
        """Append one event; `args` has six members, each 0 to 2^64 - 1."""
        sizes = len(path), len(path2), len(out)
        length = _FIXED + sum(sizes)
        self._parts += (
            _HEAD.pack(length, 0, pid, tid),
            _EVENT.pack(t_ns, dur_ns, ret, *args, site, nr, flags, 0, *sizes),
            path,
            path2,
            out,
            _PAD[length % 8],
        )
        self._size += length + 8
        if self._size >= _WRITE_AT_BYTES:
            self.flush()

    def copy(self, records: bytes) -> None:
        """Append records that are complete already."""
        self._parts.append(records)
        self._size += len(records)
        if self._size >= _WRITE_AT_BYTES:
            self.flush()

    def process(
        self, pid: int, t_ns: int, ppid: int, exe: bytes, cwd: bytes, argv: Sequence[bytes]
    ) -> None:
        """Say who a process is, or has become by an exec."""
        args = (ppid, 0, 0, 0, 0, 0)
        joined = b"".join(word + b"\0" for word in argv)
        self.event(pid, pid, NR_PROCESS, t_ns, 0, 0, args, exe[:MAX_PATH], cwd[:MAX_PATH], joined)

    def module(self, pid: int, t_ns: int, address: int, path: bytes) -> None:
        """Say where a process has a library mapped: what the library's addresses count from."""
        self.event(pid, pid, NR_MODULE, t_ns, 0, 0, (address & _U64, 0, 0, 0, 0, 0), path)

    def lost(self, pid: int, t_ns: int, n: int) -> None:
        """Say that n events could not be kept."""
        self.event(pid, pid, NR_LOST, t_ns, 0, 0, (n, 0, 0, 0, 0, 0))

    def exit(self, pid: int, t_ns: int, status: int) -> None:
        """Say how a process ended, as wait(2) tells it."""
        self.event(pid, pid, NR_EXIT, t_ns, 0, 0, (status & _U64, 0, 0, 0, 0, 0))

    def flush(self) -> None:
        """Hand everything to the kernel; raises OSError."""
        if self._parts:
            data = memoryview(b"".join(self._parts))
            self._parts, self._size = [], 0
            while data:
                data = data[self._file.write(data) :]

    def close(self) -> None:
        """Flush and close."""
        if not self._file.closed:
            self.flush()
            self._file.close()


def _records(mapped: mmap.mmap) -> tuple[Ints, Ints]:
    """Return offset and length of every whole record's contents."""
    end = len(mapped)
    at: list[int] = []
    lengths: list[int] = []
    position = 0
    add_at, add_length = at.append, lengths.append
    with memoryview(mapped)[: end // 4 * 4] as view, view.cast("I") as words:
        while position + 8 <= end:
            head = words[position >> 2]
            length = head & LENGTH
            if not length or position + 8 + length > end:
                break  # the writer was killed here
            if not head & (BUSY | DISCARD):
                add_at(position + 8)
                add_length(length)
            position += (length + 15) & ~7
    return np.array(at, np.int64), np.array(lengths, np.int64)


def _segments(pid: Ints, is_process: Bytes) -> Ints:
    """Number, for each record, of its process's image; both arrays by record."""
    order = np.argsort(pid, kind="stable")
    begun = np.cumsum(is_process[order])
    new_pid = np.r_[True, np.diff(pid[order]) != 0]
    before = np.maximum.accumulate(np.where(new_pid, begun - is_process[order], 0))
    segment = np.empty(len(pid), np.int64)
    segment[order] = begun - before
    return segment


def read_stream(path: Path, to_ticks: tuple[int, int, float] | None = None) -> RawTrace:
    """Read a stream as files of threads; raises OSError.

    `to_ticks` says how times become the ticks of another trace that this one is to be merged with:
    a reading of its clock, the ns at that moment, and ns per tick.
    """
    if not path.stat().st_size:
        return RawTrace([], [])
    with path.open("rb") as file:
        # Private: times may be converted in place.
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    data: Bytes = np.frombuffer(mapped, np.uint8)
    at, length = _records(mapped)
    enough = length >= _FIXED
    at, length = at[enough] + 8, length[enough]
    events = gather(data, at, EVENT)
    payload = events["path_len"].astype(np.int64) + events["path2_len"] + events["out_len"]
    whole = (payload + _FIXED <= length) & (events["tsc"] <= MAX_TIME) & (events["dur"] <= MAX_TIME)
    lost = int(events["args"][events["nr"] == NR_LOST, 0].sum()) + int((~whole).sum())
    ends = np.flatnonzero(whole & (events["nr"] == NR_EXIT))
    ended = gather(data, at[ends] - 8, _WHO)["pid"].tolist()
    exits = dict(zip(ended, events["args"][ends, 0].tolist(), strict=True))
    keep = whole & (events["nr"] != NR_LOST) & (events["nr"] != NR_EXIT)
    at, events = at[keep], events[keep]
    if to_ticks:
        tick, ns, rate = to_ticks
        times = np.rint((events["tsc"].astype(np.int64) - ns) / rate).astype(np.int64) + tick
        events["tsc"] = np.maximum(times, 0)
        events["dur"] = np.rint(events["dur"] / rate)
        words = data[: len(data) // 8 * 8].view("<u8")
        words[at // 8], words[at // 8 + 1] = events["tsc"], events["dur"]
    who = gather(data, at - 8, _WHO)
    files = _files(path, mapped, data, at, events, who, to_ticks)
    return RawTrace(files, [], lost, exits)


def _files(
    path: Path,
    mapped: mmap.mmap,
    data: Bytes,
    at: Ints,
    events: np.ndarray[tuple[int], np.dtype[np.void]],
    who: np.ndarray[tuple[int], np.dtype[np.void]],
    to_ticks: tuple[int, int, float] | None,
) -> list[RawFile]:
    if not len(at):
        return []
    pid = who["pid"].astype(np.int64)
    announces = events["nr"] == NR_PROCESS
    told = zip(pid[announces].tolist(), events["args"][announces, 0].tolist(), strict=True)
    parents = {child: ppid for child, ppid in told if ppid}
    segment = _segments(pid, announces)
    key = np.stack([pid, who["tid"].astype(np.int64), segment])
    order = np.lexsort(key[::-1])
    starts = np.flatnonzero(np.r_[True, (np.diff(key[:, order]) != 0).any(axis=0)])
    tick, ns, rate = to_ticks or (0, 0, 1.0)
    files = []
    for rows in np.split(order, starts[1:]):
        tsc = events["tsc"][rows]
        first, last = int(tsc.min()), int((tsc + events["dur"][rows]).max())
        files.append(
            RawFile(
                name=path.name,
                mapped=mapped,
                data=data,
                pid=int(pid[rows[0]]),
                tid=int(who["tid"][rows[0]]),
                ppid=int(parents.get(int(pid[rows[0]]), 0)),
                start_tsc=first,
                start_ns=round((first - tick) * rate) + ns,
                now_tsc=last,
                now_ns=round((last - tick) * rate) + ns,
                realtime_ns=0,
                lost_events=0,
                at=at[rows],
                heap=at[rows] + EVENT.itemsize,
                tsc=tsc,
                nr=events["nr"][rows],
            )
        )
    files.sort(key=lambda f: (f.start_tsc, f.tid != f.pid))
    return files


def merge(first: RawTrace, second: RawTrace) -> RawTrace:
    """Join two traces of one clock."""
    files = sorted(first.files + second.files, key=lambda f: f.start_tsc)
    lost = first.lost_elsewhere + second.lost_elsewhere
    return RawTrace(files, first.broken + second.broken, lost, first.exits | second.exits)
