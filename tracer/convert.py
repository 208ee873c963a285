# SPDX-License-Identifier: MIT
"""From raw events to a dataset: `write_dataset` is the way in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracer import columns, dataset, dirents, processes
from tracer.columns import column
from tracer.dataset import path_text
from tracer.descriptors import Object
from tracer.events import ALL_NRS, OUT_STAT, RAW_DIRENTS, Bytes, Chunk, Ints, Mask
from tracer.filters import Filter
from tracer.objects import Objects
from tracer.operations import NOTHING
from tracer.sites import Sites
from tracer.syscalls import ArgKind, by_nr
from tracer.timeline import RawTrace

SIZEOF_STAT = 144
SIZEOF_STATX = 256
CHUNK = 1 << 16  # events at a time: what they need stays in the processor's cache
_NO_LIMIT = np.uint64(1 << 62)


class _Calls:
    """What the columns need of the system call table, as arrays by call number."""

    def __init__(self) -> None:
        self.copies_out = np.zeros(ALL_NRS, np.bool_)
        self.copies_in = np.zeros(ALL_NRS, np.bool_)
        self.fixed_out = np.zeros(ALL_NRS, np.int64)
        self.size_at = np.full(ALL_NRS, -1, np.int8)
        # Registers that are no arguments hold whatever was left in them.
        self.n_args = np.full(ALL_NRS, 6, np.uint8)
        self.returns_dirents = np.zeros(ALL_NRS, np.bool_)
        self.returns_stat = np.zeros(ALL_NRS, np.bool_)
        for nr, call in by_nr().items():
            kinds = set(call.args)
            self.n_args[nr] = len(call.args)
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


def _bytes_moved(calls: _Calls, chunk: Chunk) -> tuple[Ints, Ints]:
    """Return the bytes that each call moved into and out of the kernel.

    Counted are the data, the strings and the attributes; not small structures such
    as time values, nor addresses of sockets.
    """
    nr, ret = chunk.nr, chunk.ret
    size_at = calls.size_at[nr]
    size = chunk.args[np.maximum(size_at, 0), np.arange(len(nr))]
    limit = np.where(size_at >= 0, np.minimum(size, _NO_LIMIT), _NO_LIMIT).astype(np.int64)
    moved = np.where(chunk.returned, np.clip(ret, 0, limit), 0)
    ok = chunk.returned & (ret >= 0)
    out = moved * calls.copies_out[nr] + calls.fixed_out[nr] * ok
    # Calls such as setxattr return 0 and have taken all that they were given.
    whole = ok & (ret == 0) & (size_at >= 0)
    into = np.where(whole, limit, moved) * calls.copies_in[nr]
    for length in (chunk.path_len, chunk.path2_len):
        into += length + (length > 0)
    return into, out


def _names(calls: _Calls, chunk: Chunk, out_at: Ints) -> pa.Array:
    has = calls.returns_dirents[chunk.nr] & (chunk.ret >= 0) & chunk.returned
    joined, ends = chunk.payload(out_at, chunk.out_len * has)
    raw = np.flatnonzero(has & (chunk.flags & RAW_DIRENTS > 0))
    if len(raw):
        joined, ends = _hashed(joined, ends, raw)
    values = column(joined[: len(joined) // 4 * 4].view("<u4"), pa.uint32())
    offsets = pa.py_buffer((ends // 4).astype(np.int32))
    kind = dataset.EVENTS.field("names").type
    return pa.Array.from_buffers(kind, len(has), [columns.bits(has), offsets], children=[values])


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
    has = calls.returns_stat[chunk.nr] & (chunk.out_len == OUT_STAT.itemsize)
    joined, _ = chunk.payload(out_at, chunk.out_len * has)
    kept = joined.view(OUT_STAT)
    found = []
    for name, kind in (("mode", pa.uint32()), ("size", pa.int64()), ("ino", pa.int64())):
        values = np.zeros(len(chunk), kept[name].dtype)
        values[has] = kept[name]
        found.append(column(values, kind, has))
    return found


def _events(
    calls: _Calls, chunk: Chunk, raw: RawTrace, sites: Sites, object_ids: npt.NDArray[np.int32]
) -> pa.Table:
    bytes_in, bytes_out = _bytes_moved(calls, chunk)
    out_at = chunk.path_len + chunk.path2_len
    n_args = calls.n_args[chunk.nr]
    found = [
        raw.to_ns(chunk.tsc),
        raw.ticks_to_ns(chunk.dur),
        raw.pids[chunk.thread],
        raw.tids[chunk.thread],
        chunk.nr.astype(np.int16),
        *[chunk.args[i] * (n_args > i) for i in range(6)],
        column(chunk.ret, pa.int64(), chunk.returned),
        columns.coded(*chunk.payload(np.zeros_like(out_at), chunk.path_len)),
        columns.coded(*chunk.payload(chunk.path_len, chunk.path2_len)),
        bytes_in,
        bytes_out,
        sites.column(chunk),
        column(object_ids, pa.int32(), object_ids >= 0),
        _names(calls, chunk, out_at),
        *_stat(calls, chunk, out_at),
    ]
    arrays = [
        column(values, field.type) if isinstance(values, np.ndarray) else values
        for values, field in zip(found, dataset.EVENTS, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=dataset.EVENTS)


def processes_table(raw: RawTrace, who: processes.Processes) -> pa.Table:
    """Return the table of program images."""
    images = who.images
    start = raw.to_ns(np.array([image.start_tsc for image in images], np.uint64))
    found: dict[str, Sequence[Any]] = {
        "pid": [image.pid for image in images],
        "ppid": [image.ppid for image in images],
        "exe": columns.names([image.exe for image in images]),
        "build_id": [processes.build_id(image.exe) for image in images],
        "argv": [[path_text(word) for word in image.argv] for image in images],
        "cwd": columns.names([image.cwd for image in images]),
        "start_ns": start.tolist(),
        "exit": [image.exit for image in images],
    }
    return columns.table(dataset.PROCESSES, found)


def objects_table(found: Objects, row_of: Ints | None) -> pa.Table:
    """Return the table of objects; `row_of` has the row of every event, NOTHING: left out."""
    n = len(found.kinds)
    inodes = np.zeros((2, n), np.uint64)
    known = np.zeros(n, np.bool_)
    for made, inode in found.inodes.items():
        inodes[:, made], known[made] = inode, True
    for ids, answers in found.stats:
        inodes[0, ids], inodes[1, ids], known[ids] = answers["dev"], answers["ino"], True
    events = np.array(found.events, np.int64)
    if row_of is not None:
        events = np.where(events >= 0, np.append(row_of, NOTHING)[events], NOTHING)
    return columns.table(
        dataset.OBJECTS,
        {
            "object_id": column(np.arange(n, dtype=np.int32), pa.int32()),
            "kind": found.kinds,
            "dev": column(inodes[0], pa.uint64(), known),
            "ino": column(inodes[1], pa.uint64(), known),
            "path": columns.names(found.paths),
            "event": column(events, pa.int64(), events >= 0),
        },
    )


def _row_of(masks: Sequence[Mask]) -> Ints:
    """Return the row that each event has after others were left out, NOTHING: it was."""
    kept = np.concatenate([np.empty(0, np.bool_), *masks])
    return np.where(kept, np.cumsum(kept) - 1, NOTHING)


def _ahead(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    """Yield the same, each read while the one before is worked on."""
    with ThreadPoolExecutor(1) as reader:
        following = reader.submit(next, chunks, None)
        while (chunk := following.result()) is not None:
            following = reader.submit(next, chunks, None)
            yield chunk


def write_dataset(
    raw: RawTrace,
    writer: dataset.Writer,
    meta: Mapping[str, Any],
    inherited: Mapping[int, Object] | None = None,
    exits: Mapping[int, int] | None = None,
    kept: Filter | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write a whole trace.

    `inherited` tells what descriptors the traced program began with, `exits` the wait
    status of processes, where it is known better than from their last call. `progress` is
    told how many events are done, of how many.
    """
    who = processes.find(raw)
    known = raw.exits | dict(exits or {})
    for image in who.images:
        if image.pid in known and not image.replaced:
            image.exit = known[image.pid]
    found = Objects(who, inherited)
    calls, sites = _Calls(), Sites(who)
    masks: list[Mask] = []

    def write(chunk: Chunk, ids: npt.NDArray[np.int32]) -> None:
        sites.add_mapped(chunk, ids, found.paths)
        events = _events(calls, chunk, raw, sites, ids)
        if kept:
            masks.append(kept.mask(chunk, ids, found.paths))
            chosen = [None, columns.bits(masks[-1])]
            events = events.filter(pa.Array.from_buffers(pa.bool_(), len(ids), chosen))
        writer.write_events(events)

    done = 0
    # One piece is written while the next is replayed and a third is read: numpy and arrow let
    # others run meanwhile.
    with ThreadPoolExecutor(1) as behind:
        written: Future[None] | None = None
        for chunk in _ahead(raw.chunks(CHUNK)):
            ids = found.of_chunk(chunk)
            if written:
                written.result()
            written = behind.submit(write, chunk, ids)
            done += len(chunk)
            if progress:
                progress(done, raw.n_calls)
        if written:
            written.result()
    found.finish()
    if kept:
        meta = {**meta, "filter": kept.describe()}
    unseen = sorted({path_text(image.unseen) for image in who.images if image.unseen})
    writer.finish(
        processes_table(raw, who),
        objects_table(found, _row_of(masks) if kept else None),
        {
            **meta,
            "lost_events": raw.lost_events,
            "unseen_programs": unseen,
            "adopted_programs": [path_text(exe) for exe in raw.adopted],
        },
        sites.table(),
    )
