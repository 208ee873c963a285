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
from array import array
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from tracer.events import (
    DONE,
    EVENT_BYTES,
    EVENT_WORDS,
    FIRST_ARG,
    KNOWS_CPU,
    KNOWS_STATUS,
    MAX_TIME,
    NR_EXIT,
    NR_LOST,
    NR_MODULE,
    NR_PROCESS,
    TELLING,
    Bytes,
    Chunk,
    Ints,
    Mask,
    Rows,
    Words,
)
from tracer.timeline import BLOCK_EVENTS, End, RawTrace, Source, Thread, rare_calls

SUFFIX = ".stream"
_HEAD = struct.Struct("<IIII")
_EVENT = struct.Struct("<QQq6QQHHIHHI")
FIXED = _HEAD.size - 8 + _EVENT.size  # of a record's length
PAD = [b"\0" * (-n % 8) for n in range(8)]
BUSY, DISCARD = 1 << 31, 1 << 30  # of a ring buffer's record
LENGTH = DISCARD - 1
MAX_PATH = 4096
_U64 = (1 << 64) - 1
_WRITE_AT_BYTES = 1 << 18
_SCAN = 128 * BLOCK_EVENTS  # records at a time
_LOW = np.uint64(0xFFFFFFFF)

assert _EVENT.size == EVENT_BYTES


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
        length = FIXED + sum(sizes)
        self._parts += (
            _HEAD.pack(length, 0, pid, tid),
            _EVENT.pack(t_ns, dur_ns, ret, *args, site, nr, flags, 0, *sizes),
            path,
            path2,
            out,
            PAD[length % 8],
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

    def take(self) -> bytes:
        """Return the records that were not yet handed to the kernel, and forget them."""
        records = b"".join(self._parts)
        self._parts, self._size = [], 0
        return records

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

    def exit(self, pid: int, tid: int, t_ns: int, end: End | None = None) -> None:
        """Say that a thread has ended, or a process, and what is known of it."""
        end = end or End()
        user_ns, system_ns = end.cpu_ns or (0, 0)
        known = KNOWS_STATUS * (end.status is not None) | KNOWS_CPU * (end.cpu_ns is not None)
        args = ((end.status or 0) & _U64, user_ns, system_ns, known, 0, 0)
        self.event(pid, tid, NR_EXIT, t_ns, 0, 0, args)

    def flush(self) -> None:
        """Hand everything to the kernel; raises OSError."""
        if self._parts:
            data = memoryview(self.take())
            while data:
                data = data[self._file.write(data) :]

    def close(self) -> None:
        """Flush and close."""
        if not self._file.closed:
            self.flush()
            self._file.close()


def _records(mapped: mmap.mmap) -> Ints:
    """Return the offset of every whole record's contents."""
    end = len(mapped)
    at = array("q")
    add = at.append
    position = 0
    with memoryview(mapped)[: end // 4 * 4] as view, view.cast("I") as words:
        while position + 8 <= end:
            head = words[position >> 2]
            length = head & LENGTH
            if not length or position + 8 + length > end:
                break  # the writer was killed here
            if length >= FIXED and not head & (BUSY | DISCARD):
                add(position + 8)
            position += (length + 15) & ~7
    return np.frombuffer(at, np.int64) if at else np.empty(0, np.int64)


def _numbered(who: Words, image: Ints) -> tuple[Rows, npt.NDArray[np.int32]]:
    """Number the threads within program images; also returns where each is first."""
    _, whose = np.unique(who, return_inverse=True)
    _, first, found = np.unique(image << 32 | whose, return_index=True, return_inverse=True)
    return first, found.astype(np.int32)


def _widen(spans: list[tuple[int, int]], number: npt.NDArray[np.int32], found: Chunk) -> None:
    """Let the spans of threads hold these events, whose threads are places in `number`."""
    tsc = found.tsc.astype(np.int64)
    low, high = np.full(len(number), np.iinfo(np.int64).max), np.zeros(len(number), np.int64)
    np.minimum.at(low, found.thread, tsc)
    np.maximum.at(high, found.thread, tsc + found.dur.astype(np.int64))
    for i, begin, end in zip(number.tolist(), low.tolist(), high.tolist(), strict=True):
        if i == len(spans):
            spans.append((begin, end))
        else:
            spans[i] = min(spans[i][0], begin), max(spans[i][1], end)


class StreamSource(Source):
    """A stream's records, by threads as the shim would have made a file of each."""

    def __init__(self, path: Path, to_ticks: tuple[int, int, float] | None) -> None:
        """Find every record and look at it; raises OSError."""
        super().__init__()
        self.lost = 0
        self.ends: dict[int, End] = {}
        self.thread_ends: dict[tuple[int, int], int] = {}
        self._to_ticks = to_ticks
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        self._data: Bytes = np.frombuffer(mapped, np.uint8)
        self._words = self._data[: len(self._data) // 8 * 8].view("<u8")
        self._at = _records(mapped)
        self._thread = np.empty(0, np.int32)
        self.scan()

    def _events(self, at: Ints, which: Sequence[int] = range(EVENT_WORDS)) -> tuple[Chunk, Mask]:
        """Return the records at these offsets (these words of them), and which are whole."""
        word = at >> 3
        words = np.empty((EVENT_WORDS, len(at)), np.uint64)
        for k in which:
            words[k] = self._words[word + (1 + k)]
        found = Chunk(words, np.zeros(len(at), np.int32), at + (8 + EVENT_BYTES), self._data)
        length = (self._words[word - 1] & np.uint64(LENGTH)).astype(np.int64)
        whole = found.size + FIXED <= length
        whole &= (found.tsc <= MAX_TIME) & (found.dur <= MAX_TIME)
        if self._to_ticks:
            tick, ns, rate = self._to_ticks
            times = np.rint((found.tsc.astype(np.int64) - ns) / rate).astype(np.int64) + tick
            words[0], words[1] = np.maximum(times, 0), np.rint(found.dur / rate)
        return found, whole

    def scan(self) -> None:
        """Look at every event, as Source says; 40 bytes of memory for each at most, then 12.

        Records are in the order of the calls' ends. A call that lasts long (a shell's wait4) may
        have begun long before all around it, so they are put into the order of starts here: where
        each is, not what it holds.
        """
        announced = self._keep_events()
        parents = {pid: parent for pid, _, parent in announced if parent}
        images = np.sort(np.array([pid << 32 | row for pid, row, _ in announced], np.int64))
        numbers: dict[tuple[int, int], int] = {}
        spans: list[tuple[int, int]] = []
        self._thread = np.empty(len(self._at), np.int32)
        times = np.empty(len(self._at), np.int64)
        rare: list[Chunk] = []
        n_calls = 0
        for begin in range(0, len(self._at), _SCAN):
            rows = slice(begin, begin + _SCAN)
            found, whole = self._events(self._at[rows], TELLING)
            who = self._words[self._at[rows] >> 3]  # tid << 32 | pid
            row = np.arange(begin, begin + len(who))
            image = np.searchsorted(images, (who & _LOW).astype(np.int64) << 32 | row, "right")
            first, found.thread = _numbered(who, image)
            keys = zip(who[first].tolist(), image[first].tolist(), strict=True)
            number = np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int32)
            _widen(spans, number, found)
            found.thread = self._thread[rows] = number[found.thread]
            times[rows] = found.tsc
            n_calls += int((whole & (found.nr < NR_PROCESS)).sum())
            if len(apart := np.flatnonzero(rare_calls()[found.nr] & whole)):
                rare.append(self._events(self._at[rows][apart])[0].alone())
                rare[-1].thread = found.thread[apart]
        rank = self._name(list(numbers), spans, parents)
        if (times[1:] < times[:-1]).any():
            order = np.argsort(times, kind="stable")  # quick where nearly all are in order
            self._at, self._thread = self._at[order], self._thread[order]
            del order
            times.sort(kind="stable")
        self._thread = rank[self._thread]
        low = times[::BLOCK_EVENTS]
        self._noted(n_calls, low, np.full(len(low), BLOCK_EVENTS), rare)
        self.rare.thread = rank[self.rare.thread]

    def _keep_events(self) -> list[tuple[int, int, int]]:
        """Take out what is no event; returns who announced itself: pid, row, parent."""
        announced: list[tuple[int, int, int]] = []
        kept: list[Ints] = []
        n_kept = 0
        for begin in range(0, len(self._at), _SCAN):
            at = self._at[begin : begin + _SCAN]
            found, whole = self._events(at, (*TELLING, FIRST_ARG))
            pid, first = self._words[at >> 3] & _LOW, found.args[0]
            self.lost += int(first[found.nr == NR_LOST].sum()) + int((~whole).sum())
            self._note_ends(at[whole & (found.nr == NR_EXIT)])
            keep = whole & (found.nr != NR_LOST) & (found.nr != NR_EXIT)
            tells = keep & (found.nr == NR_PROCESS)
            row = np.cumsum(keep)[tells] - 1 + n_kept
            columns = (pid[tells], row, first[tells] & _LOW)
            announced += zip(*(column.tolist() for column in columns), strict=True)
            kept.append(at[keep])
            n_kept += len(kept[-1])
        self._at = np.concatenate([np.empty(0, np.int64), *kept])
        return announced

    def _note_ends(self, at: Ints) -> None:
        found, _ = self._events(at)
        tasks = self._words[at >> 3]  # tid << 32 | pid
        who = zip((tasks & _LOW).tolist(), (tasks >> np.uint64(32)).tolist(), strict=True)
        args = zip(*(column.tolist() for column in found.args[:4]), strict=True)
        for (pid, tid), tsc, (status, user, system, known) in zip(
            who, found.tsc.tolist(), args, strict=True
        ):
            self.thread_ends[pid, tid] = tsc
            if known:
                self.ends[pid] = End(
                    status if known & KNOWS_STATUS else None,
                    (user, system) if known & KNOWS_CPU else None,
                )

    def _name(
        self, keys: list[tuple[int, int]], spans: list[tuple[int, int]], parents: dict[int, int]
    ) -> npt.NDArray[np.int32]:
        """Fill in `threads`, by the time of their start; returns the place of each in them."""
        who = [(key & 0xFFFFFFFF, key >> 32) for key, _ in keys]
        # Those that start at the same time: a process's first thread before its others.
        order = sorted(range(len(who)), key=lambda i: (spans[i][0], who[i][0] != who[i][1]))
        for i in order:
            (pid, tid), (begin, end) = who[i], spans[i]
            begin_ns, end_ns = (self._ns(time) for time in (begin, end))
            ppid = parents.get(pid, 0)
            self.threads.append(Thread(pid, tid, ppid, begin, begin_ns, end, end_ns))
        rank = np.empty(len(order), np.int32)
        rank[order] = np.arange(len(order), dtype=np.int32)
        return rank

    def _ns(self, time: int) -> int:
        if not self._to_ticks:
            return time  # as it is: ns since 1970 do not fit a float
        tick, ns, rate = self._to_ticks
        return round((time - tick) * rate) + ns

    def load(self, begin: int, end: int) -> Chunk:
        """Return the system calls of these blocks."""
        rows = slice(begin * BLOCK_EVENTS, end * BLOCK_EVENTS)
        found, _ = self._events(self._at[rows])
        found.thread = self._thread[rows]
        if not (calls := found.nr < NR_PROCESS).all():
            found = found.take(np.flatnonzero(calls))
        return found.alone()


def read_stream(path: Path, to_ticks: tuple[int, int, float] | None = None) -> RawTrace:
    """Read a stream as a trace; raises OSError.

    `to_ticks` says how times become the ticks of another trace that this one is to be merged with:
    a reading of its clock, the ns at that moment, and ns per tick.
    """
    if not path.stat().st_size:
        return RawTrace([], [])
    source = StreamSource(path, to_ticks)
    return RawTrace([source], [], source.lost, source.ends, source.thread_ends)
