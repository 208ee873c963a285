# SPDX-License-Identifier: MIT
"""Sorting and grouping of integer columns."""

from __future__ import annotations

import numpy as np

from miner import compiled
from miner.events import Bools, Ints
from tracer.compiled import at, check


def order(*keys: Ints) -> Ints:
    """Positions in rising order of the keys, the first one weighs most; ties keep their order."""
    where, n, _columns = compiled.addresses(keys)
    out = np.empty(n, dtype=np.int64)
    check(compiled.function("order")(where, len(keys), n, at(out)))
    return out


def starts(*sorted_keys: Ints) -> Bools:
    """Which rows of sorted columns begin a group of equal ones."""
    n = len(sorted_keys[0])
    new = np.zeros(n, dtype=bool)
    new[:1] = True
    np.not_equal(sorted_keys[0][1:], sorted_keys[0][:-1], out=new[1:])
    for key in sorted_keys[1:]:
        new[1:] |= key[1:] != key[:-1]
    return new


def ranks(key: Ints) -> Ints:
    """Numbers from 0 in rising order of the values, equal ones sharing one."""
    by_key = order(key)
    out = np.empty(len(key), dtype=np.int64)
    out[by_key] = np.cumsum(starts(key[by_key])) - 1
    return out


def dense(*keys: Ints) -> tuple[Ints, Ints]:
    """Numbers from 0 in the order of appearance, equal rows sharing one, and the first row of each
    number."""
    where, n, _columns = compiled.addresses(keys)
    number, first = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
    found = compiled.function("dense")(where, len(keys), n, at(number), at(first))
    check(found < 0)
    return number, first[:found].copy()


def ranges(start: Ints, size: Ints) -> Ints:
    """The numbers start[0], start[0] + 1, ..., size[0] of them, then those of start[1]..."""
    out: Ints = np.repeat(start - (np.cumsum(size) - size), size)
    out += np.arange(len(out))
    return out


def position(new: Bools) -> Ints:
    """Position of each row within its group, `new` marking where groups begin."""
    begin = np.flatnonzero(new)
    out: Ints = np.arange(len(new))
    out -= np.repeat(begin, np.diff(begin, append=len(new)))
    return out


def sizes(new: Bools) -> Ints:
    """Size of each group, `new` marking where groups begin."""
    return np.diff(np.append(np.flatnonzero(new), len(new)))
