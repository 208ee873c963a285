# SPDX-License-Identifier: MIT
"""What a summary says besides its table: processes, files, call sites, and the boundary itself."""

from __future__ import annotations

import os
import posixpath
import shlex
import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tracer.columns import column
from tracer.dataset import Dataset
from tracer.syscalls import SyscallClass, by_name

Ints = npt.NDArray[np.int64]

MEASURED_CALLS = 4000
EINTR = 4
RESTARTS = (512, 513, 514, 516)  # ERESTARTSYS and its kin, as the kernel returns them


@dataclass(frozen=True)
class Process:
    """One process, whatever programs it ran."""

    pid: int
    ppid: int
    depth: int
    """0: nobody who was recorded started it."""
    programs: list[str]
    calls: int
    time_ns: int
    """Inside calls."""
    exit: int | None


@dataclass(frozen=True)
class File:
    """One path, and what was done with it by name or descriptor."""

    path: str
    calls: int
    errors: int
    time_ns: int
    bytes: int


@dataclass(frozen=True)
class Site:
    """A place in a program or library that makes calls."""

    site: str
    symbol: str
    calls: int
    time_ns: int


@dataclass(frozen=True)
class Boundary:
    """What crossing into the kernel costs, and how much of that compounds could remove."""

    crossing_ns: int
    """An empty call, measured when the trace was written; else now, on this machine."""
    removable_calls: int
    """Calls without side effects in hot sequences, less one crossing for each occurrence."""

    @property
    def removable_ns(self) -> int:
        """What the crossings alone of these calls cost."""
        return self.removable_calls * self.crossing_ns


