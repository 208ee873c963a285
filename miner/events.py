# SPDX-License-Identifier: MIT
"""A piece of a trace dataset as numpy columns: the miner's view of docs/architecture.md's schema.

A piece is a range of rows (`miner/pieces.py` cuts them). In front of its own rows stand those of
the piece before that open something or read a directory: what a call means often hangs on them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from miner import arrow, compiled
from tracer import syscalls
from tracer.compiled import at, check

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

NO_RET = np.iinfo(np.int64).min
"""`Events.ret` where the call does not return or its end was not seen."""

CALL_NUMBERS = 1 << 16
"""Length of a table by call number: `table[nr]` works for whatever a trace holds, numbers below 0
(they count from the end) included."""

COLUMNS = [
    *("t_ns", "dur_ns", "pid", "tid", "nr", "a0", "a1", "a2", "a3", "a4", "a5", "ret", "path"),
    *("path2", "bytes_in", "bytes_out", "object_id", "names", "st_mode", "st_size"),
]

# Time in these is waiting for someone else, not the cost of crossing the boundary.
WAITING_CALLS = frozenset(
    (
        *("wait4", "waitid", "poll", "ppoll", "select", "pselect6", "epoll_wait", "epoll_pwait"),
        *("epoll_pwait2", "futex", "nanosleep", "clock_nanosleep", "pause", "rt_sigsuspend"),
        *("rt_sigtimedwait", "accept", "accept4", "connect", "recvfrom", "recvmsg", "recvmmsg"),
        *("semop", "semtimedop", "msgrcv", "io_getevents", "io_uring_enter", "flock", "vfork"),
    )
)
# So it is in these, on what another process fills.
_WAITING_READS = ("read", "readv", "write", "writev", "splice", "tee")
_FILLED_BY_OTHERS = ("pipe", "socket", "tty")
UNUSUAL = 4
"""Times the median of calls of one number: longer ones waited."""
_SAMPLE_BITS = 17  # about so many events tell the medians
KINDS = ("file", "directory", "pipe", "socket", "tty", "device", "other")


@dataclass(frozen=True)
class Strings:
    """A dictionary-encoded column: `codes` into `array`, -1 for none."""

    codes: Ints
    array: pa.StringArray

    def __getitem__(self, row: int) -> str:
        """The string of a row, empty for none."""
        code = int(self.codes[row])
        return str(self.array[code].as_py()) if code >= 0 else ""

    def texts(self, rows: Ints) -> list[str]:
        """The strings of rows, empty for none."""
        codes = self.codes[rows]
        if not len(self.array):
            return [""] * len(codes)
        found = self.array.take(arrow.numbers(np.maximum(codes, 0))).to_pylist()
        return [text if code >= 0 else "" for text, code in zip(found, codes.tolist(), strict=True)]

    @cached_property
    def nonempty(self) -> Bools:
        """By row: there is a string, and it is not empty."""
        empty = pc.index_in(arrow.strings([""]), value_set=self.array)[0].as_py()
        found: Bools = (self.codes >= 0) & (self.codes != empty)
        return found


@dataclass(frozen=True)
class Process:
    """One program image: a process from its start or exec on."""

    pid: int
    ppid: int
    exe: str
    build_id: str
    argv: list[str]
    cwd: str
    start_ns: int


@dataclass(frozen=True)
class Objects:
    """Open file descriptions and working directories that a piece uses, by number within it."""

    kind: Ints  # into KINDS; one more, for object -1
    path: pa.StringArray  # null: not known
    event: Ints  # row of `Events` that opened it, -1: none of them; one more, for object -1
    opened: Bools  # opened in the trace, be it before the piece; one more, for object -1

    def __len__(self) -> int:
        return len(self.path)

    def are(self, *kinds: str) -> Bools:
        """Which are of one of these kinds; one more, for object -1."""
        table = np.array([kind in kinds for kind in KINDS])
        return table[self.kind]


@dataclass(frozen=True)
class Events:
    """The events of one piece, in the order of their start."""

    t_ns: Ints
    dur_ns: Ints
    pid: Ints
    tid: Ints
    nr: Ints
    args: NDArray[np.uint64]  # shape (events, 6)
    ret: Ints  # NO_RET where unknown
    path: Strings
    path2: Strings
    bytes_in: Ints
    bytes_out: Ints
    names_start: Ints  # into `names`, by event
    names_end: Ints
    names: NDArray[np.uint32]
    st_mode: Ints  # -1 where the call returned no attributes
    st_size: Ints
    object: Ints  # of the first descriptor argument, into `objects`; -1: none
    objects: Objects
    processes: list[Process]
    moves: list[tuple[int, int, str]]  # process, time, working directory from then on
    before: int  # so many rows in front belong to the piece before: they only explain others
    meta: Mapping[str, Any]
    source: str

    def __len__(self) -> int:
        return len(self.t_ns)

    @cached_property
    def own(self) -> Bools:
        """Rows that belong to the piece."""
        return np.arange(len(self)) >= self.before

    @cached_property
    def root(self) -> Ints:
        """The event that opened what each event's first descriptor argument means, or -1."""
        return self.objects.event[self.object]

    @cached_property
    def work_ns(self) -> Ints:
        """Time in each call, 0 for those that wait for someone else."""
        table = syscalls.by_name()
        waiting = np.zeros(CALL_NUMBERS, dtype=bool)
        waiting[[table[name].nr for name in WAITING_CALLS if name in table]] = True
        fed = np.zeros(CALL_NUMBERS, dtype=bool)
        fed[[table[name].nr for name in _WAITING_READS]] = True
        out = self.dur_ns.copy()
        out[waiting[self.nr]] = 0
        rows = np.flatnonzero(fed[self.nr])
        out[rows[self.objects.are(*_FILLED_BY_OTHERS)[self.object[rows]]]] = 0
        return out

    @cached_property
    def usual_ns(self) -> Ints:
        """`work_ns` without what goes beyond UNUSUAL medians of calls of that number.

        That was waiting: for the disk, or for a processor that another program had. Who answers
        the call in another way does not save it.
        """
        sample = slice(None, None, (len(self) >> _SAMPLE_BITS) + 1)
        nr, work_ns = self.nr[sample].copy(), self.work_ns[sample].copy()
        limit = np.full(CALL_NUMBERS, np.iinfo(np.int64).max)
        by_number = np.argsort(nr, kind="stable")
        begin = np.flatnonzero(np.diff(nr[by_number], prepend=-1))
        for rows in np.split(by_number, begin[1:]):
            limit[nr[rows[:1]]] = max(int(UNUSUAL * np.median(work_ns[rows])), 1)
        out: Ints = np.minimum(self.work_ns, limit[self.nr])
        return out

    @cached_property
    def thread(self) -> Ints:
        """Thread that made each call, numbered from 0."""
        return _appearance((self.pid << 32) | self.tid)

    @cached_property
    def told_mode(self) -> Ints:
        """The st_mode that the thread of each event was told last, by it or before, -1: none."""
        thread = _appearance(self.tid)
        number = int(thread.max(initial=-1)) + 1
        out = np.empty(len(self), dtype=np.int64)
        columns = at(thread), number, at(self.st_mode), len(self), at(out)
        check(compiled.function("carry")(*columns))
        return out

    def fd_arg(self, index: int, rows: Ints | slice = slice(None)) -> Ints:
        """Argument `index` of the events as the int that the kernel takes it for."""
        return self.args[:, index][rows].astype(np.uint32).astype(np.int32).astype(np.int64)


