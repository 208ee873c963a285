# SPDX-License-Identifier: MIT
"""Path arguments as (directory, name): working directories and directory descriptors, replayed.

A directory is known by its absolute path as the program spelled it: `..` and symbolic links are not
resolved, so two spellings of one directory count as two. That loses a match, never invents one.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from miner.descriptors import (
    AT_FDCWD,
    NONE,
    Descriptors,
    argument_index,
    by_number,
    last_before,
    number,
    numbers,
    pick,
)
from miner.events import NO_RET, Bools, Events, Ints
from tracer import syscalls

_DOT = re.compile(r"/\.(?=/|$)|//+")


def normal(path: str) -> str:
    """`path` without `//`, `/.` and a slash at its end; `..` stays."""
    if "/." in path or "//" in path:
        path = _DOT.sub(lambda m: "" if m[0] == "/." else "/", path)
        path = re.sub("//+", "/", path)
    while path.startswith("./"):
        path = path[2:]
    return path.rstrip("/") or "/"


@dataclass(frozen=True)
class Arguments:
    """The path argument of each event, taken apart."""

    has: Bools  # the event names something below a directory that is known
    base: Ints  # directory that the path is relative to (of dirfd, or the working directory)
    folder: Ints  # directory that holds the last component; -1: not known
    name: Ints  # last component, into `names`; -1: none
    plain: Bools  # the path is a single component
    relative_to_fd: Bools  # a descriptor was given, not AT_FDCWD
    names: pa.StringArray


class Directories:
    """Directories by absolute path, numbered in order of appearance."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self._ids: dict[str, int] = {}

    def id(self, path: str) -> int:
        """Number of the directory `path`, which is normalized."""
        known = self._ids.get(path)
        if known is None:
            known = self._ids[path] = len(self.paths)
            self.paths.append(path)
        return known

    def join(self, base: int, path: str) -> int:
        """Number of `path` as seen from directory `base` (-1: not known); -1 if that is unknown."""
        if path.startswith("/"):
            return self.id(normal(path))
        if base < 0:
            return -1
        if path in ("", "."):
            return base
        return self.id(normal(posixpath.join(self.paths[base], path)))


