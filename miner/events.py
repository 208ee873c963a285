# SPDX-License-Identifier: MIT
"""A trace dataset as numpy columns: the miner's view of docs/architecture.md's schema."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tracer.dataset import Dataset
from tracer.target import DatasetError

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

NO_RET = np.iinfo(np.int64).min
"""`Events.ret` where the call does not return or its end was not seen."""


@dataclass(frozen=True)
class Strings:
    """A dictionary-encoded column: `codes` into `values`, -1 for none."""

    codes: Ints
    values: list[str]


@dataclass(frozen=True)
class Process:
    """One program image: a process from its start or exec on."""

    pid: int
    ppid: int
    exe: str
    build_id: str
    cwd: str
    start_ns: int


@dataclass(frozen=True)
class Objects:
    """Open file descriptions and working directories, by object number."""

    kind: list[str]
    path: list[str]  # empty: not known
    event: Ints  # that opened it, -1: open before; one more element, for object -1


@dataclass(frozen=True)
class Events:
    """All events of one dataset, in the order of their start."""

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
    names_known: Bools  # the event carries the list of entries
    st_mode: Ints  # -1 where the call returned no attributes
    st_size: Ints
    object: Ints  # of the first descriptor argument, into `objects`; -1: none
    objects: Objects
    processes: list[Process]
    meta: dict[str, Any]
    source: str

    def __len__(self) -> int:
        return len(self.t_ns)

    @property
    def root(self) -> Ints:
        """The event that opened what each event's first descriptor argument means, or -1."""
        return self.objects.event[self.object]

    @property
    def end_ns(self) -> Ints:
        """When each call returned."""
        return self.t_ns + self.dur_ns

    def fd_arg(self, index: int, rows: Ints | slice = slice(None)) -> Ints:
        """Argument `index` of the events as the int that the kernel takes it for."""
        return self.args[rows, index].astype(np.uint32).astype(np.int32).astype(np.int64)


_COLUMNS = [
    *("t_ns", "dur_ns", "pid", "tid", "nr", "a0", "a1", "a2", "a3", "a4", "a5", "ret", "path"),
    *("path2", "bytes_in", "bytes_out", "object_id", "names", "st_mode", "st_size"),
]


def _ints(table: pa.Table, name: str, missing: int) -> Ints:
    column = table.column(name)
    if column.null_count:
        column = pc.fill_null(pc.cast(column, pa.int64()), missing)
    values: Ints = column.to_numpy().astype(np.int64, copy=False)
    return values


def _strings(table: pa.Table, name: str) -> Strings:
    column = table.column(name)
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    merged = column.unify_dictionaries().combine_chunks()
    if isinstance(merged, pa.ChunkedArray):
        if merged.num_chunks == 0:
            return Strings(np.zeros(0, np.int64), [])
        merged = merged.chunk(0)
    codes = pc.fill_null(merged.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    return Strings(codes, merged.dictionary.to_pylist())


def _names(table: pa.Table) -> tuple[Ints, Ints, NDArray[np.uint32], Bools]:
    column = table.column("names").combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks else pa.array([], column.type)
    known: Bools = column.is_valid().to_numpy(zero_copy_only=False)
    offsets = column.offsets.to_numpy().astype(np.int64)
    if len(offsets) == 0:
        offsets = np.zeros(1, np.int64)
    values = column.values.to_numpy(zero_copy_only=False).astype(np.uint32)
    start, end = offsets[:-1], offsets[1:]
    return np.where(known, start, 0), np.where(known, end, 0), values, known


def _processes(table: pa.Table) -> list[Process]:
    rows = table.to_pylist()
    rows.sort(key=lambda r: int(r["start_ns"]))
    return [
        Process(
            pid=int(r["pid"]),
            ppid=int(r["ppid"]),
            exe=r["exe"] or "?",
            build_id=r["build_id"] or "",
            cwd=r["cwd"] or "",
            start_ns=int(r["start_ns"]),
        )
        for r in rows
    ]


def _objects(table: pa.Table, n_events: int) -> Objects:
    ids = table.column("object_id").to_numpy().astype(np.int64)
    size = int(ids.max(initial=-1)) + 1
    event = np.full(size + 1, -1, dtype=np.int64)
    event[ids] = _ints(table, "event", -1)
    event[(event < -1) | (event >= n_events)] = -1
    kind, path = [""] * size, [""] * size
    rows = zip(
        ids.tolist(),
        table.column("kind").to_pylist(),
        table.column("path").to_pylist(),
        strict=True,
    )
    for i, k, p in rows:
        kind[i], path[i] = k, p or ""
    return Objects(kind, path, event)


def read(path: str | Path) -> Events:
    """Read the dataset `path`; raises `tracer.target.DatasetError` when it is none."""
    dataset = Dataset(path)
    try:
        table = dataset.events(_COLUMNS)
        processes = _processes(dataset.processes())
        objects = _objects(dataset.objects(), len(dataset))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DatasetError(f"cannot read: {path}: {str(error).splitlines()[0]}") from error
    names_start, names_end, names, known = _names(table)
    args = np.stack([table.column(f"a{i}").to_numpy().astype(np.uint64) for i in range(6)], axis=1)
    events = Events(
        t_ns=_ints(table, "t_ns", 0),
        dur_ns=_ints(table, "dur_ns", 0),
        pid=_ints(table, "pid", 0),
        tid=_ints(table, "tid", 0),
        nr=_ints(table, "nr", -1),
        args=args,
        ret=_ints(table, "ret", int(NO_RET)),
        path=_strings(table, "path"),
        path2=_strings(table, "path2"),
        bytes_in=_ints(table, "bytes_in", 0),
        bytes_out=_ints(table, "bytes_out", 0),
        names_start=names_start,
        names_end=names_end,
        names=names,
        names_known=known,
        st_mode=_ints(table, "st_mode", -1),
        st_size=_ints(table, "st_size", -1),
        object=np.minimum(_ints(table, "object_id", -1), len(objects.kind) - 1),
        objects=objects,
        processes=processes,
        meta=dataset.meta,
        source=str(path),
    )
    if len(events) > 1 and bool(np.any(np.diff(events.t_ns) < 0)):
        raise DatasetError(f"events are not sorted by t_ns: {path}: record it again")
    return events
