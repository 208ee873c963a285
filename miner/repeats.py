# SPDX-License-Identifier: MIT
"""Maximal repeats of an integer sequence, by its suffix array.

The suffix array comes from pydivsufsort (Y. Mori's libdivsufsort), the lengths that neighbours in
it share from Kasai's algorithm. A repeat is maximal when no longer one has all its occurrences;
maximal repeats are the left-diverse LCP intervals (Abouelhoda, Kurtz and Ohlebusch, 2004).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from miner.events import Bools, Ints
from miner.order import ranks

LONGEST = 64
"""Longer repeats are of no use to a compound: they are cut."""


@dataclass(frozen=True)
class Repeat:
    """A sequence of `length` tokens and all places where it starts, in rising order."""

    length: int
    starts: Ints


def suffix_array(sequence: Ints) -> tuple[Ints, Ints]:
    """The suffixes in order, and the length that each shares with the one before it (0 for the
    first), at most LONGEST."""
    from pydivsufsort import divsufsort, kasai

    if not len(sequence):
        return sequence, sequence
    # Small numbers, which it sorts by counting.
    tokens = ranks(sequence)
    suffixes = divsufsort(tokens)
    behind = kasai(tokens, suffixes)
    common = np.concatenate([[0], behind[:-1]])
    return suffixes.astype(np.int64), np.minimum(common, LONGEST).astype(np.int64)


def _nearest_smaller(value: Ints) -> Ints:
    """Index of the nearest smaller element to the left, -1: none; by pointer jumping."""
    padded = np.append(value, -1).astype(np.int8)  # up to LONGEST; index -1 is the sentinel
    previous = np.arange(-1, len(value) - 1, dtype=np.int32)
    behind = np.flatnonzero(padded[:-1] <= np.append(-1, value[:-1]))
    while len(behind):
        previous[behind] = previous[previous[behind]]
        behind = behind[padded[previous[behind]] >= padded[behind]]
    return previous.astype(np.int64)


def maximal_repeats(sequence: Ints, min_length: int = 2, min_count: int = 2) -> list[Repeat]:
    """All maximal repeats of at least `min_length` tokens and `min_count` occurrences, which may
    overlap; of longer ones than LONGEST tokens the first so many."""
    n = len(sequence)
    if n < 2:
        return []
    suffixes, common = suffix_array(sequence)
    low = _nearest_smaller(common)
    high = n - 1 - _nearest_smaller(common[::-1])[::-1]  # nearest smaller to the right, n: none
    # Interval: `suffixes` low .. high - 1 share common[i] tokens.
    low = np.maximum(low, 0)
    keep = (common >= min_length) & (high - low >= min_count)
    packed = np.unique((low[keep] * (n + 1)) + high[keep], return_index=True)[1]
    chosen = np.flatnonzero(keep)[packed]
    low, high, length = low[chosen], high[chosen], common[chosen]
    diverse = _left_diverse(sequence, suffixes, low, high)
    return [
        Repeat(int(size), np.sort(suffixes[a:b]))
        for size, a, b in zip(
            length[diverse].tolist(), low[diverse].tolist(), high[diverse].tolist(), strict=True
        )
    ]


def _left_diverse(sequence: Ints, suffixes: Ints, low: Ints, high: Ints) -> Bools:
    """Whether the tokens before an interval's occurrences differ; the start counts as different."""
    before = np.where(suffixes > 0, sequence[suffixes - 1], -1 - np.arange(len(suffixes)))
    changes = np.concatenate([[0], np.cumsum(before[1:] != before[:-1])])
    return changes[high - 1] > changes[low]
