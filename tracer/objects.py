# SPDX-License-Identifier: MIT
"""What every descriptor argument of a trace refers to.

The calls that change descriptor tables are replayed, process by process, in the order
in which they took effect: a call that returns a descriptor at its end, one that takes
a descriptor away at its entry. What a call does to a table is worked out for all calls
of a chunk at once (operations.py), so that the replay itself is a few dictionary accesses for each.
All others look up which object their descriptor had at their entry, all at once as well: those of
descriptors that changed are sorted by (process, descriptor) with the changes among them, and each
takes the last change before it.

An object is an open file description: each open makes a new one, dup and fork share.
The working directory of a process is kept like a descriptor, as AT_FDCWD.
"""

from __future__ import annotations

import posixpath
from array import array
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tracer.descriptors import Object, kind_of_mode
from tracer.events import ALL_NRS, MAX_TIME, OUT_STAT, Chunk, Ints
from tracer.operations import (
    AT_FDCWD,
    CLOSE,
    DUP,
    EXEC,
    KINDS,
    NOTHING,
    OPEN,
    Operations,
    Reader,
    numbers,
)
from tracer.processes import Image, Processes
from tracer.syscalls import ArgKind, by_nr

NO_FD = 255
_NEVER = MAX_TIME * 4
_Table = dict[int, int]  # descriptor -> object * 2 + close-on-exec


class _Change(NamedTuple):
    """From this time on, a descriptor of a table means this object."""

    table: int
    fd: int
    tsc: int
    held: int


def _fd_arguments() -> npt.NDArray[np.uint8]:
    """By call number: which argument is the descriptor, NO_FD: none.

    close_range's arguments are a range of descriptors.
    """
    where = np.full(ALL_NRS, NO_FD, np.uint8)
    for nr, call in by_nr().items():
        at = call.index(ArgKind.FD, ArgKind.DIRFD)
        if at is not None and call.name != "close_range":
            where[nr] = at
    return where


