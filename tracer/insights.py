# SPDX-License-Identifier: MIT
"""What a summary says besides its table: processes, files, call sites, and the boundary itself."""

from __future__ import annotations

import os
import posixpath
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tracer.columns import column, numbers, strings
from tracer.dataset import Dataset
from tracer.syscalls import SyscallClass, by_name

Ints = npt.NDArray[np.int64]

MEASURED_CALLS = 4000
MAX_ROWS = 1 << 20  # of sums by path, until those of the same path are put together
NOTHING = -1
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
    start_ns: int
    end_ns: int | None
    """CLOCK_MONOTONIC, as start_ns; null: it went on, or its end was not seen."""
    user_ns: int | None
    """CPU time of its own; null: not known."""
    system_ns: int | None

    @property
    def life_ns(self) -> int | None:
        """How long it lived."""
        return None if self.end_ns is None else self.end_ns - self.start_ns

    @property
    def cpu_ns(self) -> int | None:
        """User and system time."""
        if self.user_ns is None or self.system_ns is None:
            return None
        return self.user_ns + self.system_ns


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


def by_number(number: Ints, duration: Ints) -> dict[int, tuple[int, int]]:
    """Return calls and time inside them, by process or whatever else the numbers mean."""
    known, inverse, calls = np.unique(number, return_inverse=True, return_counts=True)
    spent = np.bincount(inverse, duration, minlength=len(known)).astype(np.int64)
    rows = zip(known.tolist(), calls.tolist(), spent.tolist(), strict=True)
    return {value: (n, time_ns) for value, n, time_ns in rows}


def processes(data: Dataset, sums: Mapping[int, tuple[int, int]]) -> list[Process]:
    """Return all processes, each behind its parent, in the order of their start.

    `sums` has the calls of each and the time inside them.
    """
    rows = data.processes().to_pylist()
    of: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        of.setdefault(row["pid"], []).append(row)
    children: dict[int, list[int]] = {}
    for member, images in of.items():
        parent = images[0]["ppid"]
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
        if len(kept) > 1 and depth and kept[0] in ran.get(images[0]["ppid"], []):
            del kept[0]
        ran[member] = kept
        count, spent_ns = sums.get(member, (0, 0))
        first, last = images[0], images[-1]
        life = (first["start_ns"], last["end_ns"], last["user_ns"], last["system_ns"])
        found.append(
            Process(member, first["ppid"], depth, kept, count, spent_ns, last["exit"], *life)
        )
        stack += [(child, depth + 1) for child in reversed(children.get(member, []))]
    return found


def _program(image: dict[str, Any]) -> str:
    argv, exe = image["argv"], image["exe"]
    if isinstance(argv, list) and argv:
        return shlex.join([posixpath.basename(argv[0]) or argv[0], *argv[1:]])
    return str(exe or "?")


class Files:
    """Adds up what was done with each path, by name or descriptor; memory grows with the paths."""

    def __init__(self, data: Dataset) -> None:
        self._objects = data.objects()["path"].combine_chunks()
        self._found: list[pa.Table] = []
        self._rows, self._most = 0, MAX_ROWS

    def add(self, path: pa.Array, object_id: pa.Array, **sums: Ints) -> None:
        """Take some calls; `sums` has what is to be added up of each, by name."""
        names = path if pa.types.is_dictionary(path.type) else path.dictionary_encode()
        held, code = numbers(object_id, NOTHING), numbers(names.indices, NOTHING)
        pairs = column((held + 1) << 32 | (code + 1), pa.int64()).dictionary_encode()
        pair = numbers(pairs.dictionary)
        paths = _joined(
            self._objects.take(_or_null(pair >> 32)),
            names.dictionary.take(_or_null(pair & 0xFFFFFFFF)),
        )
        which = numbers(pairs.indices)
        found = {"path": paths}
        for name, values in sums.items():
            added = np.bincount(which, values, minlength=len(pair)).astype(np.int64)
            found[name] = column(added, pa.int64())
        table = pa.table(found)
        if named := len(paths) - paths.null_count:
            self._found.append(table.filter(table["path"].is_valid()))
        self._rows += named
        if self._rows > self._most:
            self._found = [self._merged()]
            self._rows = self._found[0].num_rows
            self._most = max(MAX_ROWS, 2 * self._rows)

    def _merged(self) -> pa.Table:
        """Return one row for each path."""
        every = pa.concat_tables(self._found)
        paths = every["path"].combine_chunks().dictionary_encode()
        which = numbers(paths.indices)
        found = {"path": paths.dictionary}
        for name in every.column_names[1:]:  # arrow's group_by loads pandas
            values = numbers(every[name].combine_chunks())
            added = np.bincount(which, values, minlength=len(paths.dictionary))
            found[name] = column(added.astype(np.int64), pa.int64())
        return pa.table(found)

    def best(self, n: int) -> list[File]:
        """Return the n paths on which the most time was spent."""
        if not self._found:
            return []
        every = self._merged()
        order = [("time_ns", "descending"), ("path", "ascending")]
        rows = pc.select_k_unstable(every, n, order)
        return [File(**row) for row in every.take(rows).to_pylist()]


def _or_null(places: Ints) -> pa.Array:
    """Return places that count from one, 0 as null."""
    return column(places - 1, pa.int64(), places > 0)


def _joined(base: pa.Array, name: pa.Array) -> pa.Array:
    """Return what names mean that are relative to these folders, as posixpath.join would."""
    base = base.cast(pa.string())
    name = name.cast(pa.string())
    empty, slash = strings(["", "/"])  # scalars of Python's kinds load pandas
    folder = pc.fill_null(base, empty)
    bare = pc.or_(pc.equal(folder, empty), pc.ends_with(folder, "/"))
    full = pc.binary_join_element_wise(folder, name, pc.if_else(bare, empty, slash))
    named = pc.if_else(pc.starts_with(name, "/"), name, full)
    is_named = pc.and_kleene(pc.is_valid(name), pc.not_equal(name, empty))
    return pc.if_else(is_named, named, base)


def sites(data: Dataset, sums: Mapping[str, tuple[int, int]], n: int) -> list[Site]:
    """Return the n call sites at which the most time was spent; `sums`: their calls and time."""
    symbol = {row["site"]: row["symbol"] for row in data.sites().to_pylist()}
    best = sorted(sums, key=lambda site: -sums[site][1])[:n]
    return [Site(site, symbol.get(site) or "", *sums[site]) for site in best]


class OwnTime:
    """Adds up the time between calls: of each thread from its first call to its last."""

    def __init__(self) -> None:
        self.ns = 0
        self._reached: dict[int, int] = {}
        """By thread: the end of what it has done so far."""

    def add(self, tid: Ints, start: Ints, duration: Ints) -> None:
        """Take some calls, sorted by their start and none earlier than those before."""
        order = np.argsort(tid, kind="stable")
        tid, start, end = tid[order], start[order], (start + duration)[order]
        first = np.flatnonzero(np.diff(tid, prepend=tid[:1] - 1) != 0).tolist()
        for begin, stop in pairwise([*first, len(tid)]):
            who = int(tid[begin])
            # A handler's calls lie within the call that it interrupted.
            before = self._reached.get(who, int(start[begin]))
            reached = np.maximum.accumulate(np.append(before, end[begin:stop]))
            self.ns += int(np.maximum(start[begin:stop] - reached[:-1], 0).sum())
            self._reached[who] = int(reached[-1])


def own_ns(tid: Ints, start: Ints, duration: Ints) -> int:
    """Return the time between calls."""
    own = OwnTime()
    own.add(tid, start, duration)
    return own.ns