class Paths:
    """Replays which directory every descriptor and every path argument means."""

    def __init__(self, events: Events, descriptors: Descriptors) -> None:
        self.events = events
        self.descriptors = descriptors
        self.directories = Directories()
        kinds = syscalls.ArgKind
        self._path_index = by_number(argument_index(kinds.PATH), events.nr)
        self._dirfd_index = by_number(argument_index(kinds.DIRFD), events.nr)
        self.has_path = (events.path.codes >= 0) & (self._path_index >= 0)
        self._empty = np.array([p == "" for p in events.path.values] + [True])[events.path.codes]
        self._dirfd = pick(events, self._dirfd_index)
        self.on_fd = (self._dirfd_index >= 0) & (self._dirfd != AT_FDCWD)
        self.dir_of_def = np.full(len(events) + 1, -1, dtype=np.int64)  # by defining event
        self._cwd_key: list[int] = []
        self._cwd_time: list[int] = []
        self._cwd_dir: list[int] = []
        self._replay()
        self.fd_dir = np.where(
            descriptors.root >= 0, self.dir_of_def[np.maximum(descriptors.root, 0)], -1
        )

    def _replay(self) -> None:
        """Walk the opens of directories and the changes of working directory in time order."""
        events, root = self.events, self.descriptors.root
        getdents = np.isin(events.nr, numbers("getdents64", "getdents"))
        used = self.has_path & self.on_fd & ~self._empty
        as_dir = np.zeros(len(events), dtype=bool)
        fchdir, chdir = events.nr == number("fchdir"), events.nr == number("chdir")
        roots = root[(getdents | used | fchdir) & (root >= 0)]
        as_dir[roots] = True
        opens = np.isin(events.nr, numbers("open", "openat", "openat2"))
        moves = (fchdir | chdir) & (events.ret == 0)
        interesting = np.flatnonzero((as_dir & opens) | moves)
        starts = [(p.start_ns, p.pid, p.cwd) for p in events.processes]
        cwd: dict[int, int] = {}
        next_start = 0
        paths, codes = events.path.values, events.path.codes
        for i in interesting.tolist():
            time, pid = int(events.t_ns[i]), int(events.pid[i])
            while next_start < len(starts) and starts[next_start][0] <= time:
                self._enter(cwd, *starts[next_start])
                next_start += 1
            if fchdir[i]:
                where = int(self.dir_of_def[root[i]]) if root[i] >= 0 else -1
                self._move(cwd, pid, time, where)
                continue
            base = cwd.get(pid, -1)
            if self.on_fd[i]:
                base = int(self.dir_of_def[root[i]]) if root[i] >= 0 else -1
            path = paths[codes[i]] if codes[i] >= 0 else None
            where = -1 if path is None else self.directories.join(base, path)
            if chdir[i]:
                self._move(cwd, pid, time, where)
            else:
                self.dir_of_def[i] = where
        for start in starts[next_start:]:
            self._enter(cwd, *start)

    def _enter(self, cwd: dict[int, int], time: int, pid: int, path: str) -> None:
        if path:
            self._move(cwd, pid, time, self.directories.id(normal(path)))

    def _move(self, cwd: dict[int, int], pid: int, time: int, where: int) -> None:
        cwd[pid] = where
        self._cwd_key.append(pid)
        self._cwd_time.append(time)
        self._cwd_dir.append(where)

    def arguments(self) -> Arguments:
        """Take the path argument of every event apart."""
        events = self.events
        n = len(events)
        has = self.has_path & ~self._empty & (events.ret != NO_RET)
        rows = np.flatnonzero(has)
        key = np.array(self._cwd_key, dtype=np.int64)
        time = np.array(self._cwd_time, dtype=np.int64)
        where = np.append(np.array(self._cwd_dir, dtype=np.int64), NONE)
        cwd = where[last_before(key, time, events.pid[rows], events.t_ns[rows])]
        base = np.where(self.on_fd[rows], self.fd_dir[rows], cwd)
        head, tail, names, heads = _split(events.path.values)
        codes = events.path.codes[rows]
        plain = head[codes] < 0
        folder = base.copy()
        # Few pairs of (base, leading directories): one per directory, not one per event.
        slow = np.flatnonzero(~plain)
        pairs = (base[slow] + 1) * (len(heads) + 1) + head[codes[slow]]
        unique, inverse = np.unique(pairs, return_inverse=True)
        resolved = [
            self.directories.join(int(u) // (len(heads) + 1) - 1, heads[int(u) % (len(heads) + 1)])
            for u in unique
        ]
        folder[slow] = np.array(resolved, dtype=np.int64)[inverse] if len(slow) else folder[slow]
        out = np.full((3, n), -1, dtype=np.int64)
        out[0, rows], out[1, rows], out[2, rows] = base, folder, tail[codes]
        single = np.zeros(n, dtype=bool)
        single[rows] = plain
        return Arguments(has, out[0], out[1], out[2], single, self.on_fd, names)


def _split(paths: list[str]) -> tuple[Ints, Ints, pa.StringArray, list[str]]:
    """Of each path: code of its leading directories (-1: none) and of its last component."""
    array = pa.array(paths, pa.string())
    trimmed = pc.utf8_rtrim(array, characters="/")
    odd = pc.match_substring_regex(trimmed, r"//|(^|/)\.(/|$)")
    if pc.any(odd).as_py():
        fixed = [
            normal(p) if is_odd else p for p, is_odd in zip(paths, odd.to_pylist(), strict=True)
        ]
        trimmed = pc.utf8_rtrim(pa.array(fixed, pa.string()), characters="/")
    slash = pc.match_substring(trimmed, "/").to_numpy(zero_copy_only=False)
    parts = pc.split_pattern(trimmed, "/", max_splits=1, reverse=True)
    first = pc.list_element(parts, 0)
    tails = pc.list_element(pc.filter(parts, pa.array(slash)), 1)
    tail_full = np.array(first.to_pylist(), dtype=object)
    tail_full[slash] = np.array(tails.to_pylist(), dtype=object)
    tail = pa.array(tail_full, pa.string()).dictionary_encode()
    heads = pc.filter(first, pa.array(slash)).dictionary_encode()
    head = np.full(len(paths), -1, dtype=np.int64)
    head[slash] = heads.indices.to_numpy(zero_copy_only=False)
    # "/name" splits into "" and "name": its directory is the root.
    head_values = [value or "/" for value in heads.dictionary.to_pylist()]
    tail_codes = tail.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return head, tail_codes, tail.dictionary, head_values
