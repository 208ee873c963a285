# SPDX-License-Identifier: MIT
"""From raw files to a dataset: `write_dataset` is the way in."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracer import dataset, dirents, objects, processes, symbols
from tracer.dataset import path_text
from tracer.descriptors import Object
from tracer.filters import Filter
from tracer.raw import NO_RETURN, OUT_STAT, RAW_DIRENTS, Bytes, Chunk, Ints, RawTrace
from tracer.syscalls import ArgKind, by_name, by_nr

PROT_EXEC = 4
MAP_ANONYMOUS = 0x20
SIZEOF_STAT = 144
SIZEOF_STATX = 256
_ALL = 1 << 16


class _Calls:
    """What the columns need of the system call table, as arrays by call number."""

    def __init__(self) -> None:
        self.copies_out = np.zeros(_ALL, np.bool_)
        self.copies_in = np.zeros(_ALL, np.bool_)
        self.fixed_out = np.zeros(_ALL, np.int64)
        self.size_at = np.full(_ALL, -1, np.int8)
        # Registers that are no arguments hold whatever was left in them.
        self.is_arg = np.ones((_ALL, 6), np.bool_)
        self.returns_dirents = np.zeros(_ALL, np.bool_)
        self.returns_stat = np.zeros(_ALL, np.bool_)
        for nr, call in by_nr().items():
            kinds = set(call.args)
            self.is_arg[nr, len(call.args) :] = False
            out = {ArgKind.BUF_OUT, ArgKind.IOV_OUT, ArgKind.DIRENTS_OUT}
            self.copies_out[nr] = bool(kinds & out) or call.moves == "out"
            self.copies_in[nr] = (
                bool(kinds & {ArgKind.BUF_IN, ArgKind.IOV_IN}) or call.moves == "in"
            )
            self.returns_dirents[nr] = ArgKind.DIRENTS_OUT in kinds
            self.returns_stat[nr] = bool(kinds & {ArgKind.STAT_OUT, ArgKind.STATX_OUT})
            if ArgKind.STAT_OUT in kinds:
                self.fixed_out[nr] = SIZEOF_STAT
            if ArgKind.STATX_OUT in kinds:
                self.fixed_out[nr] = SIZEOF_STATX
            size_at = call.index(ArgKind.SIZE)
            if kinds & {ArgKind.BUF_IN, ArgKind.BUF_OUT} and size_at is not None:
                self.size_at[nr] = size_at


def _bytes_moved(calls: _Calls, events: npt.NDArray[np.void]) -> tuple[Ints, Ints]:
    """Return the bytes that each call moved into and out of the kernel.

    Counted are the data, the strings and the attributes; not small structures such
    as time values, nor addresses of sockets.
    """
    nr, ret = events["nr"], events["ret"]
    returned = ~(events["flags"] & NO_RETURN).astype(bool)
    size_at = calls.size_at[nr]
    size = events["args"][np.arange(len(nr)), np.maximum(size_at, 0)]
    limit = np.where(size_at >= 0, np.minimum(size, np.uint64(1 << 62)).astype(np.int64), 1 << 62)
    moved = np.where(returned, np.clip(ret, 0, limit), 0)
    ok = returned & (ret >= 0)
    out = np.where(calls.copies_out[nr], moved, 0) + np.where(ok, calls.fixed_out[nr], 0)
    # Calls such as setxattr return 0 and have taken all that they were given.
    whole = ok & (ret == 0) & (size_at >= 0)
    into = np.where(calls.copies_in[nr], np.where(whole, limit, moved), 0)
    for column in ("path_len", "path2_len"):
        length = events[column].astype(np.int64)
        into = into + np.where(length > 0, length + 1, 0)
    return into, out


def _text(joined: Bytes, ends: Ints) -> pa.Array:
    """Return strings as a dictionary array; empty ones are null."""
    empty = np.diff(ends) == 0
    if empty.all():
        return pa.nulls(len(empty), pa.dictionary(pa.int32(), pa.string()))
    raw = pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(empty), [None, pa.py_buffer(ends), pa.py_buffer(joined)]
    )
    coded = raw.dictionary_encode()
    words = _strings([path_text(word) for word in coded.dictionary.to_pylist()])
    codes = _column(
        np.frombuffer(coded.indices.buffers()[1], np.int32, len(empty)), pa.int32(), ~empty
    )
    return pa.DictionaryArray.from_arrays(codes, words)


def _column(
    values: npt.NDArray[Any], kind: pa.DataType, valid: npt.NDArray[np.bool_] | None = None
) -> pa.Array:
    """Return a column, with nulls where `valid` is given and not set.

    By way of buffers: pa.array loads pandas to look at an array, which takes 0.4 s.
    """
    bits = None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))
    data = pa.py_buffer(np.ascontiguousarray(values))
    return pa.Array.from_buffers(kind, len(values), [bits, data])


def _strings(values: Sequence[str | None]) -> pa.Array:
    """Return a column of text, None as null."""
    raw = [b"" if value is None else value.encode() for value in values]
    ends = np.cumsum([0, *map(len, raw)]).astype(np.int32)
    valid = np.array([value is not None for value in values], np.bool_)
    bits = np.packbits(valid, bitorder="little")
    buffers = [pa.py_buffer(bits), pa.py_buffer(ends), pa.py_buffer(b"".join(raw))]
    return pa.Array.from_buffers(pa.string(), len(raw), buffers)


def _integers(values: Sequence[int | None], kind: pa.DataType) -> pa.Array:
    """Return a column of integers, None as null."""
    valid = np.array([value is not None for value in values], np.bool_)
    numbers = np.array([value or 0 for value in values], kind.to_pandas_dtype())
    return _column(numbers, kind, valid)


def _lists(values: Sequence[Sequence[str]], kind: pa.DataType) -> pa.Array:
    """Return a column of lists of text."""
    ends = np.cumsum([0, *map(len, values)]).astype(np.int32)
    words = _strings([word for value in values for word in value])
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(ends)], children=[words])


def _table(schema: pa.Schema, columns: Mapping[str, Sequence[Any]]) -> pa.Table:
    arrays = []
    for field in schema:
        values = columns[field.name]
        if pa.types.is_string(field.type):
            arrays.append(_strings(values))
        elif pa.types.is_list(field.type):
            arrays.append(_lists(values, field.type))
        else:
            arrays.append(_integers(values, field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def _names(calls: _Calls, chunk: Chunk, out_at: Ints) -> pa.Array:
    events = chunk.events
    has = calls.returns_dirents[events["nr"]] & (events["ret"] >= 0)
    has &= ~(events["flags"] & NO_RETURN).astype(bool)
    joined, ends = chunk.payload(out_at, np.where(has, events["out_len"], 0).astype(np.int64))
    raw = np.flatnonzero(has & (events["flags"] & RAW_DIRENTS > 0))
    if len(raw):
        joined, ends = _hashed(joined, ends, raw)
    values = _column(joined[: len(joined) // 4 * 4].view("<u4"), pa.uint32())
    offsets = pa.py_buffer((ends // 4).astype(np.int32))
    bits = pa.py_buffer(np.packbits(has, bitorder="little"))
    kind = dataset.EVENTS.field("names").type
    return pa.Array.from_buffers(kind, len(has), [bits, offsets], children=[values])


def _hashed(joined: Bytes, ends: Ints, raw: npt.NDArray[np.intp]) -> tuple[Bytes, Ints]:
    """Replace the buffers of the rows `raw` by the hashes of their names."""
    parts = [joined[begin:end] for begin, end in pairwise(ends.tolist())]
    found = [dirents.entries(parts[row].tobytes()) for row in raw.tolist()]
    every = dirents.hashes(pair for pairs in found for pair in pairs).view(np.uint8)
    split = np.split(every, np.cumsum([4 * len(pairs) for pairs in found])[:-1])
    for row, values in zip(raw.tolist(), split, strict=True):
        parts[row] = values
    return np.concatenate(parts), np.cumsum([0, *map(len, parts)])


def _stat(calls: _Calls, chunk: Chunk, out_at: Ints) -> list[pa.Array]:
    events = chunk.events
    has = calls.returns_stat[events["nr"]] & (events["out_len"] == OUT_STAT.itemsize)
    joined, _ = chunk.payload(out_at, np.where(has, OUT_STAT.itemsize, 0).astype(np.int64))
    kept = joined.view(OUT_STAT)
    columns = []
    for name, kind in (("mode", pa.uint32()), ("size", pa.int64()), ("ino", pa.int64())):
        values = np.zeros(len(events), kept[name].dtype)
        values[has] = kept[name]
        signed = values.view(np.int64) if kind == pa.int64() else values
        columns.append(_column(signed, kind, has))
    return columns


class _Sites:
    """Names of call sites, remembered across chunks."""

    def __init__(self, raw: RawTrace, who: processes.Processes, found: objects.Objects) -> None:
        # Images that map their libraries at the same addresses (forks) share.
        self._of_image = {id(image): processes.Modules(image) for image in who.images}
        self._of_file = [self._of_image[id(image)] for image in who.of_file]
        self._known: dict[tuple[int, int], int] = {}
        self._codes: dict[str, int] = {}
        self._where: list[tuple[str, int]] = []
        self._add_mapped(raw, found)

    def _add_mapped(self, raw: RawTrace, found: objects.Objects) -> None:
        """Note the libraries that came by dlopen."""
        nrs = {by_name()["mmap"].nr}
        chunk, rows = raw.select(nrs), raw.rows(nrs)
        args, ret = chunk.events["args"], chunk.events["ret"]
        wanted = (args[:, 2] & PROT_EXEC > 0) & (args[:, 3] & MAP_ANONYMOUS == 0) & (ret > 0)
        for at in np.flatnonzero(wanted).tolist():
            object_id = found.of_call[rows[at]]
            path = found.objects[object_id].path if object_id >= 0 else None
            if path:
                self._of_file[chunk.file[at]].add(int(ret[at]) - int(args[at, 5]), path)

    def column(self, chunk: Chunk) -> pa.Array:
        """Return the names of the sites of these events."""
        codes = np.zeros(len(chunk.file), np.int32)
        for file in np.unique(chunk.file).tolist():
            rows = np.flatnonzero(chunk.file == file)
            sites, inverse = np.unique(chunk.events["site"][rows], return_inverse=True)
            codes[rows] = np.array([self._code(file, site) for site in sites.tolist()])[inverse]
        known = chunk.events["site"] != 0
        return pa.DictionaryArray.from_arrays(
            _column(codes, pa.int32(), None if known.all() else known), _strings(list(self._codes))
        )

    def _code(self, file: int, site: int) -> int:
        code = self._known.get((file, site))
        if code is None:
            path, offset = self._of_file[file].where(site)
            # Hexadecimal where no module is known.
            name = f"{os.path.basename(path) or path}+0x{offset:x}" if path else f"0x{offset:x}"
            code = self._known[file, site] = self._codes.setdefault(name, len(self._codes))
            if code == len(self._where):
                self._where.append((path, offset))
        return code

    def table(self) -> pa.Table:
        """Return what is known of all sites."""
        where = self._where
        columns: dict[str, Sequence[Any]] = {
            "site": list(self._codes),
            "module": [_opt_text(os.fsencode(path)) for path, _ in where],
            "build_id": [processes.build_id(os.fsencode(path)) for path, _ in where],
            "offset": [offset for _, offset in where],
            "symbol": [symbols.of_file(path).name(at) if path else None for path, at in where],
        }
        return _table(dataset.SITES, columns)


def _events(
    calls: _Calls, chunk: Chunk, raw: RawTrace, sites: _Sites, object_ids: npt.NDArray[np.int32]
) -> pa.Table:
    events = chunk.events
    pid = np.array([f.pid for f in raw.files], np.int32)[chunk.file]
    tid = np.array([f.tid for f in raw.files], np.int32)[chunk.file]
    path_len, path2_len = (events[c].astype(np.int64) for c in ("path_len", "path2_len"))
    bytes_in, bytes_out = _bytes_moved(calls, events)
    out_at = path_len + path2_len
    args = np.where(calls.is_arg[events["nr"]], events["args"], 0).astype(np.uint64)
    returned = ~(events["flags"] & NO_RETURN).astype(bool)
    columns = [
        chunk.t_ns,
        chunk.dur_ns,
        pid,
        tid,
        events["nr"].astype(np.int16),
        *[np.ascontiguousarray(args[:, i]) for i in range(6)],
        _column(events["ret"], pa.int64(), returned),
        _text(*chunk.payload(np.zeros_like(path_len), path_len)),
        _text(*chunk.payload(path_len, path2_len)),
        bytes_in,
        bytes_out,
        sites.column(chunk),
        _column(object_ids, pa.int32(), object_ids >= 0),
        _names(calls, chunk, out_at),
        *_stat(calls, chunk, out_at),
    ]
    arrays = [
        _column(column, field.type) if isinstance(column, np.ndarray) else column
        for column, field in zip(columns, dataset.EVENTS, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=dataset.EVENTS)


def _opt_text(raw: bytes | None) -> str | None:
    return path_text(raw) if raw else None


def processes_table(raw: RawTrace, who: processes.Processes) -> pa.Table:
    """Return the table of program images."""
    start = raw.to_ns(np.array([image.start_tsc for image in who.images], np.uint64))
    images = who.images
    columns: dict[str, Sequence[Any]] = {
        "pid": [image.pid for image in images],
        "ppid": [image.ppid for image in images],
        "exe": [_opt_text(image.exe) for image in images],
        "build_id": [processes.build_id(image.exe) for image in images],
        "argv": [[path_text(word) for word in image.argv] for image in images],
        "cwd": [_opt_text(image.cwd) for image in images],
        "start_ns": start.tolist(),
        "exit": [image.exit for image in images],
    }
    return _table(dataset.PROCESSES, columns)


def objects_table(found: objects.Objects) -> pa.Table:
    """Return the table of objects."""
    what = found.objects
    columns: dict[str, Sequence[Any]] = {
        "object_id": range(len(what)),
        "kind": [o.kind for o in what],
        "dev": [o.dev for o in what],
        "ino": [o.ino for o in what],
        "path": [_opt_text(o.path) for o in what],
        "event": [o.event for o in what],
    }
    return _table(dataset.OBJECTS, columns)


def _renumber(found: objects.Objects, kept: npt.NDArray[np.bool_]) -> None:
    """Let objects name the rows of their events after others were left out."""
    row = np.cumsum(kept) - 1
    for what in found.objects:
        if what.event is not None:
            what.event = int(row[what.event]) if kept[what.event] else None


def write_dataset(
    raw: RawTrace,
    writer: dataset.Writer,
    meta: Mapping[str, Any],
    inherited: Mapping[int, Object] | None = None,
    exits: Mapping[int, int] | None = None,
    kept: Filter | None = None,
) -> None:
    """Write a whole trace.

    `inherited` tells what descriptors the traced program began with, `exits` the wait
    status of processes, where it is known better than from their last call.
    """
    who = processes.find(raw)
    known = raw.exits | dict(exits or {})
    for image in who.images:
        if image.pid in known and not image.replaced:
            image.exit = known[image.pid]
    found = objects.replay(raw, who, inherited)
    calls, sites = _Calls(), _Sites(raw, who, found)
    row = 0
    masks = []
    for chunk in raw.chunks(dataset.ROW_GROUP):
        ids = found.of_call[row : row + len(chunk.file)]
        row += len(chunk.file)
        events = _events(calls, chunk, raw, sites, ids)
        if kept:
            masks.append(kept.mask(chunk, ids, found.objects))
            bits = pa.py_buffer(np.packbits(masks[-1], bitorder="little"))
            events = events.filter(pa.Array.from_buffers(pa.bool_(), len(ids), [None, bits]))
        writer.write_events(events)
    if kept:
        _renumber(found, np.concatenate([np.empty(0, np.bool_), *masks]))
        meta = {**meta, "filter": kept.describe()}
    unseen = sorted({path_text(image.unseen) for image in who.images if image.unseen})
    writer.finish(
        processes_table(raw, who),
        objects_table(found),
        {
            **meta,
            "lost_events": raw.lost_events,
            "unseen_programs": unseen,
            "adopted_programs": [path_text(exe) for exe in raw.adopted],
        },
        sites.table(),
    )
