# SPDX-License-Identifier: MIT
"""Raw events (kmod/uapi/cosy_trace.h) as columns.

Everything between a backend's records and the dataset works on a `Chunk`: some events, an array for
each of their fields. Nothing loops over single events in Python; 96-byte records are turned into
columns a block at a time, while they are in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from tracer import compiled

DONE = 0x1
NO_RETURN = 0x2
CUT = 0x4
RAW_DIRENTS = 0x8  # out holds getdents64's buffer as it was, not the hashes of its names

NR_PROCESS = 0xFFF1
NR_MODULE = 0xFFF2
NR_LOST = 0xFFF3  # args[0]: that many events were lost
NR_EXIT = 0xFFF4  # a task has ended; of a process: status, user ns, system ns, which are known
KNOWS_STATUS, KNOWS_CPU = 1, 2  # args[3] of the latter
ALL_NRS = 1 << 16

MAX_TIME = 1 << 61  # TSC ticks or ns: centuries

EVENT_BYTES = 96
EVENT_WORDS = EVENT_BYTES // 8
ROW_GAP = 24  # words between rows: apart by no power of two, each goes to another set of a cache
# By words of 8 bytes; the last two hold nr, flags, heap and path_len, path2_len, out_len.
_TSC, _DUR, _RET, _ARGS, _SITE, _WHAT, _SIZES = 0, 1, 2, 3, 9, 10, 11
FIRST_ARG = _ARGS
TELLING = (_TSC, _DUR, _WHAT, _SIZES)  # what tells whether an event is whole, and of which kind
OUT_STAT = np.dtype(
    [("dev", "<u8"), ("ino", "<u8"), ("size", "<u8"), ("mode", "<u4"), ("nlink", "<u4")]
)

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.intp]


def cut(data: Bytes, first: Ints, size: Ints) -> Bytes:
    """Return the parts [first, first + size) of `data`, joined.

    The parts and the gaps between them make one array of strings, of which arrow takes the parts:
    10 ns each instead of the 200 ns of a slice.
    """
    import pyarrow as pa  # not needed to record, and slow to load

    from tracer.columns import binary, column

    if not len(first):
        return np.empty(0, np.uint8)
    wanted = np.arange(0, 2 * len(first), 2)
    bounds = np.stack([first, first + size], axis=1)
    if (np.diff(bounds.reshape(-1)) < 0).any():
        order = np.argsort(first, kind="stable")
        bounds, wanted[order] = bounds[order], wanted.copy()
        if (np.diff(bounds.reshape(-1)) < 0).any():  # they overlap: not as any writer would do it
            pairs = bounds[wanted // 2].tolist()
            return np.concatenate([data[begin:end] for begin, end in pairs])
    parts = binary(data, bounds.reshape(-1)).take(column(wanted, pa.int64()))
    return np.frombuffer(parts.buffers()[2], np.uint8, int(size.sum()))


@dataclass
class Chunk:
    """Some events; arrays run in parallel."""

    words: Words
    """Row k: the k-th 8 bytes of each event."""
    thread: npt.NDArray[np.int32]
    """Which thread of the trace (or of the source) each is of."""
    at: Ints
    """Where its payload begins in `heap`: path, path2 and out, one behind the other."""
    heap: Bytes

    def __len__(self) -> int:
        return len(self.thread)

    @property
    def tsc(self) -> Words:
        """Times of entry, in ticks of the trace's clock."""
        found: Words = self.words[_TSC]
        return found

    @property
    def dur(self) -> Words:
        """Ticks inside the calls."""
        found: Words = self.words[_DUR]
        return found

    @property
    def ret(self) -> Ints:
        """Results; -errno on failure."""
        found: Ints = self.words[_RET].view(np.int64)
        return found

    @property
    def args(self) -> Words:
        """Row i: the argument i of every call."""
        found: Words = self.words[_ARGS:_SITE]
        return found

    @property
    def site(self) -> Words:
        """Addresses behind the system call instructions."""
        found: Words = self.words[_SITE]
        return found

    @cached_property
    def nr(self) -> npt.NDArray[np.uint16]:
        """Call numbers."""
        return np.ascontiguousarray(self.words[_WHAT].view("<u2")[::4])

    @cached_property
    def flags(self) -> npt.NDArray[np.uint16]:
        """DONE, NO_RETURN, ..."""
        return np.ascontiguousarray(self.words[_WHAT].view("<u2")[1::4])

    @cached_property
    def returned(self) -> Mask:
        """Whether `ret` is known."""
        found: Mask = (self.flags & NO_RETURN) == 0
        return found

    @property
    def place(self) -> Ints:
        """The payload's place as the writer gave it, from the start of its block's heap."""
        found: Ints = self.words[_WHAT].view("<u4")[1::2].astype(np.int64)
        return found

    @cached_property
    def path_len(self) -> Ints:
        """Length of the first string, bytes."""
        found: Ints = self.words[_SIZES].view("<u2")[::4].astype(np.int64)
        return found

    @cached_property
    def path2_len(self) -> Ints:
        """Length of the second string, bytes."""
        found: Ints = self.words[_SIZES].view("<u2")[1::4].astype(np.int64)
        return found

    @cached_property
    def out_len(self) -> Ints:
        """Length of what is kept of the result, bytes."""
        found: Ints = self.words[_SIZES].view("<u4")[1::2].astype(np.int64)
        return found

    @property
    def size(self) -> Ints:
        """Length of the payloads."""
        return self.path_len + self.path2_len + self.out_len

    def payload(self, at: Ints, size: Ints) -> tuple[Bytes, Ints]:
        """Return the payload bytes [at, at + size) of every event, joined, and their ends.

        `at` is relative to the start of the event's payload; the ends start
        with 0, so that event i has bytes ends[i]:ends[i + 1].
        """
        ends = np.zeros(len(size) + 1, np.int64)
        np.cumsum(size, out=ends[1:])
        rows = np.flatnonzero(size)
        return cut(self.heap, self.at[rows] + at[rows], size[rows]), ends

    def texts(self) -> list[bytes]:
        """Return the path of every event."""
        joined, ends = self.payload(np.zeros(len(self), np.int64), self.path_len)
        whole, bounds = joined.tobytes(), ends.tolist()
        return [whole[begin:end] for begin, end in pairwise(bounds)]

    def text(self, row: int, second: bool = False) -> bytes:
        """Return the path (or the second path) of one event."""
        at = int(self.at[row]) + (int(self.path_len[row]) if second else 0)
        size = int(self.path2_len[row] if second else self.path_len[row])
        return self.heap[at : at + size].tobytes()

    def out(self, row: int) -> bytes:
        """Return what the call of one event returned, as far as it was kept."""
        at = int(self.at[row] + self.path_len[row] + self.path2_len[row])
        return self.heap[at : at + int(self.out_len[row])].tobytes()

    def native(self) -> compiled.Chunk:
        """Return what tracer/core/ takes; it points into this one."""
        words = self.words
        assert words.strides[1] == words.itemsize or len(self) < 2
        stride = words.strides[0] // words.itemsize
        thread, at = np.ascontiguousarray(self.thread), np.ascontiguousarray(self.at)
        found = compiled.Chunk(
            len(self), stride, words.ctypes.data, compiled.at(thread), compiled.at(at),
            compiled.at(self.heap), len(self.heap),
        )  # fmt: skip
        found.kept = words, thread, at, self.heap
        return found

    def take(self, rows: Rows | slice) -> Chunk:
        """Return these events; the heap is shared."""
        if isinstance(rows, slice):
            words = self.words[:, rows]
        else:
            words = np.take(self.words, rows, axis=1)
        return Chunk(words, self.thread[rows], self.at[rows], self.heap)

    def of(self, nr: int) -> Chunk:
        """Return the events of this kind."""
        return self.take(np.flatnonzero(self.nr == nr))

    def alone(self) -> Chunk:
        """Return the same events with a heap that holds no others' payloads."""
        heap, ends = self.payload(np.zeros(len(self), np.int64), self.size)
        return Chunk(self.words.copy(), self.thread.copy(), ends[:-1].copy(), heap)


