# SPDX-License-Identifier: MIT
"""Path arguments as (directory, name).

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

from miner import arrow
from miner.events import NO_RET, Bools, Events, Ints, Objects
from miner.joins import AT_FDCWD, argument_index, last_before, pick
from miner.order import dense
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
        self._spelled: dict[str | None, int] = {}

    def id(self, path: str) -> int:
        """Number of the directory `path`, which is normalized."""
        known = self._ids.get(path)
        if known is None:
            known = self._ids[path] = len(self.paths)
            self.paths.append(path)
        return known

    def of_objects(self, objects: Objects, wanted: Ints) -> Ints:
        """Numbers of the directories that objects are, -1: the path is not known."""
        out = np.full(len(wanted), -1, dtype=np.int64)
        if not len(objects):
            return out
        known, number = self._spelled, self.id
        paths = objects.path.take(arrow.numbers(np.maximum(wanted, 0))).to_pylist()
        for i, path in enumerate(paths):
            found = known.get(path)
            if found is None:
                found = number(normal(path)) if path and path.startswith("/") else -1
                known[path] = found
            out[i] = found
        out[wanted < 0] = -1
        return out

    def join(self, base: int, path: str) -> int:
        """Number of `path` as seen from directory `base` (-1: not known); -1 if that is unknown."""
        if path.startswith("/"):
            return self.id(normal(path))
        if base < 0:
            return -1
        if path in ("", "."):
            return base
        return self.id(normal(posixpath.join(self.paths[base], path)))


def arguments(events: Events, folders: Directories) -> Arguments:
    """Take the path argument of every event apart."""
    kinds = syscalls.ArgKind
    has_path = (events.path.codes >= 0) & (argument_index(kinds.PATH)[events.nr] >= 0)
    dirfd_index = argument_index(kinds.DIRFD)
    on_fd = (dirfd_index >= 0)[events.nr]
    on_fd[on_fd] = pick(events, np.flatnonzero(on_fd), dirfd_index) != AT_FDCWD & 0xFFFFFFFF
    has = has_path & events.path.nonempty & (events.ret != NO_RET)
    rows = np.flatnonzero(has)
    key, time = np.array([m[:2] for m in events.moves], dtype=np.int64).reshape(-1, 2).T
    where = [folders.id(m[2]) if m[2] else -1 for m in events.moves]
    cwd = np.array([*where, -1], dtype=np.int64)[
        last_before(key, time, events.pid[rows], events.t_ns[rows])
    ]
    is_used = np.zeros(len(events.objects) + 1, dtype=bool)
    is_used[events.object[rows][on_fd[rows]]] = True
    used = np.flatnonzero(is_used[:-1])
    of_object = np.full(len(events.objects) + 1, -1, dtype=np.int64)
    of_object[used] = folders.of_objects(events.objects, used)
    base = np.where(on_fd[rows], of_object[events.object[rows]], cwd)
    head, tail, names, heads = _split(events.path.array)
    codes = events.path.codes[rows]
    plain = head[codes] < 0
    folder = base.copy()
    # Few pairs of (base, leading directories): one per directory, not one per event.
    slow = np.flatnonzero(~plain)
    pairs = (base[slow] + 1) * (len(heads) + 1) + head[codes[slow]]
    inverse, first = dense(pairs)
    unique = pairs[first].tolist()
    resolved = [
        folders.join(int(u) // (len(heads) + 1) - 1, heads[int(u) % (len(heads) + 1)])
        for u in unique
    ]
    folder[slow] = np.array(resolved, dtype=np.int64)[inverse]
    out = np.full((2, len(events)), -1, dtype=np.int64)
    out[0, rows], out[1, rows] = folder, tail[codes]
    single = np.zeros(len(events), dtype=bool)
    single[rows] = plain
    return Arguments(has, out[0], out[1], single, on_fd, names)


def _split(array: pa.StringArray) -> tuple[Ints, Ints, pa.StringArray, list[str]]:
    """Of each path: code of its leading directories (-1: none) and of its last component."""
    trimmed = pc.utf8_rtrim(array, characters="/")
    odd = pc.match_substring_regex(trimmed, r"//|(^|/)\.(/|$)")
    if pc.any(odd).as_py():
        fixed = arrow.strings(normal(p) for p in pc.filter(array, odd).to_pylist())
        trimmed = pc.utf8_rtrim(pc.replace_with_mask(array, odd, fixed), characters="/")
    has_slash = pc.match_substring(trimmed, "/")
    slash = arrow.truth(has_slash)
    parts = pc.split_pattern(trimmed, "/", max_splits=1, reverse=True)
    bounds = arrow.integers(parts.offsets, 0)
    first = parts.values.take(arrow.numbers(bounds[:-1]))
    tail = parts.values.take(arrow.numbers(bounds[1:] - 1)).dictionary_encode()
    heads = pc.filter(first, has_slash).dictionary_encode()
    head = np.full(len(array), -1, dtype=np.int64)
    head[slash] = arrow.integers(heads.indices, -1)
    # "/name" splits into "" and "name": its directory is the root.
    head_values = [value or "/" for value in heads.dictionary.to_pylist()]
    tail_codes = arrow.integers(tail.indices, -1)
    return head, tail_codes, tail.dictionary, head_values
