# SPDX-License-Identifier: MIT
"""System call arguments by their kind, and the joins over time that provenance needs."""

from __future__ import annotations

from functools import cache

import numpy as np

from miner import compiled
from miner.events import CALL_NUMBERS, Bools, Events, Ints
from tracer import syscalls
from tracer.compiled import at, check

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

    Of definitions at the same time the last one counts. Fast where uses are in the order of time.
    """
    columns = [compiled.column(values) for values in (def_key, def_time, use_key, use_time)]
    out = np.empty(len(use_key), dtype=np.int64)
    where = [at(values) for values in columns]
    definitions = compiled.Points(where[0], where[1], len(def_key))
    uses = compiled.Points(where[2], where[3], len(use_key))
    check(compiled.function("last_before")(definitions, uses, at(out)))
    return out
