# SPDX-License-Identifier: MIT
"""Maximal repeats of an integer sequence, by a suffix array over windows of bounded length.

Prefix doubling (Manber and Myers, "Suffix arrays", 1993) stops once suffixes are ordered by their
first 2^levels tokens: longer repeats are of no use to a compound, and each level is one sort of the
whole sequence inside numpy. A repeat is maximal when no longer one has all its occurrences; maximal
repeats are the left-diverse LCP intervals (Abouelhoda, Kurtz and Ohlebusch, 2004).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from miner.events import Bools, Ints

LEVELS = 6
"""Repeats of up to 2^6 = 64 tokens are told apart."""


@dataclass(frozen=True)
class Repeat:
    """A sequence of `length` tokens and all places where it starts, in rising order."""

    length: int
    starts: Ints


def _rank(sequence: Ints, levels: int) -> list[Ints]:
    """For each level k the rank of each window of 2^k tokens; windows beyond the end are lowest."""
    n = len(sequence)
    _, rank = np.unique(sequence, return_inverse=True)
    ranks = [rank + 1]
    for level in range(levels):
        half = 1 << level
        shifted = np.zeros(n, dtype=np.int64)
        if half < n:
            shifted[:-half] = ranks[-1][half:]
        _, rank = np.unique(ranks[-1] * (n + 2) + shifted, return_inverse=True)
        ranks.append(rank + 1)
    return ranks


def suffix_array(sequence: Ints, levels: int = LEVELS) -> tuple[Ints, Ints]:
    """Suffixes ordered by their first 2^levels tokens, and the length that each shares with the
    one before it, at most 2^levels (0 for the first)."""
    n = len(sequence)
    ranks = _rank(sequence, levels)
    order = np.argsort(ranks[-1], kind="stable")
    left, right = order[:-1].copy(), order[1:].copy()
    common = np.zeros(len(left), dtype=np.int64)
    # Greedy from the longest window down: the common length in binary.
    for level in range(levels, -1, -1):
        padded = np.append(ranks[level], 0)
        size = 1 << level
        inside = np.maximum(left, right) + size <= n
        at_left, at_right = np.minimum(left, n), np.minimum(right, n)
        equal = inside & (padded[at_left] == padded[at_right])
        step = np.where(equal, size, 0)
        common, left, right = common + step, left + step, right + step
    return order, np.minimum(np.concatenate([[0], common]), 1 << levels)[:n]


def _nearest_smaller(value: Ints) -> Ints:
    """Index of the nearest smaller element to the left, -1: none; by pointer jumping."""
    padded = np.append(value, -1)  # index -1 is the sentinel
    previous = np.arange(len(value)) - 1
    while True:
        behind = np.flatnonzero(padded[previous] >= value)
        if not len(behind):
            return previous
        previous[behind] = previous[previous[behind]]


def maximal_repeats(
    sequence: Ints, min_length: int = 2, min_count: int = 2, levels: int = LEVELS
) -> list[Repeat]:
    """All maximal repeats of at least `min_length` tokens and `min_count` occurrences, which may
    overlap; longer than 2^levels tokens only their first 2^levels."""
    n = len(sequence)
    if n < 2:
        return []
    order, common = suffix_array(sequence, levels)
    low = _nearest_smaller(common)
    high = n - 1 - _nearest_smaller(common[::-1])[::-1]  # nearest smaller to the right, n: none
    # Interval: suffixes low .. high - 1 of `order` share common[i] tokens.
    low = np.maximum(low, 0)
    keep = (common >= min_length) & (high - low >= min_count)
    packed = np.unique((low[keep] * (n + 1)) + high[keep], return_index=True)[1]
    chosen = np.flatnonzero(keep)[packed]
    low, high, length = low[chosen], high[chosen], common[chosen]
    diverse = _left_diverse(sequence, order, low, high)
    return [
        Repeat(int(size), np.sort(order[a:b]))
        for size, a, b in zip(
            length[diverse].tolist(), low[diverse].tolist(), high[diverse].tolist(), strict=True
        )
    ]


def _left_diverse(sequence: Ints, order: Ints, low: Ints, high: Ints) -> Bools:
    """Whether the tokens before an interval's occurrences differ; the start counts as different."""
    before = np.where(order > 0, sequence[order - 1], -1 - np.arange(len(order)))
    changes = np.concatenate([[0], np.cumsum(before[1:] != before[:-1])])
    return changes[high - 1] > changes[low]
