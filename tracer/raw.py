# SPDX-License-Identifier: MIT
"""Reader of the shim's raw trace files; kmod/uapi/cosy_trace.h is the format.

Nothing in a raw file is trusted: its thread may have been killed at any
instruction, its disk may have been full, another program may have written it.
What is not whole is left out and, where it can be told, counted as lost.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tracer import compiled
from tracer.compiled import at
from tracer.events import EVENT_BYTES, EVENT_WORDS, MAX_TIME, ROW_GAP, Bytes, Chunk, Mask
from tracer.timeline import LATEST, RawTrace, Source, Thread, rare_calls, system_calls

MAGIC = b"COSYRAW\x02"
PAGE = 4096
RAW = ".raw"
TAKEN = ".taken"  # what a recorder took away from the file of the same name
MAX_LIVE_SIZE = 1 << 26
MAX_SLOTS = 64

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
        ("slots", "<u4"),
        ("ring", "<u4"),
        ("live", "<u4"),
        ("asked", "<u4"),
        ("filled", "<u8"),
        ("unused", "<u8", 2),
        ("taken", "<u8"),
    ]
)
assert HEADER.itemsize == 136
BLOCK = np.dtype([("seq", "<u8"), ("n_events", "<u4"), ("heap_bytes", "<u4")])
assert BLOCK.itemsize == 16


class RawError(Exception):
    """A file is no raw trace file at all; the message names it."""


@dataclass(frozen=True, slots=True)
class _Block:
    """Where a block's events and their heap are in a file, as far as the file goes."""

    data: Bytes
    seq: int
    at: int
    n: int
    heap_at: int
    heap_bytes: int
    end: int
    """Where the next one begins, if this is a flushed one."""

    @property
    def cut(self) -> bool:
        """Whether the file ends before it."""
        return self.end > len(self.data)


def _block(data: Bytes, at: int, heap_at: int | None = None) -> _Block | None:
    """Find a block at offset `at`, or None where there is none.

    The heap lies at `heap_at`, where the events must end, or directly behind the events.
    """
    if at + BLOCK.itemsize > len(data):
        return None
    seq, claimed, heap_bytes = data[at : at + BLOCK.itemsize].view(BLOCK)[0].item()
    first = at + BLOCK.itemsize
    heap = first + claimed * EVENT_BYTES if heap_at is None else heap_at
    room = min(len(data), heap) - first
    n = min(claimed, max(0, room) // EVENT_BYTES)
    kept = max(0, min(heap_bytes, len(data) - heap))
    return _Block(data, seq, first, n, heap, kept, heap + heap_bytes)


def _mapped(path: Path) -> Bytes:
    """Return what a file holds; raises OSError."""
    if not path.stat().st_size:
        return np.empty(0, np.uint8)
    with path.open("rb") as file:
        return np.frombuffer(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ), np.uint8)


def _row(data: Bytes, at: int) -> list[_Block]:
    """Return the blocks that lie one behind the other."""
    found: list[_Block] = []
    while block := _block(data, at):
        if found and block.seq <= found[-1].seq:
            break
        found.append(block)
        at = block.end
    return found


class RawFile(Source):
    """One thread's file within one program image, as far as it is whole."""

    def __init__(self, path: Path) -> None:
        """Find out where everything is; raises RawError when it is no raw file, or OSError."""
        super().__init__()
        if path.stat().st_size < PAGE:
            raise RawError(f"{path}: shorter than its header")
        data = _mapped(path)
        h = data[: HEADER.itemsize].view(HEADER)[0]
        live_size, live_heap = int(h["live_size"]), int(h["live_heap"])
        if h["magic"] != MAGIC:
            raise RawError(f"{path}: not a raw trace file")
        slots, ring = int(h["slots"]), int(h["ring"])
        fits = BLOCK.itemsize <= live_heap <= live_size <= MAX_LIVE_SIZE
        if not fits or not 1 <= ring <= slots <= MAX_SLOTS:
            raise RawError(f"{path}: sizes in its header make no sense")
        who = {name: int(h[name]) for name in ("pid", "tid", "ppid", "lost_events")}
        times = {name: int(h[name]) for name in ("start_tsc", "start_ns", "now_tsc", "now_ns")}
        if max(times.values()) > MAX_TIME:
            raise RawError(f"{path}: times in its header make no sense")
        self.threads = [Thread(**who, **times)]
        flushed = PAGE + slots * live_size
        found = _row(data[: flushed + int(h["flushed_bytes"])], flushed)
        if (taken := path.with_suffix(TAKEN)).exists():
            found += [block for block in _row(_mapped(taken), 0) if not block.cut]
        starts = [PAGE + slot * live_size for slot in range(ring)]
        live = [_block(data, start, start + live_heap) for start in starts]
        # One that is flushed or taken may be in its live place still, or partly overwritten there.
        best: dict[int, _Block] = {}
        for block in (*found, *(block for block in live if block and block.n)):
            known = best.get(block.seq)
            if known is None or block.n > known.n:
                best[block.seq] = block
        blocks = [best[seq] for seq in sorted(best)]
        self._data = [block.data for block in blocks]  # what the addresses are of
        rows = [(at(b.data) + b.at, b.n, at(b.data) + b.heap_at, b.heap_bytes) for b in blocks]
        self._table = np.array(rows, compiled.BLOCK)

    def scan(self) -> None:
        """Look at every event once, as Source says."""
        first = np.empty(len(self._table), np.int64)
        n_rare = np.empty(len(self._table), np.uint64)
        total = compiled.Scan()
        compiled.function("scan")(
            at(self._table), len(self._table), self.end_tsc, at(rare_calls()), LATEST,
            at(first), at(n_rare), total,
        )  # fmt: skip
        self.threads[0].lost_events += total.lost
        self.threads[0].first_tsc = int(first.min(initial=LATEST))
        rare = [
            self._load(block, block + 1, rare_calls()) for block in np.flatnonzero(n_rare).tolist()
        ]
        self._noted(total.n_calls, first, self._table["n"], [found.alone() for found in rare])

    def load(self, begin: int, end: int) -> Chunk:
        """Return the system calls of these blocks."""
        return self._load(begin, end, system_calls())

    def _load(self, begin: int, end: int, wanted: Mask) -> Chunk:
        """Return the whole events of some blocks that are of the `wanted` kinds, by number."""
        table = self._table[begin:end]
        most = int(table["n"].sum())
        words = np.empty((EVENT_WORDS, most + ROW_GAP), np.uint64)
        places = np.empty(most, np.int64)
        heap = np.empty(int(table["heap_size"].sum()), np.uint8)
        n = compiled.function("load")(
            at(table), len(table), self.end_tsc, at(wanted),
            most + ROW_GAP, at(words), at(places), at(heap),
        )  # fmt: skip
        return Chunk(words[:, :n], np.zeros(n, np.int32), places[:n], heap)


def read_folder(folder: Path, end_ns: int | None = None) -> RawTrace:
    """Read every raw file of a folder; files that are broken are named in the result.

    What came after `end_ns` of CLOCK_MONOTONIC is left out: threads notice late that recording
    has ended.
    """
    files: list[RawFile] = []
    broken: list[str] = []
    for path in sorted(folder.glob(f"*{RAW}")):
        try:
            files.append(RawFile(path))
        except (OSError, RawError) as error:
            broken.append(str(error))
    raw = RawTrace(files, broken)
    for file in files:
        if end_ns is not None:
            file.end_tsc = raw.to_ticks(end_ns)
        file.scan()
    return raw