class Objects:
    """Replays a trace chunk by chunk; `inherited` says what the first program began with."""

    def __init__(self, processes: Processes, inherited: Mapping[int, Object] | None = None) -> None:
        self.kinds: list[str] = []
        self.paths: list[bytes | None] = []
        """Absolute where that is known; joined, not resolved: symbolic links stay."""
        self.events = array("q")
        """Row of the call that made each; NOTHING: it was there before."""
        self.inodes: dict[int, tuple[int, int]] = {}
        """Device and inode of what was there before, as far as they are known."""
        self.stats: list[tuple[Ints, npt.NDArray[np.void]]] = []
        """Objects, and what fstat said of them (OUT_STAT)."""
        self._inherited = dict(inherited or {})
        self._waiting = sorted(processes.images, key=lambda image: image.fork_tsc)[::-1]
        self._tables: dict[int, _Table] = {}
        self._table_of = np.array([image.table for image in processes.of_thread] or [0], np.int64)
        self._reader = Reader(self._table_of)
        self._late = Operations.none()
        """What takes effect only after the events seen so far."""
        self._changes: list[_Change] = []
        self._asked = np.zeros(1, np.bool_)
        """By object: a call told its kind. Longer than there are objects."""
        self._listed: set[int] = set()
        self._fd_at = _fd_arguments()
        self._tells = numbers("fstat", "newfstatat", "statx")
        self._lists = numbers("getdents64", "getdents", "fchdir")
        self._n_rows = 0

    def of_chunk(self, chunk: Chunk) -> npt.NDArray[np.int32]:
        """Return the object of the first descriptor argument of every call; NOTHING: none known.

        To be called for every chunk in turn, and finish() behind the last.
        """
        end = int(chunk.tsc[-1])
        tables = np.unique(self._table_of[np.unique(chunk.thread)]).tolist()
        self._changes = [
            _Change(table, fd, 0, value >> 1)
            for table in tables
            for fd, value in self._tables.get(table, {}).items()
        ]
        now, self._late = self._late.then(self._reader.read(chunk, self._n_rows)).until(end)
        held = self._replay(now, end)
        found = self._look_up(chunk, now, held)
        self._n_rows += len(chunk)
        self._learn(chunk, found)
        return found

    def finish(self) -> None:
        """Take what is left: programs without a call, calls that ended after all others began."""
        self._replay(self._late, _NEVER)
        for made in self._listed:
            self.kinds[made] = "directory"

    # --- the replay ----------------------------------------------------------

    def _found(self, kind: str, path: bytes | None) -> int:
        """Return a new object for what was there before."""
        self.kinds.append(kind)
        self.paths.append(path)
        self.events.append(NOTHING)
        return len(self.kinds) - 1

    def _replay(self, operations: Operations, end: int) -> list[int]:
        """Apply operations in turn; returns what each one's descriptor means from then on.

        Programs that begin before `end` do so at their time.
        """
        held: list[int] = []
        note = held.append
        new_kind, new_path, new_event = self.kinds.append, self.paths.append, self.events.append
        for tsc, op, table, fd, other, cloexec, kind, path, row in operations.rows():
            if self._waiting and self._waiting[-1].fork_tsc <= tsc:
                self._start_until(tsc)
            at = self._tables[table]
            if op == CLOSE:
                at.pop(fd, None)
                note(NOTHING)
            elif op == OPEN:
                made = len(self.kinds)
                new_kind(KINDS[kind])
                new_path(self._joined(at, other, path) if path else None)
                new_event(row)
                at[fd] = made * 2 + cloexec
                note(made)
            elif op == DUP:
                value = at.get(other)
                if value is None:
                    at.pop(fd, None)
                    note(NOTHING)
                else:
                    at[fd] = value & ~1 | cloexec
                    note(value >> 1)
            elif op == EXEC:
                self._drop(table, [has for has, value in at.items() if value & 1], tsc)
                note(NOTHING)
            else:
                inside = [has for has in at if fd <= has <= other]
                if cloexec:
                    at.update({has: at[has] | 1 for has in inside})
                else:
                    self._drop(table, inside, tsc)
                note(NOTHING)
        self._start_until(end - 1)
        return held

    def _drop(self, table: int, fds: list[int], tsc: int) -> None:
        for fd in fds:
            del self._tables[table][fd]
            self._changes.append(_Change(table, fd, tsc, NOTHING))

    def _start_until(self, tsc: int) -> None:
        while self._waiting and self._waiting[-1].fork_tsc <= tsc:
            image = self._waiting.pop()
            if image.table not in self._tables:
                self._start(image)

    def _start(self, image: Image) -> None:
        """Start a process with a copy of its parent's table, or with its cwd alone."""
        parent = self._tables.get(image.parent.table) if image.parent else None
        table = self._tables[image.table] = dict(parent or {})
        if AT_FDCWD not in table:
            table[AT_FDCWD] = self._found("directory", image.cwd or None) * 2
        if image.parent is None:
            for fd, what in self._inherited.items():
                made = self._found(what.kind, what.path)
                if what.dev is not None and what.ino is not None:
                    self.inodes[made] = what.dev, what.ino
                table[fd] = made * 2
        self._changes += [
            _Change(image.table, fd, image.fork_tsc, value >> 1) for fd, value in table.items()
        ]

    def _joined(self, table: _Table, dirfd: int, path: bytes) -> bytes | None:
        """Join a path with what it is relative to."""
        if path[0] != 0x2F:
            at = table.get(dirfd)
            base = None if at is None else self.paths[at >> 1]
            if base is None:
                return None
            path = base + path if base == b"/" else base + b"/" + path
        if b"/." in path or b"//" in path:
            path = posixpath.normpath(path)
        return path

    # --- everything else -----------------------------------------------------

    def _look_up(
        self, chunk: Chunk, operations: Operations, held: list[int]
    ) -> npt.NDArray[np.int32]:
        result = np.full(len(chunk), NOTHING, np.int32)
        fd_at = self._fd_at[chunk.nr]
        rows = np.flatnonzero(fd_at != NO_FD)
        change = np.array(self._changes, np.int64).reshape(-1, 4)
        single = (operations.op == CLOSE) | (operations.op == OPEN) | (operations.op == DUP)
        table, fd, tsc, value = (
            np.concatenate([change[:, k], column[single]])
            for k, column in enumerate(
                (operations.table, operations.fd, operations.tsc, np.array(held, np.int64))
            )
        )
        if not len(table) or not len(rows):
            return result
        order = np.argsort(tsc, kind="stable")
        table, fd, tsc, value = table[order], fd[order], tsc[order], value[order]
        # A number for each descriptor of each table of which something is known; 0: all others.
        tables, fds = np.unique(table), np.unique(fd)
        set_key = np.searchsorted(tables, table) * len(fds) + np.searchsorted(fds, fd) + 1
        rank = np.full(int(self._table_of.max()) + 1, NOTHING)
        rank[tables] = np.arange(len(tables))
        used = chunk.args[fd_at[rows], rows].astype(np.uint32).view(np.int32).astype(np.int64)
        at = np.minimum(np.searchsorted(fds, used), len(fds) - 1)
        of = rank[self._table_of][chunk.thread[rows]]
        use_key = np.where((of >= 0) & (fds[at] == used), of * len(fds) + at + 1, 0)
        # Most stay what they are for the whole chunk.
        before = np.full(len(tables) * len(fds) + 1, NOTHING, np.int32)
        before[set_key[tsc == 0]] = value[tsc == 0]
        result[rows] = before[use_key]
        moves = np.zeros(len(before), np.bool_)
        moves[set_key[tsc > 0]] = True
        rows, use_key, moved = rows[moves[use_key]], use_key[moves[use_key]], moves[set_key]
        set_at = np.searchsorted(chunk.tsc[rows], tsc[moved].astype(np.uint64), "right")
        result[rows] = _last_before(set_key[moved], value[moved], set_at, use_key)
        return result

    def _learn(self, chunk: Chunk, found: npt.NDArray[np.int32]) -> None:
        """Take kinds, devices and inodes from what fstat said; what has entries is a directory."""
        listed = self._lists[chunk.nr] & (chunk.ret >= 0) & (found >= 0)
        self._listed.update(np.unique(found[listed]).tolist())
        told = self._tells[chunk.nr] & (chunk.path_len == 0) & (found >= 0)
        told &= chunk.out_len == OUT_STAT.itemsize
        if len(self._asked) < len(self.kinds):
            self._asked = np.append(self._asked, np.zeros(len(self.kinds), np.bool_))
        rows = np.flatnonzero(told)
        rows = rows[~self._asked[found[rows]]]
        # The first answer for each object is enough.
        rows = rows[np.sort(np.unique(found[rows], return_index=True)[1])]
        ids, some = found[rows], chunk.take(rows)
        answers = some.payload(some.path2_len, some.out_len)[0].view(OUT_STAT)
        for made, mode in zip(ids.tolist(), answers["mode"].tolist(), strict=True):
            self.kinds[made] = kind_of_mode(mode, self.paths[made])
        self.stats.append((ids.astype(np.int64), answers))
        self._asked[ids] = True


def _last_before(
    set_key: Ints, value: Ints, set_at: npt.NDArray[np.intp], use_key: Ints
) -> npt.NDArray[np.int32]:
    """Return for each use the value of the last setting of its key; NOTHING: there is none.

    `set_at[i]`, ascending: how many uses come before setting i.
    """
    if not len(set_key) or not len(use_key):
        return np.full(len(use_key), NOTHING, np.int32)
    n = len(set_key) + len(use_key)
    place = set_at + np.arange(len(set_key))
    sets = np.zeros(n, np.bool_)
    sets[place] = True
    key = np.empty(n, np.int64)
    key[place], key[~sets] = set_key, use_key
    held = np.empty(n, np.int32)
    held[place] = value
    if key.max() < 1 << 16:
        key = key.astype(np.uint16)  # sorted by its digits: ten times as fast
    order = np.argsort(key, kind="stable")
    key, of = key[order], sets[order]
    last = np.maximum.accumulate(np.where(of, np.arange(n), -1))[~of]
    good = (last >= 0) & (key[last] == key[~of])
    found = np.empty(n, np.int32)
    found[order[~of]] = np.where(good, held[order[last]], NOTHING)
    return found[~sets]
