# SPDX-License-Identifier: MIT
"""System call arguments by their kind, and the joins over time that provenance needs."""

from __future__ import annotations

from functools import cache

import numpy as np

from miner.events import CALL_NUMBERS, Bools, Events, Ints
from miner.order import starts
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
    out = np.zeros(CALL_NUMBERS, dtype=bool)
    out[[number(name) for name in names]] = True
    return out


def is_one(nr: Ints, *names: str) -> Bools:
    """Which of the call numbers are one of `names`."""
    return _table(names)[nr]


@cache
def argument_index(*kinds: syscalls.ArgKind) -> Ints:
    """By call number: position of the first argument of these kinds, -1 where it has none."""
    out = np.full(CALL_NUMBERS, -1, dtype=np.int64)
    for nr, call in syscalls.by_nr().items():
        index = call.index(*kinds)
        out[nr] = -1 if index is None else index
    return out


def pick(events: Events, rows: Ints, index: Ints) -> Ints:
    """Of each of the events `rows` the lower 32 bits of argument `index`; 0 where that is -1."""
    out = np.zeros(len(rows), dtype=np.int64)
    for i in range(int(index.max(initial=-1)) + 1):
        at = np.flatnonzero(index == i)
        out[at] = events.args[:, i][rows[at]].astype(np.uint32)
    return out


def fd_index(nr: Ints) -> Ints:
    """Position of each call's first descriptor argument, -1 where it has none."""
    return argument_index(syscalls.ArgKind.FD, syscalls.ArgKind.DIRFD)[nr]


def last_before(def_key: Ints, def_time: Ints, use_key: Ints, use_time: Ints) -> Ints:
    """For each use the index of the last definition with its key and def_time <= use_time, or -1.

    The uses are in the order of time: of a run of uses with one key only those between different
    answers for its first and its last one are looked up.
    """
    if not len(def_key) or not len(use_key):
        return np.full(len(use_key), -1, dtype=np.int64)
    begin = np.flatnonzero(starts(use_key))
    size = np.diff(begin, append=len(use_key))
    ends = np.concatenate([begin, begin + size - 1])
    first, last = _search(def_key, def_time, use_key[ends], use_time[ends]).reshape(2, -1)
    out = np.repeat(first, size)
    rows = np.flatnonzero(np.repeat(first != last, size))
    out[rows] = _search(def_key, def_time, use_key[rows], use_time[rows])
    return out


def mode_before(events: Events, rows: Ints) -> Ints:
    """Of each of the events `rows` the st_mode that its thread was told last, -1: none."""
    told = np.flatnonzero(events.st_mode >= 0)
    out = np.full(len(rows), -1, dtype=np.int64)
    by_time = np.argsort(rows, kind="stable")
    uses = rows[by_time]
    found = last_before(events.tid[told], told, events.tid[uses], uses)
    out[by_time[found >= 0]] = events.st_mode[told[found[found >= 0]]]
    return out


def _search(def_key: Ints, def_time: Ints, use_key: Ints, use_time: Ints) -> Ints:
    """`last_before` by binary search: there are far fewer definitions than uses."""
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
