# SPDX-License-Identifier: MIT
"""Cuts traces into pieces that are mined one by one, so that no trace has to fit into memory.

A piece is a run of row groups. Pieces know of each other only what stands in front of their rows:
the opens and directory readings at the end of the one before. An instance that crosses a border
counts in both parts. Traces of up to PIECE_ROWS events are one piece.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from miner import arrow, events
from miner.events import Events, Ints, Process
from miner.joins import is_one
from miner.paths import Move, Moves
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
    moves: list[Move]  # `tasks` finds them, those that pieces are mined with
    unended: int  # processes whose end the trace does not have


@dataclass(frozen=True)
class Piece:
    """Rows `start` to `stop` of a trace; the row groups `groups` hold them, from row `first` on."""

    number: int
    start: int
    stop: int
    groups: tuple[int, ...]
    first: int
    pids: tuple[int, int]  # lowest and highest in these row groups


def _reads_failed(source: str, error: Exception) -> DatasetError:
    return DatasetError(f"cannot read: {source}: {(str(error).splitlines() or ['?'])[0]}")


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
    """A task for each piece of a trace, with the processes that its events can be about.

    Changes of directory are read on the way: meanwhile others can mine the first pieces.
    """
    dataset = Dataset(trace.source)
    images = np.array([p.pid for p in trace.images], dtype=np.int64)
    moves, found = Moves(trace.images), list[Move]()
    moved = np.zeros(0, dtype=np.int64)
    before: Piece | None = None
    for piece in parts:
        try:
            new = moves.until(*_directory_changes(dataset, trace.source, piece))
        except (OSError, ValueError, pa.ArrowException) as error:
            raise _reads_failed(trace.source, error) from error
        found += new
        moved = np.append(moved, np.array([pid for pid, _, _ in new], dtype=np.int64))
        known = piece.pids if before is None else piece.pids + before.pids
        low, high = min(known), max(known)
        part = replace(
            trace,
            images=[trace.images[i] for i in np.flatnonzero((images >= low) & (images <= high))],
            moves=[found[i] for i in np.flatnonzero((moved >= low) & (moved <= high))],
        )
        yield part, piece, before
        before = piece


def open_trace(source: str | Path, size: int = PIECE_ROWS) -> tuple[Trace, list[Piece]]:
    """The trace and its pieces; raises `tracer.target.DatasetError` when `source` is none."""
    dataset = Dataset(source)
    try:
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
    except (OSError, ValueError, pa.ArrowException) as error:
        raise _reads_failed(str(source), error) from error


def _unended(processes: pa.Table) -> int:
    """Processes whose end the trace does not have; an image that another one replaced ended."""
    last: dict[int, tuple[int, object]] = {}
    for row in processes.select(["pid", "start_ns", "exit"]).to_pylist():
        if row["pid"] not in last or last[row["pid"]][0] <= row["start_ns"]:
            last[row["pid"]] = row["start_ns"], row["exit"]
    return sum(ended is None for _, ended in last.values())


def _directory_changes(
    dataset: Dataset, source: str, piece: Piece
) -> tuple[int, pa.Table, pa.Table]:
    """When the last call of a piece began, its successful chdir and fchdir calls, and the objects
    that these name."""
    file = dataset.events_file
    columns = ["t_ns", "dur_ns", "pid", "nr", "ret", "path", "object_id"]
    found = [_empty(file.schema_arrow, columns)]
    first = piece.first
    for group in piece.groups:
        numbers = file.read_row_group(group, columns=["nr"], use_threads=False).column("nr")
        here = slice(max(piece.start - first, 0), max(piece.stop - first, 0))
        at = np.flatnonzero(is_one(arrow.integers(numbers, -1)[here], "chdir", "fchdir"))
        if len(at):
            rows = file.read_row_group(group, columns=columns, use_threads=False)
            at += here.start
            done = arrow.integers(rows.column("ret"), -1)[at] == 0
            found.append(rows.take(arrow.numbers(at[done])))
        first += len(numbers)
    time_ns = 0
    if piece.groups:
        last = file.read_row_group(piece.groups[-1], columns=["t_ns"], use_threads=False)
        time_ns = last.column("t_ns")[piece.stop - first + len(last) - 1].as_py()
    # The few strings that are left, without the dictionary of all.
    text = columns.index("path")
    found = [
        rows.set_column(text, "path", pc.cast(rows.column("path"), pa.string())) for rows in found
    ]
    changes = pa.concat_tables(found)
    ids = arrow.integers(changes.column("object_id").drop_null(), -1)
    return time_ns, changes, _objects(dataset, source, np.unique(ids))


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
    return file.read_row_group(group, columns=columns).sort_by("object_id")


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
    try:
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
    except (OSError, ValueError, pa.ArrowException) as error:
        raise _reads_failed(trace.source, error) from error
    if len(found) > 1 and bool(np.any(found.t_ns[1:] < found.t_ns[:-1])):
        raise DatasetError(f"events are not sorted by t_ns: {trace.source}: record it again")
    return found


def read(source: str | Path) -> Events:
    """A whole trace as one piece, for tests and for traces that fit into memory."""
    ((trace, piece, before),) = tasks(*open_trace(source, size=1 << 62))
    return load(trace, piece, before)
