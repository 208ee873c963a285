# SPDX-License-Identifier: MIT
"""Which open file a descriptor argument means: the descriptor tables, replayed as one join.

An event that makes a descriptor (open, dup, socket, ...) is a *definition* of (process, number)
from the moment it returned on, a close makes it undefined. A use finds the last definition before
it; a forked child looks in its parent's table as it was when the child started.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from miner.events import NO_RET, Events, Ints
from tracer import syscalls

NONE = -1
"""No definition seen: inherited from before the trace, or made in a way that shows no number."""

F_DUPFD, F_DUPFD_CLOEXEC = 0, 1030  # include/uapi/linux/fcntl.h
AT_FDCWD = -100


@cache
def number(name: str) -> int:
    """System call number of `name`."""
    return syscalls.by_name()[name].nr


def numbers(*names: str) -> Ints:
    """System call numbers of `names`."""
    return np.array([number(name) for name in names], dtype=np.int64)


@cache
def argument_index(*kinds: syscalls.ArgKind) -> Ints:
    """By call number: position of the first argument of these kinds, -1 where it has none."""
    table = syscalls.by_nr()
    out = np.full(max(table) + 2, -1, dtype=np.int64)  # the last one serves unknown numbers
    for nr, call in table.items():
        index = call.index(*kinds)
        out[nr] = -1 if index is None else index
    return out


def by_number(table: Ints, nr: Ints) -> Ints:
    """`table[nr]`, with the table's last element for numbers that it does not have."""
    known = (nr >= 0) & (nr < len(table) - 1)
    return table[np.where(known, nr, len(table) - 1)]


def pick(events: Events, index: Ints) -> Ints:
    """Argument index[i] of event i as an int; 0 where index is -1."""
    rows = np.arange(len(events))
    value = events.args[rows, np.maximum(index, 0)].astype(np.uint32).astype(np.int32)
    return np.where(index >= 0, value.astype(np.int64), 0)


def last_before(def_key: Ints, def_time: Ints, use_key: Ints, use_time: Ints) -> Ints:
    """For each use the index of the last definition with its key and def_time <= use_time, or -1.

    A merge-asof: one sort of both sides, then a running maximum.
    """
    n = len(def_key)
    key = np.concatenate([def_key, use_key])
    time = np.concatenate([def_time, use_time])
    kind = np.concatenate([np.zeros(n, np.int8), np.ones(len(use_key), np.int8)])
    order = np.lexsort((kind, time, key))
    is_def = order < n
    at = np.where(is_def, np.arange(len(order)), -1)
    last = np.maximum.accumulate(at)
    found = np.where(last >= 0, order[last], 0)
    good = (last >= 0) & (key[found] == key[order]) & ~is_def
    out = np.full(len(order), -1, dtype=np.int64)
    out[order] = np.where(good, found, -1)
    return out[n:]


def _slot(pid: Ints, fd: Ints) -> Ints:
    """(process, descriptor) as one key."""
    return (pid << 32) | (fd & 0xFFFFFFFF)


class Descriptors:
    """The replayed descriptor tables of one trace."""

    def __init__(self, events: Events) -> None:
        self.events = events
        kinds = syscalls.ArgKind
        self.fd_index = by_number(argument_index(kinds.FD, kinds.DIRFD), events.nr)
        makes = np.zeros(len(argument_index(kinds.FD)), dtype=np.int64)
        for nr, call in syscalls.by_nr().items():
            makes[nr] = call.returns_fd
        ret = events.ret
        command = events.fd_arg(1)
        is_dup_fcntl = (events.nr == number("fcntl")) & np.isin(command, [F_DUPFD, F_DUPFD_CLOEXEC])
        made = ((by_number(makes, events.nr) > 0) | is_dup_fcntl) & (ret >= 0) & (ret != NO_RET)
        self.is_dup = made & (is_dup_fcntl | np.isin(events.nr, numbers("dup", "dup2", "dup3")))
        closed = events.nr == number("close")
        self._def_event = np.flatnonzero(made | closed)
        is_close = closed[self._def_event]
        fd = np.where(is_close, events.fd_arg(0)[self._def_event], ret[self._def_event])
        self._def_key = _slot(events.pid[self._def_event], fd)
        # A number is free from the start of close on, and taken from the end of open on.
        start, end = events.t_ns[self._def_event], events.end_ns[self._def_event]
        self._def_time = np.where(is_close, start + 1, end)
        self._def_value = np.where(is_close, NONE, self._def_event)
        self._parents = {p.pid: (p.ppid, p.start_ns) for p in reversed(events.processes)}
        self.root = self._roots()

    def _roots(self) -> Ints:
        """Per event: the definition that its descriptor argument goes back to through all dups."""
        uses = np.flatnonzero(self.fd_index >= 0)
        fd = pick(self.events, self.fd_index)
        source = np.full(len(self.events), NONE, dtype=np.int64)
        source[uses] = self.lookup(self.events.pid[uses], fd[uses], self.events.t_ns[uses])
        # Follow dup chains by pointer jumping: a dup's own definition is its source's.
        alias = np.arange(len(self.events))
        alias[self.is_dup] = source[self.is_dup]
        while True:
            further = np.where(alias >= 0, alias[np.maximum(alias, 0)], NONE)
            if np.array_equal(further, alias):
                break
            alias = further
        return np.where(source >= 0, alias[np.maximum(source, 0)], NONE)

    def lookup(self, pid: Ints, fd: Ints, time: Ints) -> Ints:
        """The event that defined descriptor `fd` of process `pid` at `time`, dups not followed."""
        found = last_before(self._def_key, self._def_time, _slot(pid, fd), time)
        out = np.where(found >= 0, self._def_value[found], NONE) if len(self._def_value) else found
        orphan = np.flatnonzero((found < 0) & (fd >= 0))
        pids, inverse = np.unique(pid[orphan], return_inverse=True)
        up = [self._parents.get(int(p), (0, 0)) for p in pids]
        known = np.array(
            [u[0] in self._parents and u[0] != p for u, p in zip(up, pids, strict=True)]
        )
        if known.any():
            parent, born = np.array(up, dtype=np.int64)[inverse].T
            use = known[inverse]
            orphan = orphan[use]
            at = np.minimum(time[orphan], born[use])
            out[orphan] = self.lookup(parent[use], fd[orphan], at)
        return out
