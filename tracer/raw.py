# SPDX-License-Identifier: MIT
"""Reader of the shim's raw trace files; kmod/uapi/cosy_trace.h is the format.

Nothing in a raw file is trusted: its thread may have been killed at any
instruction, its disk may have been full, another program may have written it.
What is not whole is left out and, where it can be told, counted as lost.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tracer.events import (
    DONE,
    EVENT_BYTES,
    EVENT_WORDS,
    MAX_TIME,
    TELLING,
    Bytes,
    Chunk,
    Ints,
    Mask,
)
from tracer.timeline import RawTrace, Source, Thread, lowest

MAGIC = b"COSYRAW\x02"
PAGE = 4096
RAW = ".raw"
TAKEN = ".taken"  # what a recorder took away from the file of the same name
MAX_LIVE_SIZE = 1 << 26
MAX_SLOTS = 64
SCAN_BLOCKS = 16  # at a time

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
        ("ring_first", "<u8"),
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
        self._data = _mapped(path)
        h = self._data[: HEADER.itemsize].view(HEADER)[0]
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
        found = _row(self._data[: flushed + int(h["flushed_bytes"])], flushed)
        if (taken := path.with_suffix(TAKEN)).exists():
            found += [block for block in _row(_mapped(taken), 0) if not block.cut]
        starts = [PAGE + slot * live_size for slot in range(ring)]
        live = [_block(self._data, at, at + live_heap) for at in starts]
        # One that is flushed or taken may be in its live place still, or partly overwritten there.
        best: dict[int, _Block] = {}
        for block in (*found, *(block for block in live if block and block.n)):
            known = best.get(block.seq)
            if known is None or block.n > known.n:
                best[block.seq] = block
        self._blocks = [best[seq] for seq in sorted(best)]

    def _events(
        self, blocks: Sequence[_Block], which: Sequence[int] = range(EVENT_WORDS)
    ) -> tuple[Chunk, Mask]:
        """Return all that stands in the blocks (these words of it), and what is whole."""
        counts = [block.n for block in blocks]
        words = np.empty((EVENT_WORDS, sum(counts)), np.uint64)
        at = 0
        for block in blocks:
            # A block at a time stays in the cache while its events become columns.
            part = block.data[block.at : block.at + block.n * EVENT_BYTES]
            columns = part.view("<u8").reshape(block.n, EVENT_WORDS).T
            for k in which:
                words[k, at : at + block.n] = columns[k]
            at += block.n
        sizes = np.array([block.heap_bytes for block in blocks], np.int64)
        heaps = [block.data[block.heap_at : block.heap_at + block.heap_bytes] for block in blocks]
        heap = np.concatenate([np.empty(0, np.uint8), *heaps])
        found = Chunk(words, np.zeros(at, np.int32), np.empty(0, np.int64), heap)
        place, size = found.place, found.size
        found.at = place + np.repeat(np.cumsum(sizes) - sizes, counts)
        whole = (found.flags & DONE) != 0
        whole &= (place + size <= np.repeat(sizes, counts)) | (size == 0)
        whole &= (found.tsc <= MAX_TIME) & (found.dur <= MAX_TIME)
        return found, whole

    def scan(self) -> None:
        """Look at every event once, as Source says."""
        lows: list[Ints] = []
        rare: list[Chunk] = []
        for begin in range(0, len(self._blocks), SCAN_BLOCKS):
            blocks = self._blocks[begin : begin + SCAN_BLOCKS]
            found, whole = self._events(blocks, TELLING)
            self.threads[0].lost_events += int(((found.tsc != 0) & ~whole).sum())
            whole &= found.tsc <= self.end_tsc
            lows.append(lowest(found.tsc, whole, [block.n for block in blocks]))
            if len(apart := self._note(found, whole)):
                rare.append(self._events(blocks)[0].take(apart).alone())
        self._noted(lows, [block.n for block in self._blocks], rare)

    def load(self, begin: int, end: int) -> Chunk:
        """Return the events of these blocks."""
        found, whole = self._events(self._blocks[begin:end])
        whole &= found.tsc <= self.end_tsc
        return found if whole.all() else found.take(np.flatnonzero(whole))


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
