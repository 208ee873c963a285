# SPDX-License-Identifier: MIT
"""What every descriptor argument of a trace refers to.

The calls that change descriptor tables are replayed, process by process, in the order
in which they took effect (tracer/core/objects.c). What a call does to a table is said here, by its
number; what is particular to single calls, by tracer/core/operations.c.

An object is an open file description: each open makes a new one, dup and fork share.
The working directory of a process is kept like a descriptor, as AT_FDCWD.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from tracer import compiled
from tracer.compiled import CLOSE, DUP, EXEC, NO_ARGUMENT, OPEN, RANGE, at, check
from tracer.descriptors import KINDS, Object
from tracer.events import ALL_NRS, Bytes, Chunk, Ints, Mask, Words
from tracer.processes import Processes
from tracer.syscalls import ArgKind, by_name
from tracer.timeline import EXECS

NOTHING = -1
_OPENS = ("open", "openat", "openat2", "creat")
_PAIRS = ("pipe", "pipe2", "socketpair")
_FLAGS_AT = {"socket": 1, "pipe2": 1, "socketpair": 1, "dup3": 2}


@cache
def _effects() -> npt.NDArray[np.void]:
    """By call number: what it does to descriptor tables."""
    calls = by_name()
    found = np.zeros(ALL_NRS, compiled.EFFECT)
    found["fd_at"] = found["flags_at"] = NO_ARGUMENT

    def put(field: str, value: Any, names: Iterable[str]) -> None:
        found[field][[calls[name].nr for name in names]] = value

    for call in calls.values():
        fd_at = call.index(ArgKind.FD, ArgKind.DIRFD)
        flags_at = call.index(ArgKind.OPEN_FLAGS, ArgKind.FLAGS)
        # close_range's arguments are a range of descriptors.
        if fd_at is not None and call.name != "close_range":
            found["fd_at"][call.nr] = fd_at
        if call.returns_fd and flags_at is not None:
            found["flags_at"][call.nr] = flags_at
    for name, flags_at in _FLAGS_AT.items():
        put("flags_at", flags_at, [name])
    made = [name for name, call in calls.items() if call.returns_fd]
    put("does", OPEN, [*made, *_PAIRS, "chdir"])
    put("does", DUP, ["dup", "dup2", "dup3", "fchdir", "fcntl", "ioctl"])
    put("does", CLOSE, ["close"])
    put("does", RANGE, ["close_range"])
    put("does", EXEC, EXECS)
    put("late", True, [*made, *_PAIRS, "fcntl"])
    put("opens", True, [*_OPENS, "chdir"])
    put("kind", KINDS.index("file"), _OPENS)
    put("kind", KINDS.index("pipe"), ["pipe", "pipe2"])
    put("kind", KINDS.index("socket"), ["socket", "accept", "accept4", "socketpair"])
    put("kind", KINDS.index("directory"), ["chdir"])
    put("tells", True, ["fstat", "newfstatat", "statx"])
    put("lists", True, ["getdents64", "getdents", "fchdir"])
    return found


def _joined(texts: Sequence[bytes]) -> tuple[Bytes, npt.NDArray[np.uint64]]:
    """Return texts one behind the other, and where each ends."""
    data = np.frombuffer(b"".join(texts) + b"\0", np.uint8)
    return data, np.cumsum([len(text) for text in texts]).astype(np.uint64)


class _Paths(Sequence[bytes | None]):
    """The path of each object, as it is known now."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._path = compiled.function("objects_path")

    def __len__(self) -> int:
        return len(self._objects)

    @overload
    def __getitem__(self, index: int) -> bytes | None: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes | None]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes | None] | None:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        size = ctypes.c_uint64()
        where = self._path(self._objects.handle, index, size)
        return ctypes.string_at(where, size.value) or None

    def __iter__(self) -> Iterator[bytes | None]:
        return (self[i] for i in range(len(self)))


