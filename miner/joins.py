# SPDX-License-Identifier: MIT
"""System call arguments by their kind, and the joins over time that provenance needs."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miner.events import Bools, Events, Ints
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
def _table(names: tuple[str, ...]) -> Bools:
    out = np.zeros(max(syscalls.by_nr()) + 2, dtype=bool)
    out[[number(name) for name in names]] = True
    return out


def is_one(nr: Ints, *names: str) -> Bools:
    """Which of the call numbers are one of `names`."""
    return by_number(_table(names), nr)


@cache
def argument_index(*kinds: syscalls.ArgKind) -> Ints:
    """By call number: position of the first argument of these kinds, -1 where it has none."""
    table = syscalls.by_nr()
    out = np.full(max(table) + 2, -1, dtype=np.int64)  # the last one serves unknown numbers
    for nr, call in table.items():
        index = call.index(*kinds)
        out[nr] = -1 if index is None else index
    return out


def by_number(table: NDArray[Any], nr: Ints) -> NDArray[Any]:
    """`table[nr]`, with the table's last element for numbers that it does not have."""
    last = len(table) - 1
    if not len(nr) or (int(nr.min()) >= 0 and int(nr.max()) < last):
        return table[nr]
    return table[np.where((nr >= 0) & (nr < last), nr, last)]


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

    A merge-asof by binary search: there are far fewer definitions than uses.
    """
    if not len(def_key) or not len(use_key):
        return np.full(len(use_key), -1, dtype=np.int64)
    keys = np.unique(def_key)
    code = np.minimum(np.searchsorted(keys, use_key), len(keys) - 1)
    known = keys[code] == use_key
    base = int(def_time.min())
    bits = max(int(def_time.max()) - base, 1).bit_length() + 1
    by_time = np.argsort(def_time, kind="stable")
    defined = (np.searchsorted(keys, def_key[by_time]) << bits) | (def_time[by_time] - base)
    sort = np.argsort(defined, kind="stable")
    time = np.clip(use_time - base, -1, (1 << bits) - 1)
    at = np.searchsorted(defined[sort], (code << bits) + time, side="right") - 1
    good = known & (at >= 0) & (defined[sort][at] >> bits == code)
    return np.where(good, by_time[sort][at], -1)