def _strings(column: pa.ChunkedArray) -> Strings:
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    if column.num_chunks == 0:
        return Strings(np.zeros(0, np.int64), pa.nulls(0, pa.string()))
    chunks = column.unify_dictionaries().chunks
    codes = np.empty(len(column), dtype=np.int64)
    arrow.fill(codes, [chunk.indices for chunk in chunks], -1)
    return Strings(codes, chunks[0].dictionary)


def _names(column: pa.ChunkedArray) -> tuple[Ints, Ints, NDArray[np.uint32]]:
    column = column.combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks else pa.nulls(0, column.type)
    # Where there is no list it is empty.
    offsets = arrow.integers(column.offsets, 0) if len(column) else np.zeros(1, np.int64)
    return offsets[:-1], offsets[1:], arrow.integers(column.values, 0).astype(np.uint32)


def processes(table: pa.Table) -> list[Process]:
    """The program images of a trace, by start."""
    rows = table.to_pylist()
    rows.sort(key=lambda r: int(r["start_ns"]))
    return [
        Process(
            pid=int(r["pid"]),
            ppid=int(r["ppid"]),
            exe=r["exe"] or "?",
            build_id=r["build_id"] or "",
            argv=[word or "" for word in r["argv"] or []],
            cwd=r["cwd"] or "",
            start_ns=int(r["start_ns"]),
        )
        for r in rows
    ]


