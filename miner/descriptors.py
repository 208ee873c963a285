# SPDX-License-Identifier: MIT
"""What the second descriptor argument of a call means, and which event opened it.

A dataset holds the object of the first descriptor argument only. That of a second one
(copy_file_range, sendfile, splice, renameat, ...) is what its number meant last in the process: the
descriptor table, replayed from the calls that give, use and close it. What the table cannot tell is
-1: a number that the program image inherited and never used first, or that a close has freed since.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from miner.events import CALL_NUMBERS, Bools, Events, Ints
from miner.joins import AT_FDCWD, fd_index, first_fd, is_one, last_before, pick
from tracer import syscalls

_K = syscalls.ArgKind
DESCRIPTORS = (_K.FD, _K.DIRFD)
# The number itself matters, not what it refers to: it is given to another object, is the end of a
# range, or is one of another process.
_NUMBERS = {"dup2": 1, "dup3": 1, "close_range": 1, "pidfd_getfd": 1}
_DUPLICATES = ("dup", "dup2", "dup3", "fcntl")
_AT_FDCWD = AT_FDCWD & 0xFFFFFFFF
_F_DUPFD = (0, 1030)  # fcntl's F_DUPFD and F_DUPFD_CLOEXEC


def positions(nr: int) -> tuple[int, ...]:
    """Where a call has descriptors whose objects matter: the first one, and maybe a second."""
    call = syscalls.by_nr().get(nr)
    if call is None:
        return ()
    number = _NUMBERS.get(call.name)
    found = (i for i, kind in enumerate(call.args) if kind in DESCRIPTORS and i != number)
    return tuple(found)[:2]


@cache
def _second_index() -> Ints:
    """By call number: position of the second descriptor argument, -1 where it has none."""
    out = np.full(CALL_NUMBERS, -1, dtype=np.int64)
    for nr in syscalls.by_nr():
        out[nr] = (*positions(nr), -1, -1)[1]
    return out


@cache
def _gives() -> Bools:
    """By call number: its result is a new descriptor."""
    out = np.zeros(CALL_NUMBERS, dtype=bool)
    out[[nr for nr, call in syscalls.by_nr().items() if call.returns_fd]] = True
    return out


@dataclass(frozen=True)
class Second:
    """The second descriptor argument of each event that has one."""

    rows: Ints  # events, rising; those without are not known
    object: Ints  # into Events.objects, -1: not known
    root: Ints  # event that opened it, -1: none or not known

    def of(self, rows: Ints) -> tuple[Ints, Ints]:
        """Object and opening event for each of the events `rows`."""
        at = np.searchsorted(self.rows, rows)
        here = np.append(self.rows, -1)[at] == rows
        at = np.where(here, at, len(self.rows))
        return np.append(self.object, -1)[at], np.append(self.root, -1)[at]


def second(events: Events, image: Ints) -> Second:
    """Replay the descriptor tables for all second descriptor arguments; image: by event, index of
    the program image."""
    index = _second_index()
    uses = np.flatnonzero((index >= 0)[events.nr])
    fd = pick(events, uses, index)
    uses, fd = uses[fd < _AT_FDCWD], fd[fd < _AT_FDCWD]
    # Where calls are missing a number may have been given away unseen.
    if not len(uses) or not _complete(events):
        nothing = np.zeros(0, dtype=np.int64)
        return Second(nothing, nothing, nothing)
    wanted = _keys(events, uses, fd)
    table = _Table(events, wanted)
    found = last_before(table.key, table.time, wanted, events.t_ns[uses])
    known = found >= 0
    known[known] &= table.known[found[known]]
    row = table.row[found]
    # What an exec closed is gone.
    known &= image[row] == image[uses]
    known[known] &= ~_ranged(events, uses[known], row[known])
    return Second(
        uses, np.where(known, table.object[found], -1), np.where(known, table.root[found], -1)
    )


def _complete(events: Events) -> bool:
    meta = events.meta
    return not (meta.get("filter") or meta.get("lost_events") or meta.get("unread_lines"))


def _keys(events: Events, rows: Ints, fd: Ints) -> Ints:
    return (events.pid[rows] << 32) | fd


class _Table:
    """What happened to descriptors, one element each: who has it from when on, and what it is."""

    def __init__(self, events: Events, wanted: Ints) -> None:
        wanted = np.unique(wanted)
        pid_of = np.empty(int(events.thread.max()) + 1, dtype=np.int64)
        pid_of[events.thread] = events.pid
        asking = np.isin(pid_of, wanted >> 32)  # threads
        mine = np.flatnonzero(events.own & asking[events.thread])
        done = np.flatnonzero(_gives()[events.nr[mine]] | is_one(events.nr[mine], "fcntl"))
        given = mine[done]
        given = given[events.ret[given] >= 0]
        command = events.args[:, 1][given].astype(np.int64)
        given = given[~is_one(events.nr[given], "fcntl") | np.isin(command, _F_DUPFD)]
        given_key = _keys(events, given, events.ret[given])
        asked = np.isin(given_key, wanted)
        given, given_key = given[asked], given_key[asked]
        used = mine[fd_index(events.nr[mine]) >= 0]
        used_key = _keys(events, used, first_fd(events, used))
        asked = np.isin(used_key, wanted)
        used, used_key = used[asked], used_key[asked]
        closes = is_one(events.nr[used], "close")
        root, of = events.root, events.object
        again = is_one(events.nr[given], *_DUPLICATES)
        self.row = np.concatenate([used, given, [-1]])
        self.key = np.concatenate([used_key, given_key])
        # A number is free as soon as its close begins, and taken when the other call has ended.
        self.time = np.concatenate([events.t_ns[used], events.t_ns[given] + events.dur_ns[given]])
        opened = _object_of(events)[given]
        self.object = np.concatenate([of[used], np.where(again, of[given], opened), [-1]])
        self.root = np.concatenate([root[used], np.where(again, root[given], given), [-1]])
        self.known = np.concatenate([~closes & (of[used] >= 0), ~again | (of[given] >= 0), [False]])


def _object_of(events: Events) -> Ints:
    """By event: the object that it opened, -1: none that another call uses."""
    out = np.full(len(events), -1, dtype=np.int64)
    event = events.objects.event[:-1]
    opened = np.flatnonzero(event >= 0)
    out[event[opened]] = opened
    return out


def _ranged(events: Events, uses: Ints, since: Ints) -> Bools:
    """Which processes have called close_range between the event `since` and the use."""
    rows = np.flatnonzero(is_one(events.nr, "close_range") & (events.ret >= 0))
    last = last_before(events.pid[rows], events.t_ns[rows], events.pid[uses], events.t_ns[uses])
    return (last >= 0) & (np.append(rows, -1)[last] > since)
