# SPDX-License-Identifier: MIT
"""System call arguments by their kind, and the joins over time that provenance needs."""

from __future__ import annotations

from functools import cache

import numpy as np

from miner.events import Events, Ints
from tracer import syscalls

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


def fd_index(nr: Ints) -> Ints:
    """Position of each call's first descriptor argument, -1 where it has none."""
    return by_number(argument_index(syscalls.ArgKind.FD, syscalls.ArgKind.DIRFD), nr)


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
