# SPDX-License-Identifier: MIT
"""Reader of the shim's raw trace files; kmod/uapi/cosy_trace.h is the format.

Nothing in a raw file is trusted: its thread may have been killed at any
instruction, its disk may have been full, another program may have written it.
What is not whole is left out and, where it can be told, counted as lost.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

MAGIC = b"COSYRAW\x01"
PAGE = 4096
MAX_LIVE_SIZE = 1 << 26
MAX_TIME = 1 << 61  # TSC ticks or ns: centuries

DONE = 0x1
NO_RETURN = 0x2
CUT = 0x4
RAW_DIRENTS = 0x8  # out holds getdents64's buffer as it was, not the hashes of its names

NR_PROCESS = 0xFFF1
NR_MODULE = 0xFFF2
NR_LOST = 0xFFF3  # args[0]: that many events were lost
NR_EXIT = 0xFFF4  # args[0]: wait status of the process

HEADER = np.dtype(
    [
        ("magic", "S8"),
        ("flags", "<u4"),
        ("live_size", "<u4"),
        ("live_heap", "<u4"),
        ("pid", "<u4"),
        ("tid", "<u4"),
        ("ppid", "<u4"),
        ("start_tsc", "<u8"),
        ("start_ns", "<u8"),
        ("now_tsc", "<u8"),
        ("now_ns", "<u8"),
        ("realtime_ns", "<i8"),
        ("lost_events", "<u8"),
        ("flushed_bytes", "<u8"),
    ]
)
BLOCK = np.dtype([("seq", "<u8"), ("n_events", "<u4"), ("heap_bytes", "<u4")])
EVENT = np.dtype(
    [
        ("tsc", "<u8"),
        ("dur", "<u8"),
        ("ret", "<i8"),
        ("args", "<u8", (6,)),
        ("site", "<u8"),
        ("nr", "<u2"),
        ("flags", "<u2"),
        ("heap", "<u4"),
        ("path_len", "<u2"),
        ("path2_len", "<u2"),
        ("out_len", "<u4"),
    ]
)
ARGS_AT = 24
OUT_STAT = np.dtype(
    [("dev", "<u8"), ("ino", "<u8"), ("size", "<u8"), ("mode", "<u4"), ("nlink", "<u4")]
)
assert (EVENT.itemsize, BLOCK.itemsize, OUT_STAT.itemsize) == (96, 16, 32)

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]

_NAME = re.compile(r"(\d+)\.(\d+)\.([0-9a-f]{16})\.raw")


class RawError(Exception):
    """A file is no raw trace file at all; the message names it."""


@dataclass
class RawFile:
    """One thread's file within one program image, as far as it is whole.

    `at` holds the file offset of each whole event, `heap` that of its payload
    (path, path2, out, one behind the other), both in the order of writing.
    """

    name: str
    mapped: mmap.mmap
    data: Bytes
    """The same bytes as an array."""
    pid: int
    tid: int
    ppid: int
    start_tsc: int
    start_ns: int
    now_tsc: int
    now_ns: int
    realtime_ns: int
    lost_events: int
    at: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    heap: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    tsc: npt.NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    nr: npt.NDArray[np.uint16] = field(default_factory=lambda: np.empty(0, np.uint16))

    def events(self, which: npt.NDArray[np.intp] | slice) -> npt.NDArray[np.void]:
        """Return these events as an array of EVENT."""
        return gather(self.data, self.at[which], EVENT)


def gather(data: Bytes, at: Ints, dtype: np.dtype[np.void]) -> npt.NDArray[np.void]:
    """Return the structures at the (unaligned) offsets `at` of `data`."""
    if not len(at):
        return np.empty(0, dtype)
    rows = np.lib.stride_tricks.sliding_window_view(data, dtype.itemsize)[at]
    return np.ascontiguousarray(rows).view(dtype).reshape(-1)


@dataclass
class _Block:
    seq: int
    at: Ints
    heap: Ints
    tsc: npt.NDArray[np.uint64]
    nr: npt.NDArray[np.uint16]
    lost: int

    def keep(self, which: npt.NDArray[np.bool_]) -> None:
        """Leave out the other events."""
        self.at, self.heap = self.at[which], self.heap[which]
        self.tsc, self.nr = self.tsc[which], self.nr[which]


def _read_block(data: Bytes, at: int, events_end: int, heap_at: int | None) -> _Block | None:
    """Read a block at offset `at`, or None where there is none.

    Events must end by `events_end`. The heap lies at `heap_at`, or directly
    behind the events when that is None.
    """
    if at + BLOCK.itemsize > len(data):
        return None
    head = data[at : at + BLOCK.itemsize].view(BLOCK)[0]
    first = at + BLOCK.itemsize
    claimed = int(head["n_events"])
    n = min(claimed, max(0, min(events_end, len(data)) - first) // EVENT.itemsize)
    heap_base = first + claimed * EVENT.itemsize if heap_at is None else heap_at
    heap_end = min(heap_base + int(head["heap_bytes"]), len(data))
    events = data[first : first + n * EVENT.itemsize].view(EVENT)
    heap = heap_base + events["heap"].astype(np.int64)
    size = events["path_len"].astype(np.int64) + events["path2_len"] + events["out_len"]
    begun = events["tsc"] != 0
    whole = (events["flags"] & DONE).astype(bool) & ((heap + size <= heap_end) | (size == 0))
    whole &= (events["tsc"] <= MAX_TIME) & (events["dur"] <= MAX_TIME)
    offsets = first + np.arange(n, dtype=np.int64) * EVENT.itemsize
    lost = int((begun & ~whole).sum())
    block = _Block(int(head["seq"]), offsets, heap, events["tsc"], events["nr"], lost)
    block.keep(whole)
    return block


def _blocks(data: Bytes, live_size: int, live_heap: int, flushed: int) -> Iterator[_Block]:
    flushed_at = PAGE + live_size
    end = min(len(data), flushed_at + flushed)
    at = flushed_at
    last: _Block | None = None
    while at + BLOCK.itemsize <= end:
        head = data[at : at + BLOCK.itemsize].view(BLOCK)[0]
        block = _read_block(data, at, end, None)
        if block is None or (last and block.seq <= last.seq):
            break
        yield block
        last = block
        at += BLOCK.itemsize + int(head["n_events"]) * EVENT.itemsize + int(head["heap_bytes"])
    live = _read_block(data, PAGE, PAGE + live_heap, PAGE + live_heap)
    if live is None:
        return
    if last:
        # A slot that was taken but not yet written still holds an event of the last block.
        live.keep(~np.isin(live.tsc, last.tsc))
        if live.seq <= last.seq:
            return  # flushed, but killed before it was reset
    yield live


def read_file(path: Path) -> RawFile:
    """Read one raw file; raises RawError when it is none, OSError when it cannot be read."""
    name = _NAME.fullmatch(path.name)
    if path.stat().st_size < PAGE:
        raise RawError(f"{path}: shorter than its header")
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    data: Bytes = np.frombuffer(mapped, np.uint8)
    h = data[: HEADER.itemsize].view(HEADER)[0]
    live_size, live_heap = int(h["live_size"]), int(h["live_heap"])
    if h["magic"] != MAGIC:
        raise RawError(f"{path}: not a raw trace file")
    if not BLOCK.itemsize <= live_heap <= live_size <= MAX_LIVE_SIZE:
        raise RawError(f"{path}: sizes in its header make no sense")
    if max(int(h[name]) for name in ("start_tsc", "start_ns", "now_tsc", "now_ns")) > MAX_TIME:
        raise RawError(f"{path}: times in its header make no sense")
    raw = RawFile(
        name=name.group(0) if name else path.name,
        mapped=mapped,
        data=data,
        pid=int(h["pid"]),
        tid=int(h["tid"]),
        ppid=int(h["ppid"]),
        start_tsc=int(h["start_tsc"]),
        start_ns=int(h["start_ns"]),
        now_tsc=int(h["now_tsc"]),
        now_ns=int(h["now_ns"]),
        realtime_ns=int(h["realtime_ns"]),
        lost_events=int(h["lost_events"]),
    )
    blocks = list(_blocks(data, live_size, live_heap, int(h["flushed_bytes"])))
    if blocks:
        raw.at = np.concatenate([b.at for b in blocks])
        raw.heap = np.concatenate([b.heap for b in blocks])
        raw.tsc = np.concatenate([b.tsc for b in blocks])
        raw.nr = np.concatenate([b.nr for b in blocks])
        raw.lost_events += sum(b.lost for b in blocks)
    return raw


@dataclass
class Chunk:
    """Some events of all files, in the order of time; arrays run in parallel."""

    events: npt.NDArray[np.void]
    """EVENT; its `heap` is not to be used."""
    file: npt.NDArray[np.int32]
    """Index into RawTrace.files."""
    heap: Ints
    """Offset of the payload in that file."""
    t_ns: Ints
    dur_ns: Ints
    trace: RawTrace

    def payload(self, at: Ints, size: Ints) -> tuple[Bytes, Ints]:
        """Return the payload bytes [at, at + size) of every event, joined, and their ends.

        `at` is relative to the start of the event's payload; the ends start
        with 0, so that event i has bytes ends[i]:ends[i + 1].
        """
        ends = np.zeros(len(size) + 1, np.int64)
        np.cumsum(size, out=ends[1:])
        rows = np.flatnonzero(size)
        first = self.heap[rows] + at[rows]
        maps = [file.mapped for file in self.trace.files]
        # Slices of bytes: five times as fast as gathering single bytes by their positions.
        parts = zip(
            self.file[rows].tolist(), first.tolist(), (first + size[rows]).tolist(), strict=True
        )
        joined = b"".join([maps[file][begin:end] for file, begin, end in parts])
        return np.frombuffer(joined, np.uint8), ends

    def texts(self) -> list[bytes]:
        """Return the path of every event."""
        joined, ends = self.payload(
            np.zeros(len(self.heap), np.int64), self.events["path_len"].astype(np.int64)
        )
        whole, bounds = joined.tobytes(), ends.tolist()
        return [whole[begin:end] for begin, end in pairwise(bounds)]

    def text(self, row: int, second: bool = False) -> bytes:
        """Return the path (or the second path) of one event."""
        event = self.events[row]
        at = int(self.heap[row]) + (int(event["path_len"]) if second else 0)
        size = int(event["path2_len"] if second else event["path_len"])
        return bytes(self.trace.files[self.file[row]].mapped[at : at + size])

    def out(self, row: int) -> bytes:
        """Return what the call of one event returned, as far as it was kept."""
        event = self.events[row]
        at = int(self.heap[row]) + int(event["path_len"]) + int(event["path2_len"])
        return bytes(self.trace.files[self.file[row]].mapped[at : at + int(event["out_len"])])


@dataclass
class RawTrace:
    """All files of a trace folder, and the order of their events."""

    files: list[RawFile]
    broken: list[str]
    """Files that could not be read, a line each."""
    lost_elsewhere: int = 0
    """Events that were lost before they came into a file."""
    exits: dict[int, int] = field(default_factory=dict)
    """Wait status of processes, where a backend saw them end."""
    adopted: list[bytes] = field(default_factory=list)
    """Programs that another backend had to record."""

    @cached_property
    def order(self) -> npt.NDArray[np.intp]:
        """Positions, in the joined files, of all events by time of entry."""
        if not self.files:
            return np.empty(0, np.intp)
        return np.argsort(np.concatenate([f.tsc for f in self.files]), kind="stable")

    @cached_property
    def nr(self) -> npt.NDArray[np.uint16]:
        """Call numbers of the events in `order`."""
        if not self.files:
            return np.empty(0, np.uint16)
        return np.concatenate([f.nr for f in self.files])[self.order]

    @cached_property
    def calls(self) -> npt.NDArray[np.intp]:
        """The part of `order` that is system calls."""
        return self.order[self.nr < NR_PROCESS]

    @cached_property
    def _row(self) -> Ints:
        """Row among `calls` of each event in `order`."""
        return np.cumsum(self.nr < NR_PROCESS) - 1

    def positions(self, nrs: set[int]) -> npt.NDArray[np.intp]:
        """Return where in `order` the events with one of these call numbers are."""
        wanted = np.zeros(1 << 16, np.bool_)
        wanted[sorted(nrs)] = True
        return np.flatnonzero(wanted[self.nr])

    def rows(self, nrs: set[int]) -> Ints:
        """Return where in `calls` the calls with one of these numbers are."""
        return self._row[self.positions(nrs)]

    def select(self, nrs: set[int]) -> Chunk:
        """Return all events with one of these call numbers, by time."""
        return self.chunk(self.order[self.positions(nrs)])

    @cached_property
    def _first(self) -> Ints:
        """Position of each file's first event in the joined files."""
        ends = np.cumsum([len(f.at) for f in self.files])
        return np.concatenate([[0], ends]).astype(np.int64)

    @property
    def lost_events(self) -> int:
        """How many events are known not to be here."""
        return sum(f.lost_events for f in self.files) + self.lost_elsewhere

    @cached_property
    def clock(self) -> tuple[int, int, float]:
        """A TSC reading, CLOCK_MONOTONIC at that moment, and ns per tick.

        One line through the two readings that lie farthest apart serves all
        files: the TSC is the same on every CPU of the machines we run on.
        """
        if not self.files:
            return 0, 0, 1.0
        first = min(self.files, key=lambda f: f.start_tsc)
        last = max(self.files, key=lambda f: max(f.now_tsc, f.start_tsc))
        tsc, ns = max((last.now_tsc, last.now_ns), (last.start_tsc, last.start_ns))
        if tsc > first.start_tsc and ns > first.start_ns:
            rate = (ns - first.start_ns) / (tsc - first.start_tsc)
        else:
            rate = 1000 / _cpu_mhz()
        return first.start_tsc, first.start_ns, rate

    def to_ns(self, tsc: npt.NDArray[np.uint64]) -> Ints:
        """Convert time stamps to ns of CLOCK_MONOTONIC."""
        zero, ns, rate = self.clock
        ticks = tsc.astype(np.int64) - zero
        ticked: Ints = np.rint(ticks * rate).astype(np.int64)
        return ticked + ns

    def ticks_to_ns(self, ticks: npt.NDArray[np.uint64]) -> Ints:
        """Convert a number of ticks to ns."""
        ns: Ints = np.rint(ticks * self.clock[2]).astype(np.int64)
        return ns

    def __len__(self) -> int:
        return int(self._first[-1])

    def chunk(self, which: npt.NDArray[np.intp]) -> Chunk:
        """Return the events at these positions of the joined files, in this order."""
        file = self.file_of(which)
        heap = np.empty(len(which), np.int64)
        # Bytes: assigning structures would go field by field, which takes four times as long.
        rows_of = np.empty((len(which), EVENT.itemsize), np.uint8)
        for index, rows in self.by_file(file):
            within = which[rows] - self._first[index]
            found = self.files[index]
            rows_of[rows] = (
                gather(found.data, found.at[within], EVENT)
                .view(np.uint8)
                .reshape(-1, EVENT.itemsize)
            )
            heap[rows] = found.heap[within]
        events = rows_of.view(EVENT).reshape(-1)
        return Chunk(
            events, file, heap, self.to_ns(events["tsc"]), self.ticks_to_ns(events["dur"]), self
        )

    def file_of(self, which: npt.NDArray[np.intp]) -> npt.NDArray[np.int32]:
        """Return in which file the events at these positions of the joined files are."""
        return (np.searchsorted(self._first, which, side="right") - 1).astype(np.int32)

    def by_file(
        self, file: npt.NDArray[np.int32]
    ) -> Iterator[tuple[int, npt.NDArray[np.intp] | slice]]:
        """Yield each file that occurs, and where it does."""
        if len(file) and file.min() == file.max():
            yield int(file[0]), slice(None)
            return
        order = np.argsort(file, kind="stable")
        starts = np.flatnonzero(np.diff(file[order], prepend=-1))
        for rows in np.split(order, starts[1:]) if len(file) else []:
            yield int(file[rows[0]]), rows

    def words(self, which: npt.NDArray[np.intp], at: Ints) -> npt.NDArray[np.uint64]:
        """Return the 8 bytes at offset `at` of each of these events: much less than all of them."""
        result = np.empty(len(which), np.uint64)
        for index, rows in self.by_file(self.file_of(which)):
            found = self.files[index]
            places = found.at[which[rows] - self._first[index]] + at[rows]
            windows = np.lib.stride_tricks.sliding_window_view(found.data, 8)
            result[rows] = windows[places].view("<u8").reshape(-1)
        return result

    def chunks(self, size: int) -> Iterator[Chunk]:
        """Yield all system calls in the order of time, `size` at a time."""
        for start in range(0, len(self.calls), size):
            yield self.chunk(self.calls[start : start + size])


def _cpu_mhz() -> float:
    """Return the processor's clock rate, for a trace whose only thread was killed early."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("cpu MHz"):
            return float(line.split(":")[1])
    return 1000.0


def read_folder(folder: Path) -> RawTrace:
    """Read every raw file of a folder; files that are broken are named in the result."""
    files: list[RawFile] = []
    broken: list[str] = []
    for path in sorted(folder.glob("*.raw")):
        try:
            files.append(read_file(path))
        except (OSError, RawError) as error:
            broken.append(str(error))
    files.sort(key=lambda f: f.start_tsc)
    return RawTrace(files, broken)