def crossing_ns() -> int:
    """Measure an empty call: getppid(2) against a call that stays in the interpreter."""

    def best(function: object) -> int:
        assert callable(function)
        times = []
        for _ in range(5):
            begin = time.perf_counter_ns()
            for _ in range(MEASURED_CALLS):
                function()
            times.append(time.perf_counter_ns() - begin)
        return min(times)

    return max(1, (best(os.getppid) - best(tuple)) // MEASURED_CALLS)


def harmless(names: list[str]) -> int:
    """Count the calls of a sequence that a compound may make: `read+` counts as one."""
    classes = (SyscallClass.PURE, SyscallClass.POSITIONAL)
    calls = by_name()
    plain = [name.rstrip("+") for name in names]
    return sum(name in calls and calls[name].cls in classes for name in plain)


def processes(data: Dataset, pid: Ints, duration: Ints) -> list[Process]:
    """Return all processes, each behind its parent, in the order of their start."""
    known, inverse, calls = np.unique(pid, return_inverse=True, return_counts=True)
    spent = np.bincount(inverse, duration, minlength=len(known)).astype(np.int64)
    sums = {p: (int(n), int(t)) for p, n, t in zip(known.tolist(), calls, spent, strict=True)}
    rows = data.processes().to_pylist()
    of: dict[int, list[dict[str, object]]] = {}
    for row in rows:
        of.setdefault(row["pid"], []).append(row)
    children: dict[int, list[int]] = {}
    for member, images in of.items():
        parent = images[0]["ppid"]
        assert isinstance(parent, int)
        children.setdefault(parent if parent in of and parent != member else 0, []).append(member)
    found: list[Process] = []
    stack = [(member, 0) for member in reversed(children.get(0, []))]
    seen: set[int] = set()
    ran: dict[int, list[str]] = {}
    while stack:
        member, depth = stack.pop()
        if member in seen:
            continue
        seen.add(member)
        images = of[member]
        kept: list[str] = []
        for program in (_program(image) for image in images):
            if program != (kept or [""])[-1]:
                kept.append(program)
        # A child begins as a copy of its parent: that is no news.
        if len(kept) > 1 and depth and kept[0] in ran.get(int(str(images[0]["ppid"])), []):
            del kept[0]
        ran[member] = kept
        count, spent_ns = sums.get(member, (0, 0))
        last = images[-1]["exit"]
        ppid = images[0]["ppid"]
        assert isinstance(ppid, int)
        ended = last if isinstance(last, int) else None
        found.append(Process(member, ppid, depth, kept, count, spent_ns, ended))
        stack += [(child, depth + 1) for child in reversed(children.get(member, []))]
    return found


def _program(image: dict[str, object]) -> str:
    argv, exe = image["argv"], image["exe"]
    if isinstance(argv, list) and argv:
        return shlex.join([posixpath.basename(argv[0]) or argv[0], *argv[1:]])
    return str(exe or "?")


def files(data: Dataset, table: pa.Table, duration: Ints, errors: Ints, moved: Ints, n: int
          ) -> list[File]:  # fmt: skip
    """Return the n files on which the most time was spent, over all that name or have them."""
    names = table["path"].combine_chunks()
    if isinstance(names, pa.ChunkedArray):
        names = names.chunk(0) if names.num_chunks else pa.array([], table["path"].type)
    if not len(names):
        return []
    obj = table["object_id"].fill_null(-1).to_numpy().astype(np.int64)
    code = names.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    pairs = column((obj + 1) << 32 | (code + 1), pa.int64()).dictionary_encode()
    pair = pairs.dictionary.to_numpy()
    paths = _joined(
        data.objects()["path"].combine_chunks().take(_or_null(pair >> 32)),
        names.dictionary.take(_or_null(pair & 0xFFFFFFFF)),
    ).dictionary_encode()
    words = len(paths.dictionary)
    which = paths.indices.fill_null(words).to_numpy(zero_copy_only=False)[pairs.indices.to_numpy()]
    if not words:
        return []
    calls, failed, time_ns, size = (
        np.bincount(which, weights, minlength=words + 1)[:words].astype(np.int64)
        for weights in (None, errors, duration, moved)
    )
    least = np.partition(time_ns, max(words - n, 0))[max(words - n, 0)]
    at = np.flatnonzero(time_ns >= least)  # nobody needs the order of the rest
    found = zip(paths.dictionary.take(column(at, pa.int64())).to_pylist(), at.tolist(), strict=True)
    best = sorted(found, key=lambda item: (-time_ns[item[1]], item[0]))[:n]
    return [
        File(path, int(calls[i]), int(failed[i]), int(time_ns[i]), int(size[i])) for path, i in best
    ]


def _or_null(places: Ints) -> pa.Array:
    """Return places that count from one, 0 as null."""
    return column(places - 1, pa.int64(), places > 0)


def _joined(base: pa.Array, name: pa.Array) -> pa.Array:
    """Return what names mean that are relative to these folders, as posixpath.join would."""
    base = base.cast(pa.string())
    name = name.cast(pa.string())
    folder = pc.fill_null(base, "")
    bare = pc.or_(pc.equal(folder, ""), pc.ends_with(folder, "/"))
    full = pc.binary_join_element_wise(folder, name, pc.if_else(bare, "", "/"))
    named = pc.if_else(pc.starts_with(name, "/"), name, full)
    return pc.if_else(pc.fill_null(pc.not_equal(name, ""), False), named, base)


def sites(data: Dataset, table: pa.Table, duration: Ints, n: int) -> list[Site]:
    """Return the n call sites at which the most time was spent."""
    column = table["site"].combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks else pa.array([], table["site"].type)
    if not len(column):
        return []
    words = column.dictionary.to_pylist()
    code = column.indices.fill_null(len(words)).to_numpy(zero_copy_only=False).astype(np.int64)
    time_ns = np.bincount(code, duration, minlength=len(words) + 1)
    calls = np.bincount(code, minlength=len(words) + 1)
    symbol = {row["site"]: row["symbol"] for row in data.sites().to_pylist()}
    best = np.argsort(-time_ns[: len(words)], kind="stable")[:n].tolist()
    return [
        Site(words[at], symbol.get(words[at]) or "", int(calls[at]), int(time_ns[at]))
        for at in best
        if calls[at]
    ]


def own_ns(tid: Ints, start: Ints, duration: Ints) -> int:
    """Return the time between calls: of each thread from its first call to its last."""
    if not len(tid):
        return 0
    order = np.argsort(tid, kind="stable")
    tid, start, end = tid[order], start[order], (start + duration)[order]
    first = np.flatnonzero(np.r_[True, np.diff(tid) != 0])
    total = 0
    for part in np.split(np.arange(len(tid)), first[1:]):
        # A handler's calls lie within the call that it interrupted.
        reached = np.maximum.accumulate(end[part])
        total += int(np.maximum(start[part][1:] - reached[:-1], 0).sum())
    return total
