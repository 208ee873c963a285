# SPDX-License-Identifier: MIT
"""From raw events to a dataset: `write_dataset` is the way in."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracer import columns, compiled, dataset, lives, processes
from tracer.columns import column
from tracer.compiled import RETURNS_DIRENTS, RETURNS_STAT, at, check
from tracer.dataset import path_text
from tracer.descriptors import KINDS, Object
from tracer.events import ALL_NRS, Bytes, Chunk, Ints, Mask
from tracer.filters import Filter
from tracer.objects import NOTHING, Found, Objects
from tracer.sites import Sites
from tracer.syscalls import ArgKind, by_nr
from tracer.timeline import End, RawTrace, joined

SIZEOF_STAT = 144
SIZEOF_STATX = 256
CHUNK = 1 << 16  # events at a time: what they need stays in the processor's cache
_EVENT_TYPES = [field.type for field in dataset.EVENTS][:5]


@cache
def _calls() -> npt.NDArray[np.void]:
    """By call number: what the columns need of the system call table."""
    found = np.zeros(ALL_NRS, compiled.CALL)
    found["size_at"] = NOTHING
    found["n_args"] = 6
    out = {ArgKind.BUF_OUT, ArgKind.IOV_OUT, ArgKind.DIRENTS_OUT}
    for nr, call in by_nr().items():
        kinds = set(call.args)
        it = found[nr : nr + 1]
        it["n_args"] = len(call.args)
        it["copies_out"] = bool(kinds & out) or call.moves == "out"
        it["copies_in"] = bool(kinds & {ArgKind.BUF_IN, ArgKind.IOV_IN}) or call.moves == "in"
        it["returns"] = RETURNS_DIRENTS * (ArgKind.DIRENTS_OUT in kinds) + RETURNS_STAT * bool(
            kinds & {ArgKind.STAT_OUT, ArgKind.STATX_OUT}
        )
        if ArgKind.STAT_OUT in kinds:
            it["fixed_out"] = SIZEOF_STAT
        if ArgKind.STATX_OUT in kinds:
            it["fixed_out"] = SIZEOF_STATX
        size_at = call.index(ArgKind.SIZE)
        if kinds & {ArgKind.BUF_IN, ArgKind.BUF_OUT} and size_at is not None:
            it["size_at"] = size_at
    return found


class _Texts:
    """Room for texts of n events, and what tracer/core/ takes."""

    def __init__(self, n: int, room: int) -> None:
        self._n = n
        self._valid = np.zeros(n // 8 + 1, np.uint8)
        self._codes, self._ends = np.empty(n, np.int32), np.empty(n + 1, np.int32)
        self._joined = np.empty(room, np.uint8)
        arrays: list[npt.NDArray[Any]] = [self._valid, self._codes, self._ends, self._joined]
        self.native = compiled.Texts(*map(at, arrays), room)

    def column(self, found: compiled.Texts) -> pa.DictionaryArray:
        """Return names as a dictionary array; empty ones are null."""
        if not found.n_valid:
            return pa.nulls(self._n, pa.dictionary(pa.int32(), pa.string()))
        ends = self._ends[: found.n + 1]
        joined = self._joined[: ends[-1]].copy()
        if found.odd:
            words = columns.percent_form(columns.binary(joined, ends.astype(np.int64)))
        else:
            words = columns.text(joined, ends)
        codes = columns.of_bits(self._codes, pa.int32(), self._valid, found.n_valid)
        return pa.DictionaryArray.from_arrays(codes, words)


def _events(
    chunk: Chunk, raw: RawTrace, sites: Sites, object_ids: npt.NDArray[np.int32]
) -> pa.Table:
    """Return the events of a chunk as the dataset has them (tracer/core/columns.c)."""
    n = len(chunk)

    def room(kind: str, size: int = n) -> npt.NDArray[Any]:
        return np.empty(size, kind)

    def clear_bits() -> Bytes:
        return np.zeros(n // 8 + 1, np.uint8)

    t_ns, dur_ns, pid, tid, nr = room("i8"), room("i8"), room("i4"), room("i4"), room("i2")
    args, bytes_in, bytes_out, returned = room("u8", 6 * n), room("i8"), room("i8"), clear_bits()
    path, path2 = _Texts(n, len(chunk.heap)), _Texts(n, len(chunk.heap))
    has_site, site, site_thread, site_address = clear_bits(), room("i4"), room("i4"), room("u8")
    has_names, names_ends, names = clear_bits(), room("i4", n + 1), room("u4", len(chunk.heap) // 4)
    has_stat, st_mode, st_size, st_ino = clear_bits(), room("u4"), room("i8"), room("i8")
    got = compiled.Columns(
        *raw.clock,
        *map(at, (raw.pids, raw.tids, _calls())),
        *map(at, (t_ns, dur_ns, pid, tid, nr, args, bytes_in, bytes_out, returned)),
        path.native,
        path2.native,
        *map(at, (has_site, site, site_thread, site_address)),
        *map(at, (has_names, names_ends, names)),
        len(names),
        *map(at, (has_stat, st_mode, st_size, st_ino)),
    )
    check(compiled.function("columns")(chunk.native(), got))
    codes = sites.codes(site_thread[: got.n_pairs], site_address[: got.n_pairs])[site]
    stat = [(st_mode, pa.uint32()), (st_size, pa.int64()), (st_ino, pa.int64())]
    arrays = [
        *map(column, (t_ns, dur_ns, pid, tid, nr), _EVENT_TYPES),
        *(column(args[k * n : (k + 1) * n], pa.uint64()) for k in range(6)),
        columns.of_bits(chunk.ret.copy(), pa.int64(), returned, got.n_returned),
        path.column(got.path),
        path2.column(got.path2),
        column(bytes_in, pa.int64()),
        column(bytes_out, pa.int64()),
        pa.DictionaryArray.from_arrays(
            columns.of_bits(codes, pa.int32(), has_site, got.n_sites), sites.names()
        ),
        column(object_ids, pa.int32(), object_ids >= 0),
        columns.lists(names_ends, names[: names_ends[-1]].copy(), has_names),
        *(columns.of_bits(values, kind, has_stat, got.n_stats) for values, kind in stat),
    ]
    return pa.Table.from_arrays(arrays, schema=dataset.EVENTS)


def _times(raw: RawTrace, found: Collection[lives.Life]) -> dict[str, pa.Array]:
    """Return the columns start_ns and end_ns."""
    pairs = [(life.start, life.start if life.end is None else life.end) for life in found]
    ticks = np.array(pairs, np.uint64).reshape(-1, 2)
    known = np.array([life.end is not None for life in found], np.bool_)
    return {
        "start_ns": column(raw.to_ns(ticks[:, 0]), pa.int64()),
        "end_ns": column(raw.to_ns(ticks[:, 1]), pa.int64(), known),
    }


def processes_table(
    raw: RawTrace, who: processes.Processes, lived: lives.Lives, ends: Mapping[int, End]
) -> pa.Table:
    """Return the table of program images."""
    images = who.images
    cpu_ns = [None if image.replaced else ends.get(image.pid, End()).cpu_ns for image in images]
    found: dict[str, Sequence[Any] | pa.Array] = {
        "pid": [image.pid for image in images],
        "ppid": [image.ppid for image in images],
        "exe": columns.names([image.exe for image in images]),
        "build_id": [processes.build_id(image.exe) for image in images],
        "argv": [[path_text(word) for word in image.argv] for image in images],
        "cwd": columns.names([image.cwd for image in images]),
        "exit": [image.exit for image in images],
        **_times(raw, lived.images),
        "user_ns": [spent and spent[0] for spent in cpu_ns],
        "system_ns": [spent and spent[1] for spent in cpu_ns],
    }
    return columns.table(dataset.PROCESSES, found)


def threads_table(raw: RawTrace, lived: lives.Lives) -> pa.Table:
    """Return the table of threads."""
    who = np.array(list(lived.threads), np.int32).reshape(-1, 2)
    found = {
        "pid": column(who[:, 0].copy(), pa.int32()),
        "tid": column(who[:, 1].copy(), pa.int32()),
        **_times(raw, lived.threads.values()),
    }
    return columns.table(dataset.THREADS, found)


def objects_table(found: Found, row_of: Ints | None) -> pa.Table:
    """Return the table of objects; `row_of` has the row of every event, NOTHING: left out."""
    n = len(found.kind)
    events = found.event
    if row_of is not None:
        events = np.where(events >= 0, np.append(row_of, NOTHING)[events], NOTHING)
    kinds = pa.DictionaryArray.from_arrays(column(found.kind, pa.uint8()), columns.strings(KINDS))
    return columns.table(
        dataset.OBJECTS,
        {
            "object_id": column(np.arange(n, dtype=np.int32), pa.int32()),
            "kind": kinds.dictionary_decode(),
            "dev": column(found.dev, pa.uint64(), found.known),
            "ino": column(found.ino, pa.uint64(), found.known),
            "path": columns.joined_names(found.paths, found.ends),
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
    ends: Mapping[int, End] | None = None,
    kept: Filter | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write a whole trace.

    `inherited` tells what descriptors the traced program began with, `ends` how processes
    ended, where that is known better than from their last call. `progress` is told how many events
    are done, of how many.
    """
    who = processes.find(raw)
    known = joined(ends or {}, raw.ends)
    for image in who.images:
        status = known.get(image.pid, End()).status
        if status is not None and not image.replaced:
            image.exit = status
    lived = lives.find(raw, who, known)
    found = Objects(who, inherited)
    sites = Sites(who)
    masks: list[Mask] = []

    def write(
        chunk: Chunk,
        ids: npt.NDArray[np.int32],
        mapped: list[tuple[int, int, bytes]],
        mask: Mask | None,
    ) -> None:
        sites.add(mapped)
        events = _events(chunk, raw, sites, ids)
        if mask is not None:
            chosen = [None, columns.bits(mask)]
            events = events.filter(pa.Array.from_buffers(pa.bool_(), len(ids), chosen))
        writer.write_events(events)

    done = 0
    # One piece is written while the next is replayed and a third is read: numpy and arrow let
    # others run meanwhile.
    with ThreadPoolExecutor(1) as behind:
        written: Future[None] | None = None
        for chunk in _ahead(raw.chunks(CHUNK)):
            ids = found.of_chunk(chunk)
            mapped = sites.mapped(chunk, ids, found.paths)
            mask = kept.mask(chunk, ids, found.paths) if kept else None
            if mask is not None:
                masks.append(mask)
            if written:
                written.result()
            written = behind.submit(write, chunk, ids, mapped, mask)
            done += len(chunk)
            if progress:
                progress(done, raw.n_calls)
        if written:
            written.result()
    writer.end_events()
    found.finish()
    if kept:
        meta = {**meta, "filter": kept.describe()}
    unseen = sorted({path_text(image.unseen) for image in who.images if image.unseen})
    writer.finish(
        processes_table(raw, who, lived, known),
        objects_table(found.found(), _row_of(masks) if kept else None),
        {
            **meta,
            "lost_events": raw.lost_events,
            "unseen_programs": unseen,
            "adopted_programs": [path_text(exe) for exe in raw.adopted],
            "adopted_why": list(raw.adopted.values()),
            "adopted_by": raw.adopted_by,
        },
        sites.table(),
        threads_table(raw, lived),
    )
