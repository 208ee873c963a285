# SPDX-License-Identifier: MIT
"""What calls do to descriptor tables, worked out for many calls at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from tracer.events import ALL_NRS, Chunk, Ints, Mask, Rows
from tracer.syscalls import ArgKind, by_name
from tracer.timeline import EXECS

AT_FDCWD = -100
NOTHING = -1
O_DIRECTORY = 0o200000
O_CLOEXEC = 0o2000000
MFD_CLOEXEC = 1
F_DUPFD, F_SETFD, F_DUPFD_CLOEXEC = 0, 2, 1030
FD_CLOEXEC = 1
FIONCLEX, FIOCLEX = 0x5450, 0x5451
CLOSE_RANGE_CLOEXEC = 4

NONE = 0
CLOSE = 1  # fd
OPEN = 2  # fd: a new object; its path is relative to `other`
DUP = 3  # fd: what `other` is; the same descriptor: only close-on-exec changes
EXEC = 4
RANGE = 5  # fd to other: closed, or marked close-on-exec
KINDS = ("other", "file", "directory", "socket", "pipe")
_OTHER, _FILE, _DIRECTORY, _SOCKET, _PIPE = range(len(KINDS))
_LOW = np.uint64(0xFFFFFFFF)

Row = tuple[int, int, int, int, int, int, int, bytes, int]


def numbers(*names: str) -> Mask:
    """By call number: is it one of these calls?"""
    found = np.zeros(ALL_NRS, np.bool_)
    found[[by_name()[name].nr for name in names]] = True
    return found


@dataclass
class Operations:
    """Operations in the order in which they take effect; arrays run in parallel."""

    tsc: Ints
    op: Ints
    table: Ints
    fd: Ints
    other: Ints
    cloexec: Ints
    kind: Ints
    """Of the new object: position in KINDS."""
    path: npt.NDArray[np.object_]
    """bytes; b"": none known."""
    row: Ints
    """Of the call, in the whole trace."""

    @classmethod
    def none(cls) -> Operations:
        """Return no operations."""
        n = np.empty(0, np.int64)
        return cls(n, n, n, n, n, n, n, np.empty(0, np.object_), n)

    def _columns(self) -> list[npt.NDArray[Any]]:
        return [getattr(self, field.name) for field in fields(self)]

    def take(self, rows: Rows | slice) -> Operations:
        """Return these operations."""
        return Operations(*(column[rows] for column in self._columns()))

    def then(self, later: Operations) -> Operations:
        """Return these and the operations of later calls, in the order of their effect."""
        pairs = zip(self._columns(), later._columns(), strict=True)
        every = Operations(*(np.concatenate(pair) for pair in pairs))
        return every.take(np.argsort(every.tsc, kind="stable"))

    def until(self, tsc: int) -> tuple[Operations, Operations]:
        """Return what takes effect before `tsc`, and the rest."""
        at = int(np.searchsorted(self.tsc, tsc))
        return self.take(slice(at)), self.take(slice(at, None))

    def rows(self) -> Iterator[Row]:
        """Yield one operation after the other."""
        return zip(*(column.tolist() for column in self._columns()), strict=True)


def _signed(values: npt.NDArray[np.uint64]) -> Ints:
    """Descriptors as the kernel takes them: the lower half of a register, signed."""
    return values.astype(np.uint32).view(np.int32).astype(np.int64)


class Reader:
    """Reads operations from calls; `table_of` is the table of each thread of the trace."""

    def __init__(self, table_of: Ints) -> None:
        self._table_of = table_of
        calls = by_name()
        self._nr = {name: call.nr for name, call in calls.items()}
        self._opens = numbers("open", "openat", "openat2", "creat")
        self._pairs = numbers("pipe", "pipe2", "socketpair")
        self._execs = numbers(*EXECS)
        self._dups = numbers("dup", "dup2", "dup3")
        self._op = np.zeros(ALL_NRS, np.int64)
        made = numbers(*(name for name, call in calls.items() if call.returns_fd))
        self._op[made | self._pairs | numbers("chdir")] = OPEN
        self._op[self._dups | numbers("fchdir", "fcntl", "ioctl")] = DUP
        self._op[numbers("close")] = CLOSE
        self._op[numbers("close_range")] = RANGE
        self._op[self._execs] = EXEC
        self._late = made | self._pairs | numbers("fcntl")
        self._kind = np.full(ALL_NRS, _OTHER, np.int64)
        self._kind[self._opens] = _FILE
        self._kind[numbers("pipe", "pipe2")] = _PIPE
        self._kind[numbers("socket", "accept", "accept4", "socketpair")] = _SOCKET
        self._kind[numbers("chdir")] = _DIRECTORY
        # Where each call has its flags with O_CLOEXEC among them; 6: it has none.
        self._flags_at = np.full(ALL_NRS, 6, np.int64)
        for call in calls.values():
            at = call.index(ArgKind.OPEN_FLAGS, ArgKind.FLAGS)
            if call.returns_fd and at is not None:
                self._flags_at[call.nr] = at
        for name, at in (("socket", 1), ("pipe2", 1), ("socketpair", 1), ("dup3", 2)):
            self._flags_at[self._nr[name]] = at

    def read(self, chunk: Chunk, first_row: int) -> Operations:
        """Return what the calls of a chunk do; `first_row` is the row of its first call."""
        nr = chunk.nr
        rows = np.flatnonzero(
            (self._op[nr] != NONE) & np.where(self._execs[nr], ~chunk.returned, chunk.ret >= 0)
        )
        rows = rows[self._changes(chunk.take(rows))]
        some = chunk.take(rows)
        nr, ret = some.nr, some.ret
        first = _signed(some.args[0])
        tsc = some.tsc.astype(np.int64) + np.where(self._late[nr], some.dur.astype(np.int64), 0)
        flags = np.append(some.args, np.zeros((1, len(some)), np.uint64), axis=0)[
            self._flags_at[nr], np.arange(len(some))
        ]
        found = Operations(
            tsc,
            self._op[nr],
            self._table_of[some.thread],
            np.where(self._op[nr] == CLOSE, first, ret),
            first,
            ((flags & np.uint64(O_CLOEXEC)) != 0).astype(np.int64),
            self._kind[nr],
            self._names(some),
            rows + first_row,
        )
        found.kind[self._opens[nr] & (flags & np.uint64(O_DIRECTORY) != 0)] = _DIRECTORY
        self._special(some, found, flags)
        return self._split(some, found)

    def _changes(self, some: Chunk) -> Mask:
        """Leave out the many calls of fcntl and ioctl that only ask, and dup2 to itself."""
        nr, command = some.nr, some.args[1].astype(np.uint32)
        asks = (nr == self._nr["fcntl"]) & ~np.isin(command, (F_DUPFD, F_SETFD, F_DUPFD_CLOEXEC))
        asks |= (nr == self._nr["ioctl"]) & ~np.isin(command, (FIOCLEX, FIONCLEX))
        asks |= (nr == self._nr["dup2"]) & (_signed(some.args[0]) == some.ret)
        asks |= self._pairs[nr] & (some.out_len != 8)
        changes: Mask = ~asks
        return changes

    def _special(self, some: Chunk, found: Operations, flags: npt.NDArray[np.uint64]) -> None:
        """Correct what is particular to single calls."""
        nr, is_nr = some.nr, self._nr
        second, third = some.args[1], some.args[2]
        found.other[self._opens[nr] & (nr != is_nr["openat"]) & (nr != is_nr["openat2"])] = AT_FDCWD
        found.cloexec[nr == is_nr["openat2"]] = 1  # struct open_how is not recorded: most set it
        memfd = nr == is_nr["memfd_create"]
        found.cloexec[memfd] = (flags[memfd] & np.uint64(MFD_CLOEXEC)) != 0
        here = (nr == is_nr["chdir"]) | (nr == is_nr["fchdir"])
        found.fd[here] = AT_FDCWD
        found.other[nr == is_nr["chdir"]] = AT_FDCWD
        control = nr == is_nr["fcntl"]
        command = second.astype(np.uint32)
        found.cloexec[control] = command[control] == F_DUPFD_CLOEXEC
        marks = control & (command == F_SETFD)
        found.cloexec[marks] = (third[marks] & np.uint64(FD_CLOEXEC)) != 0
        marks_too = nr == is_nr["ioctl"]
        found.cloexec[marks_too] = command[marks_too] == FIOCLEX
        found.fd[marks | marks_too] = found.other[marks | marks_too]
        whole = nr == is_nr["close_range"]
        found.fd[whole] = (some.args[0][whole] & _LOW).astype(np.int64)
        found.other[whole] = (second[whole] & _LOW).astype(np.int64)
        found.cloexec[whole] = (third[whole] & np.uint64(CLOSE_RANGE_CLOEXEC)) != 0

    def _names(self, some: Chunk) -> npt.NDArray[np.object_]:
        """Return the paths of the calls that open something, b"" for others."""
        names = np.full(len(some), b"", np.object_)
        moves = some.nr == self._nr["chdir"]
        named = np.flatnonzero((self._opens[some.nr] | moves) & (some.path_len > 0))
        names[named] = some.take(named).texts()
        names[moves & (some.path_len == 0)] = b"."
        return names

    def _split(self, some: Chunk, found: Operations) -> Operations:
        """Make two operations of each call that made two descriptors."""
        twice = self._pairs[some.nr]
        if not twice.any():
            return found
        joined, _ = some.payload(some.path_len + some.path2_len, np.where(twice, some.out_len, 0))
        every = np.repeat(np.arange(len(some)), np.where(twice, 2, 1))
        result = found.take(every)
        result.fd[twice[every]] = joined.view("<i4")
        return result