def _appearance(key: Ints) -> Ints:
    """Numbers from 0 in the order of appearance; of equal ones in a row only one is hashed."""
    begin = np.append(0, np.flatnonzero(key[1:] != key[:-1]) + 1)[: len(key)]
    codes = arrow.numbers(key[begin]).dictionary_encode()
    out: Ints = np.repeat(arrow.integers(codes.indices, -1), np.diff(begin, append=len(key)))
    return out


def _kinds(column: pa.ChunkedArray) -> Ints:
    """Kinds of objects as indices into KINDS; one that nobody knows is `other`."""
    return arrow.integers(pc.index_in(column, arrow.strings(KINDS)), KINDS.index("other"))


def _objects(table: pa.Table, rows: Ints) -> Objects:
    """The objects of `table`; `rows`: numbers of the piece's rows, rising."""
    event = arrow.integers(table.column("event"), -1)
    opened = event >= 0
    at = np.minimum(np.searchsorted(rows, event), max(len(rows) - 1, 0))
    here = opened & (rows[at] == event) if len(rows) else np.zeros(len(event), bool)
    return Objects(
        kind=np.append(_kinds(table.column("kind")), KINDS.index("other")),
        path=table.column("path").combine_chunks(),
        event=np.append(np.where(here, at, -1), -1),
        opened=np.append(opened, False),
    )


class Opened(NamedTuple):
    """The objects that events name."""

    table: pa.Table  # by rising object_id; some may be missing
    ids: Ints  # all object_ids of the events, rising
    number: Ints  # by event: index into ids, -1: none


def object_numbers(column: pa.ChunkedArray) -> tuple[Ints, Ints]:
    """The object_ids of events, rising, and by event the index of its own, -1: none."""
    id_of = arrow.integers(column, -1)
    highest = int(id_of.max(initial=-1))
    used = np.zeros(highest + 2, dtype=bool)  # the last one is for none
    used[id_of] = True
    ids = np.flatnonzero(used[:-1])
    number = np.full(len(used), -1, dtype=np.int32)
    number[ids] = np.arange(len(ids), dtype=np.int32)
    return ids, number[id_of].astype(np.int64)


def from_columns(
    column: Callable[[str], pa.ChunkedArray],
    rows: Ints,
    before: int,
    objects: Opened,
    images: list[Process],
    moves: list[tuple[int, int, str]],
    meta: Mapping[str, Any],
    source: str,
) -> Events:
    """Events from rows `rows` of a dataset; `column` reads one of COLUMNS, each is asked for once.

    before: rows in front that belong to the piece before.
    """
    start, end, names = _names(column("names"))
    args = np.empty((len(rows), 6), dtype=np.uint64, order="F")  # a column is contiguous
    for i in range(6):
        arrow.fill(args[:, i], column(f"a{i}").chunks, 0)
    known = arrow.integers(objects.table.column("object_id"), -1)
    at = np.searchsorted(known, objects.ids)
    here = np.append(known, -1)[at] == objects.ids
    local = np.append(np.where(here, at, -1), -1)[objects.number]
    return Events(
        t_ns=arrow.integers(column("t_ns"), 0),
        dur_ns=arrow.integers(column("dur_ns"), 0),
        pid=arrow.integers(column("pid"), 0),
        tid=arrow.integers(column("tid"), 0),
        nr=arrow.integers(column("nr"), -1),
        args=args,
        ret=arrow.integers(column("ret"), int(NO_RET)),
        path=_strings(column("path")),
        path2=_strings(column("path2")),
        bytes_in=arrow.integers(column("bytes_in"), 0),
        bytes_out=arrow.integers(column("bytes_out"), 0),
        names_start=start,
        names_end=end,
        names=names,
        st_mode=arrow.integers(column("st_mode"), -1),
        st_size=arrow.integers(column("st_size"), -1),
        object=local,
        objects=_objects(objects.table, rows),
        processes=images,
        moves=moves,
        before=before,
        meta=meta,
        source=source,
    )
