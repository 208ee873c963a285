# SPDX-License-Identifier: MIT
"""Cuts traces into pieces that are mined one by one, so that no trace has to fit into memory.

A piece is a run of row groups. Pieces know of each other only what stands in front of their rows:
the opens and directory readings at the end of the one before. An instance that crosses a border
counts in both parts. Traces of up to PIECE_ROWS events are one piece.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from miner import arrow, events
from miner.events import Events, Ints, Process
from miner.joins import is_one
from miner.moves import Change, Move, Moves, changes_of
from miner.order import starts
from tracer import syscalls
from tracer.dataset import Dataset
from tracer.target import DatasetError

PIECE_ROWS = 3 << 20
EXPLAINING_ROWS = 1 << 19  # of the piece before, in which opens and readings are looked for
_ANY_PID = (-(1 << 31), (1 << 31) - 1)


@dataclass(frozen=True)
class Trace:
    """What all pieces of a trace share; small enough to be sent to other machines."""

    source: str
    meta: Mapping[str, Any]
    rows: int
    images: list[Process]
    moves: list[
        Move
    ]  # before the piece, of the processes that it has to do with; `tasks` adds them
    unended: int  # processes whose end the trace does not have
    moves_ns: int | None = None  # until when `moves` are all; None: none are known


@dataclass(frozen=True)
class Piece:
    """Rows `start` to `stop` of a trace; the row groups `groups` hold them, from row `first` on."""

    number: int
    start: int
    stop: int
    groups: tuple[int, ...]
    first: int
    pids: tuple[int, int]  # lowest and highest in these row groups


@contextmanager
def _reading(source: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = (str(error).splitlines() or ["?"])[0]
        raise DatasetError(f"cannot read: {source}: {reason}") from error


def cut(file: pq.ParquetFile, size: int) -> list[Piece]:
    """Pieces of up to `size` rows; row groups stay whole unless they are larger.

    Of a trace that is more than one no piece has much more than half of what is left: so small ones
    come last, and processes end together.
    """
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
    bounds = np.concatenate([[0], np.cumsum(sizes)]).astype(int).tolist()
    found: list[Piece] = []
    group = 0
    while group < len(sizes):
        last = group + 1
        enough = size if bounds[-1] <= size else (bounds[-1] - bounds[group]) // 2
        while last < len(sizes) and bounds[last] - bounds[group] < enough:
            if bounds[last + 1] - bounds[group] > size:
                break
            last += 1
        groups = tuple(range(group, last))
        pids = _pids(file.metadata, groups)
        for start in range(bounds[group], bounds[last], max(size, 1)):
            stop = min(start + size, bounds[last])
            found.append(Piece(len(found), start, stop, groups, bounds[group], pids))
        group = last
    return found or [Piece(0, 0, 0, (), 0, _ANY_PID)]


def _pids(metadata: pq.FileMetaData, groups: tuple[int, ...]) -> tuple[int, int]:
    """The lowest and the highest process number in row groups, from their statistics."""
    column = metadata.schema.names.index("pid")
    statistics = [metadata.row_group(group).column(column).statistics for group in groups]
    if not all(s is not None and s.has_min_max for s in statistics):
        return _ANY_PID
    return min(s.min for s in statistics), max(s.max for s in statistics)


Task = tuple[Trace, Piece, Piece | None]
"""A piece to be mined and the one before it."""


def tasks(trace: Trace, parts: list[Piece]) -> Iterator[Task]:
    """A task for each piece of a trace, with the processes that its events can be about and the
    working directories that they had before.

    Changes of directory are read on the way, of processes only that later pieces have to do with:
    meanwhile others can mine the first pieces.
    """
    dataset = Dataset(trace.source)
    images = np.array([p.pid for p in trace.images], dtype=np.int64)
    moves, found = Moves(trace.images), list[Move]()
    moved = np.zeros(0, dtype=np.int64)
    before: Piece | None = None
    until_ns = None
    with _reading(trace.source):
        staying = _staying(dataset, parts)
    for piece, pids in zip(parts, staying, strict=True):
        known = piece.pids if before is None else piece.pids + before.pids
        low, high = min(known), max(known)
        part = replace(
            trace,
            images=[trace.images[i] for i in np.flatnonzero((images >= low) & (images <= high))],
            moves=[found[i] for i in np.flatnonzero((moved >= low) & (moved <= high))],
            moves_ns=until_ns,
        )
        yield part, piece, before
        if piece is not parts[-1]:
            with _reading(trace.source):
                until_ns, changes = _directory_changes(dataset, trace.source, piece, pids)
            new = moves.until(until_ns, changes)
            found += new
            moved = np.append(moved, np.array([pid for pid, _, _ in new], dtype=np.int64))
        before = piece


def _staying(dataset: Dataset, parts: list[Piece]) -> list[Ints]:
    """Of each piece the processes that its last rows or later pieces have to do with."""
    later = np.zeros(0, dtype=np.int64)
    out = []
    for piece in reversed(parts):
        last = np.zeros(0, dtype=np.int64)
        first = piece.first
        mine = [later]
        for group in piece.groups if len(parts) > 1 else ():
            pids = arrow.integers(_read_column(dataset.events_file, group, "pid"), -1)
            here = slice(max(piece.start - first, 0), max(piece.stop - first, 0))
            behind = max(piece.stop - EXPLAINING_ROWS - first, here.start)
            mine.append(_distinct(pids[here]))
            last = np.union1d(last, _distinct(pids[behind : here.stop]))
            first += len(pids)
        out.append(np.union1d(last, later))
        later = np.unique(np.concatenate(mine))
    return out[::-1]


def _distinct(values: Ints) -> Ints:
    return np.unique(values[starts(values)])


def open_trace(source: str | Path, size: int = PIECE_ROWS) -> tuple[Trace, list[Piece]]:
    """The trace and its pieces; raises `tracer.target.DatasetError` when `source` is none."""
    dataset = Dataset(source)
    with _reading(str(source)):
        table = dataset.processes()
        trace = Trace(
            source=str(source),
            meta=dataset.meta,
            rows=len(dataset),
            images=events.processes(table),
            moves=[],
            unended=_unended(table),
        )
        return trace, cut(dataset.events_file, size)


def _unended(processes: pa.Table) -> int:
    """Processes whose end the trace does not have; an image that another one replaced ended."""
    last: dict[int, tuple[int, object]] = {}
    for row in processes.select(["pid", "start_ns", "exit"]).to_pylist():
        if row["pid"] not in last or last[row["pid"]][0] <= row["start_ns"]:
            last[row["pid"]] = row["start_ns"], row["exit"]
    return sum(ended is None for _, ended in last.values())


def _directory_changes(
    dataset: Dataset, source: str, piece: Piece, pids: Ints
) -> tuple[int, list[Change]]:
    """When the last call of a piece began, and the changes of directory in it by these processes
    (rising numbers)."""
    found: list[tuple[int, int, bool, int, str | None]] = []
    first = piece.first
    time_ns = 0
    for group in piece.groups:
        read = partial(_read_column, dataset.events_file, group)
        nr = arrow.integers(read("nr"), -1)
        here = slice(max(piece.start - first, 0), max(piece.stop - first, 0))
        at = np.flatnonzero(is_one(nr[here], "chdir", "fchdir")) + here.start
        if len(at):
            at = at[np.isin(arrow.integers(read("pid"), -1)[at], pids)]
        if len(at):
            at = at[arrow.integers(read("ret"), -1)[at] == 0]
            # The few strings that are left, without the dictionary of all.
            text = pc.cast(read("path").take(arrow.numbers(at)), pa.string()).to_pylist()
            names = ("t_ns", "dur_ns", "pid", "object_id")
            t_ns, dur_ns, pid, ids = (arrow.integers(read(name), -1)[at] for name in names)
            by_fd = is_one(nr[at], "fchdir")
            columns = (column.tolist() for column in (t_ns + dur_ns, pid, by_fd, ids))
            found += zip(*columns, text, strict=True)
        first += len(nr)
        if first >= piece.stop:
            last = read("t_ns")
            time_ns = last[piece.stop - first + len(last) - 1].as_py()
    objects = _objects(
        dataset, source, np.unique(np.array([n for *_, n, _ in found if n >= 0], dtype=np.int64))
    )
    of_objects = (objects.column(name).to_pylist() for name in ("object_id", "path"))
    path_of = dict(zip(*of_objects, strict=True))
    return time_ns, [
        Change(end_ns, pid, by_fd, (path_of.get(number) if by_fd else text) or "")
        for end_ns, pid, by_fd, number, text in found
    ]


def _read_column(file: pq.ParquetFile, group: int, name: str) -> pa.ChunkedArray:
    return file.read_row_group(group, columns=[name], use_threads=False).column(name)


def _empty(schema: pa.Schema, columns: list[str]) -> pa.Table:
    fields = [schema.field(name) for name in columns]
    return pa.table([pa.nulls(0, field.type) for field in fields], schema=pa.schema(fields))


def _objects(dataset: Dataset, source: str, ids: Ints) -> pa.Table:
    """The objects `ids` (sorted) and others, by rising number; whole row groups."""
    recording = _recording(dataset)
    file = dataset.objects_file
    column = file.schema_arrow.get_field_index("object_id")
    if not len(ids):
        return _object_group(source, recording, None)
    groups = []
    for group in range(file.metadata.num_row_groups):
        statistics = file.metadata.row_group(group).column(column).statistics
        if statistics is None or not statistics.has_min_max:
            groups.append(group)
            continue
        low, high = np.searchsorted(ids, [statistics.min, statistics.max + 1])
        if low < high:
            groups.append(group)
    found = []
    for group in groups:
        table = _object_group(source, recording, group)
        known = arrow.integers(table.column("object_id"), -1)
        at = np.minimum(np.searchsorted(known, ids), max(len(known) - 1, 0))
        if len(known):
            found.append(table.take(arrow.numbers(at[known[at] == ids])))
    whole = pa.concat_tables(found) if found else _object_group(source, recording, None)
    return whole if len(found) < 2 else whole.sort_by("object_id")


@lru_cache(maxsize=4)
def _object_group(source: str, recording: str, group: int | None) -> pa.Table:
    """A row group of the objects by rising number, None: an empty table. Neighbours share it.

    recording: tells traces apart that take each other's place.
    """
    del recording
    file = Dataset(source).objects_file
    columns = ["object_id", "kind", "path", "event"]
    if group is None:
        return _empty(file.schema_arrow, columns)
    table = file.read_row_group(group, columns=columns, use_threads=False)
    known = arrow.integers(table.column("object_id"), -1)
    # As our own writer has them.
    return table if bool((known[1:] > known[:-1]).all()) else table.sort_by("object_id")


class _Columns:
    """The columns of a piece, read one by one: the memory of one serves for the next, and fewer
    pages have to be cleared than for a whole table.

    front: the rows of the piece before that explain others; `kept`: those of this piece, for the
    next one.
    """

    def __init__(self, dataset: Dataset, piece: Piece, front: _Front, keep: bool) -> None:
        self._file = dataset.events_file
        self._piece = piece
        self._front = front
        self.rows = np.concatenate([front.rows, np.arange(piece.start, piece.stop)])
        self.kept = _Front(np.zeros(0, np.int64), {})
        self._early: dict[str, pa.ChunkedArray] = {}
        if keep:
            self._early = {name: self._read(name) for name in ("nr", "ret")}
            self.kept = _Front(_explaining(self._early["nr"], self._early["ret"], piece), {})

    def _read(self, name: str) -> pa.ChunkedArray:
        piece = self._piece
        table = self._file.read_row_groups(list(piece.groups), columns=[name], use_threads=False)
        return table.column(name).slice(piece.start - piece.first, piece.stop - piece.start)

    def column(self, name: str) -> pa.ChunkedArray:
        """The rows of the piece before, then those of the piece."""
        own = self._early.pop(name, None) or self._read(name)
        if len(self.kept.rows):
            self.kept.columns[name] = own.take(arrow.numbers(self.kept.rows - self._piece.start))
        front = self._front.columns.get(name)
        return pa.chunked_array([*front.chunks, *own.chunks], own.type) if front else own


def _recording(dataset: Dataset) -> str:
    return f"{dataset.meta['recorded']}, {dataset.meta['wall_ns']} ns, {len(dataset)} events"


@dataclass(frozen=True)
class _Front:
    """Rows of a piece that explain later ones: opens and directory readings."""

    rows: Ints  # their numbers in the trace
    columns: dict[str, pa.ChunkedArray]


def _explaining(nr: pa.ChunkedArray, ret: pa.ChunkedArray, piece: Piece) -> Ints:
    """Numbers of the rows of a piece that may explain later ones."""
    first = max(piece.stop - EXPLAINING_ROWS, piece.start) - piece.start
    made = [call.name for call in syscalls.by_nr().values() if call.returns_fd]
    explains = is_one(arrow.integers(nr.slice(first), -1), *made, "getdents64", "getdents")
    explains &= arrow.integers(ret.slice(first), -1) >= 0
    return np.flatnonzero(explains) + piece.start + first


def _front_of(dataset: Dataset, piece: Piece) -> _Front:
    """The rows of a piece, which another process mines, that explain later ones."""
    # Only the row groups that hold its end.
    metadata = dataset.events_file.metadata
    groups, first = list(piece.groups), piece.first
    while len(groups) > 1:
        behind = first + metadata.row_group(groups[0]).num_rows
        if behind > piece.stop - EXPLAINING_ROWS:
            break
        first = behind
        groups.pop(0)
    start = max(piece.start, piece.stop - EXPLAINING_ROWS)
    part = replace(piece, start=start, groups=tuple(groups), first=first)
    columns = _Columns(dataset, part, _Front(np.zeros(0, np.int64), {}), keep=True)
    for name in events.COLUMNS:
        columns.column(name)
    return columns.kept


_last: dict[str, tuple[Piece, _Front]] = {}
"""The explaining rows of the piece that this process read last: mostly the one before the next."""


def load(trace: Trace, piece: Piece, before: Piece | None) -> Events:
    """Read a piece; raises `tracer.target.DatasetError`."""
    dataset = Dataset(trace.source)
    with _reading(trace.source):
        recording = _recording(dataset)
        kept = _last.get(recording)
        _last.clear()
        front = _Front(np.zeros(0, np.int64), {})
        if before is not None:
            front = kept[1] if kept and kept[0] == before else _front_of(dataset, before)
        columns = _Columns(dataset, piece, front, keep=piece.stop < trace.rows)
        ids, number = events.object_numbers(columns.column("object_id"))
        objects = events.Opened(_objects(dataset, trace.source, ids), ids, number)
        found = events.from_columns(
            columns.column,
            columns.rows,
            len(front.rows),
            objects,
            trace.images,
            trace.moves,
            trace.meta,
            trace.source,
        )
        if piece.stop < trace.rows:
            _last[recording] = piece, columns.kept
    if len(found) > 1 and bool(np.any(found.t_ns[1:] < found.t_ns[:-1])):
        raise DatasetError(f"events are not sorted by t_ns: {trace.source}: record it again")
    last_ns = int(found.t_ns[-1]) if len(found) else 0
    own = Moves(trace.images, trace.moves_ns, trace.moves).until(last_ns, changes_of(found))
    return replace(found, moves=[*trace.moves, *own])


def read(source: str | Path) -> Events:
    """A whole trace as one piece, for tests and for traces that fit into memory."""
    ((trace, piece, before),) = tasks(*open_trace(source, size=1 << 62))
    return load(trace, piece, before)