@dataclass(frozen=True)
class Found:
    """All objects, as columns."""

    kind: npt.NDArray[np.uint8]
    """Position in descriptors.KINDS."""
    event: Ints
    """Row of the call that made each; NOTHING: it was there before."""
    known: Mask
    """Whether dev and ino are."""
    dev: Words
    ino: Words
    paths: Bytes
    """One behind the other: absolute where that is known; joined, not resolved. Empty: unknown."""
    ends: Ints
    """Of each path; one more than there are objects."""


class Objects:
    """Replays a trace chunk by chunk; `inherited` says what the first program began with."""

    def __init__(self, processes: Processes, inherited: Mapping[int, Object] | None = None) -> None:
        """Raises NativeFileError."""
        before = list((inherited or {}).values())
        images = sorted(processes.images, key=lambda image: image.fork_tsc)
        cwds, cwd_ends = _joined([image.cwd for image in images])
        starts = np.zeros(len(images) + 1, compiled.START)[: len(images)]
        starts["tsc"] = [image.fork_tsc for image in images]
        starts["table"] = [image.table for image in images]
        starts["parent"] = [image.parent.table if image.parent else NOTHING for image in images]
        starts["cwd_end"] = cwd_ends
        paths, path_ends = _joined([what.path or b"" for what in before])
        born = np.zeros(len(before), compiled.INHERITED)
        born["fd"] = list(inherited or {})
        born["kind"] = [KINDS.index(what.kind) for what in before]
        born["path_end"] = path_ends
        born["dev"] = [what.dev or 0 for what in before]
        born["ino"] = [what.ino or 0 for what in before]
        born["known"] = [None not in (what.dev, what.ino) for what in before]
        table_of = np.array([image.table for image in processes.of_thread] or [0], np.int32)
        n_tables = int(max(table_of.max(), starts["table"].max(initial=0))) + 1
        self._kept: list[npt.NDArray[Any]] = [_effects(), table_of, starts, cwds, born, paths]
        world = compiled.World(*map(at, self._kept), n_tables, len(starts), len(born))
        self.handle = compiled.function("objects_create")(world)
        """Of tracer/core/."""
        if not self.handle:
            raise MemoryError
        self._destroy = compiled.function("objects_destroy")
        self.paths: Sequence[bytes | None] = _Paths(self)
        """Not to be read while of_chunk() runs."""

    def __del__(self) -> None:
        if handle := getattr(self, "handle", None):
            self._destroy(handle)

    def __len__(self) -> int:
        return int(compiled.function("objects_count")(self.handle))

    def of_chunk(self, chunk: Chunk) -> npt.NDArray[np.int32]:
        """Return the object of the first descriptor argument of every call; NOTHING: none known.

        To be called for every chunk in turn, and finish() behind the last.
        """
        found = np.empty(len(chunk), np.int32)
        check(compiled.function("objects_of")(self.handle, chunk.native(), at(found)))
        return found

    def finish(self) -> None:
        """Take what is left: programs without a call, calls that ended after all others began."""
        check(compiled.function("objects_finish")(self.handle))

    def found(self) -> Found:
        """Return all that was found; the paths are a copy."""
        n = len(self)
        kind, known = np.empty(n, np.uint8), np.empty(n, np.bool_)
        event, dev, ino = np.empty(n, np.int64), np.empty(n, np.uint64), np.empty(n, np.uint64)
        ends = np.zeros(n + 1, np.int64)
        columns: list[npt.NDArray[Any]] = [kind, event, known, dev, ino, ends[1:]]
        compiled.function("objects_columns")(self.handle, *map(at, columns))
        where = compiled.function("objects_path")(self.handle, 0, ctypes.c_uint64()) if n else None
        joined = ctypes.string_at(where, int(ends[-1])) if where else b""
        return Found(kind, event, known, dev, ino, np.frombuffer(joined, np.uint8), ends)