def join(chunks: Sequence[Chunk]) -> Chunk:
    """Return the events of all, in this order."""
    if len(chunks) == 1:
        return chunks[0]
    none = np.empty((EVENT_WORDS, 0), np.uint64)
    starts = np.cumsum([0, *(len(chunk.heap) for chunk in chunks)]).tolist()
    places = [chunk.at + start for chunk, start in zip(chunks, starts, strict=False)]
    return Chunk(
        np.concatenate([none, *(chunk.words for chunk in chunks)], axis=1),
        np.concatenate([np.empty(0, np.int32), *(chunk.thread for chunk in chunks)]),
        np.concatenate([np.empty(0, np.int64), *places]),
        np.concatenate([np.empty(0, np.uint8), *(chunk.heap for chunk in chunks)]),
    )


def by_time(chunk: Chunk) -> Chunk:
    """Return the events in the order of time; at equal times by thread, then as they were."""
    tsc = chunk.tsc
    if (tsc[1:] > tsc[:-1]).all():
        return chunk
    order = np.argsort(tsc, kind="stable")
    if (np.diff(tsc[order]) == 0).any():
        order = np.lexsort((chunk.thread, tsc))
    return chunk.take(order)


def merged(chunks: Sequence[Chunk]) -> Chunk:
    """Return the events of chunks that are in the order of time each, as by_time(join(chunks))."""
    if len(chunks) < 2:
        return join(chunks)
    n = sum(map(len, chunks))
    words = np.empty((EVENT_WORDS, n + ROW_GAP), np.uint64)[:, :n]
    heap = np.empty(sum(len(chunk.heap) for chunk in chunks), np.uint8)
    found = Chunk(words, np.empty(n, np.int32), np.empty(n, np.int64), heap)
    parts = [chunk.native() for chunk in chunks]
    array = (compiled.Chunk * len(parts))(*parts)
    compiled.check(compiled.function("merge")(array, len(parts), found.native()))
    return found
