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


def _intervals(common: Ints, least: int) -> tuple[Ints, Ints, Ints]:
    """The LCP intervals [low, high) of at least `least` shared tokens, and how many they share.

    Level by level: of all runs of neighbours that share so many tokens those in which two share no
    more. There are LONGEST levels at most, each a few passes over bytes.
    """
    small = common.astype(np.int8)
    none = np.zeros(0, dtype=np.int64)
    lows, highs, shared = [none], [none], [none]
    for level in range(least, int(small.max(initial=0)) + 1):
        exact = np.flatnonzero(small == level)
        if not len(exact):
            continue
        inside = np.zeros(len(small) + 1, dtype=bool)  # False at the end; the first is 0
        np.greater_equal(small, level, out=inside[:-1])
        edges = np.flatnonzero(inside[1:] != inside[:-1])
        start, stop = edges[::2], edges[1::2]
        # `start` is the suffix in front of the run: it shares as much with the run's first one.
        last, before = (np.searchsorted(exact, end, side="right") for end in (stop, start))
        own = last > before
        lows.append(start[own])
        highs.append(stop[own] + 1)
        shared.append(np.full(int(own.sum()), level, dtype=np.int64))
    return np.concatenate(lows), np.concatenate(highs), np.concatenate(shared)


def maximal_repeats(sequence: Ints, min_length: int = 2, min_count: int = 2) -> list[Repeat]:
    """All maximal repeats of at least `min_length` tokens and `min_count` occurrences, which may
    overlap; of longer ones than LONGEST tokens the first so many."""
    n = len(sequence)
    if n < 2:
        return []
    suffixes, common = suffix_array(sequence)
    low, high, length = _intervals(common, min_length)
    frequent = high - low >= min_count
    low, high, length = low[frequent], high[frequent], length[frequent]
    by_place = np.lexsort((high, low))
    low, high, length = low[by_place], high[by_place], length[by_place]
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
