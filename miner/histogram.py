# SPDX-License-Identifier: MIT
"""Counts of integer values: what of a column of lengths can be added up over traces."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from itertools import accumulate
from typing import TypeVar

import numpy as np

from miner.events import Ints

_QUANTILES = {"p10": 0.1, "p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
_EXACT = 1 << 12  # values above are kept to 12 bits, so that a histogram stays small


T = TypeVar("T")


def add_counts(counts: Counter[T], more: Counter[T]) -> None:
    """`counts.update(more)`, for counters of few values five times as fast."""
    for value, count in more.items():
        counts[value] = counts.get(value, 0) + count


def rounded(values: Ints) -> Ints:
    """The values as a histogram counts them; none is below 0."""
    if not len(values) or int(values.max()) < _EXACT:
        return values
    shift = np.maximum(np.frexp(values.astype(np.float64))[1] - 12, 0)
    out: Ints = (values >> shift) << shift
    return out


class Histogram:
    """How often each value was seen; values above 4095 are rounded down to 12 significant bits."""

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()

    def add(self, values: Ints) -> None:
        """Add one observation per element, none below 0."""
        if not len(values):
            return
        values = rounded(values)
        if int(values.max()) < _EXACT:
            counts = np.bincount(values)
            unique = np.flatnonzero(counts)
            counts = counts[unique]
        else:
            unique, counts = np.unique(values, return_counts=True)
        self.counts.update(dict(zip(unique.tolist(), counts.tolist(), strict=True)))

    def merge(self, other: Histogram) -> None:
        """Add the observations of another one."""
        add_counts(self.counts, other.counts)

    @property
    def total(self) -> int:
        """Number of observations."""
        return sum(self.counts.values())

    @property
    def sum(self) -> int:
        """Sum of the (rounded) observations."""
        return sum(value * count for value, count in self.counts.items())

    def quantiles(self) -> dict[str, float]:
        """p10, p50, p90, p99 and max, interpolated as numpy does it; empty without observations."""
        if not self.counts:
            return {}
        values = sorted(self.counts)
        behind = list(accumulate(self.counts[v] for v in values))  # position behind its last one
        out = {}
        for name, q in _QUANTILES.items():
            at = q * (behind[-1] - 1)
            low = values[bisect_right(behind, int(at))]
            high = values[bisect_right(behind, min(int(at) + 1, behind[-1] - 1))]
            out[name] = round(low + (high - low) * (at - int(at)), 2)
        return out
