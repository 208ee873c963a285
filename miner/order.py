# SPDX-License-Identifier: MIT
"""Sorting and grouping of integer columns.

numpy sorts int64 values with vector instructions (x86-simd-sort, numpy 1.25 and later), far faster
than it sorts indices. So an argsort packs value and position into one integer, if both fit.
"""

from __future__ import annotations

import numpy as np

from miner.events import Bools, Ints

_BITS = 63


def order(*keys: Ints) -> Ints:
    """Positions in rising order of the keys, the first one weighs most; ties keep their order."""
    key = combine(*keys)
    n = len(key)
    if not n:
        return np.zeros(0, dtype=np.int64)
    low = int(key.min())
    bits = n.bit_length()
    if (int(key.max()) - low).bit_length() + bits <= _BITS:
        packed = ((key - low) << bits) | np.arange(n)
        packed.sort()
        packed &= (1 << bits) - 1
        return packed
    return np.argsort(key, kind="stable")


def combine(*keys: Ints) -> Ints:
    """One column that orders rows as the columns do one after the other."""
    out = keys[0]
    for key in keys[1:]:
        if not len(key):
            return key
        low = int(key.min())
        bits = (int(key.max()) - low).bit_length()
        base = int(out.min())
        if (int(out.max()) - base).bit_length() + bits > _BITS:
            (out, _), (key, _) = dense(out), dense(key)
            low, base, bits = 0, 0, len(key).bit_length()
        out = ((out - base) << bits) | (key - low)
    return out


def starts(*sorted_keys: Ints) -> Bools:
    """Which rows of sorted columns begin a group of equal ones."""
    n = len(sorted_keys[0])
    new = np.zeros(n, dtype=bool)
    new[:1] = True
    for key in sorted_keys:
        new[1:] |= key[1:] != key[:-1]
    return new


def dense(*keys: Ints) -> tuple[Ints, Ints]:
    """Numbers from 0 in the order of the keys, equal rows sharing one, and the first row of each
    number; as np.unique with its inverse."""
    key = combine(*keys)
    n = len(key)
    if not n:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    by_key = order(key)
    new = starts(key[by_key])
    out = np.empty(n, dtype=np.int64)
    out[by_key] = np.cumsum(new) - 1
    return out, by_key[new]


def position(new: Bools) -> Ints:
    """Position of each row within its group, `new` marking where groups begin."""
    index = np.arange(len(new))
    return index - np.maximum.accumulate(np.where(new, index, 0))


def sizes(new: Bools) -> Ints:
    """Size of each group, `new` marking where groups begin."""
    return np.diff(np.append(np.flatnonzero(new), len(new)))
