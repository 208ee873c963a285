# SPDX-License-Identifier: MIT
"""Counts within segments of a column, of all segments at once.

A piece has hundreds of loops and thousands of calls in them: one by one, beginning to count takes
longer than counting.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from miner import compiled
from miner.events import Bools, Ints
from miner.histogram import Histogram, rounded
from miner.order import order, position, starts
from tracer.compiled import at, check

_FEW = 256
"""Of fewer values in a segment those as frequent stay in their order, of more they are sorted."""


def sums_of(values: Ints, rows: Ints, begin: Ints) -> Ints:
    """The sum of `values` over the rows of each segment; begin: where each begins in `rows`."""
    columns = [compiled.column(column) for column in (values, rows, begin)]
    out = np.empty(len(begin), dtype=np.int64)
    where = [at(column) for column in columns]
    compiled.function("sums")(where[0], where[1], len(rows), where[2], len(out), at(out))
    return out


def pairs(segment: Ints, values: Ints) -> tuple[Ints, Ints, Ints]:
    """Each pair of a segment and a value in it, in the order of appearance: segment, value, and how
    often it is there; segment: rising numbers."""
    begin = np.flatnonzero(starts(segment))
    size = np.diff(begin, append=len(segment))
    at, value, count = pairs_of(values, None, begin, size, np.zeros(len(begin), dtype=bool))
    return segment[begin][at], value, count


def pairs_of(
    values: Ints, rows: Ints | None, begin: Ints, size: Ints, is_int: Bools
) -> tuple[Ints, Ints, Ints]:
    """`pairs` of segments of `size` places from `begin` on, numbered from 0. A place holds
    values[rows[place]], or without rows values[place]; is_int: of a segment's values only the lower
    32 bits count, with their sign."""
    columns = [compiled.column(column) for column in (begin, size, values)]
    is_int = np.ascontiguousarray(is_int)
    where = compiled.Segments(at(columns[0]), at(columns[1]), at(is_int), len(begin))
    place = None if rows is None else compiled.column(rows)
    found = [np.empty(int(size.sum()), dtype=np.int64) for _ in range(3)]
    n = compiled.function("count")(
        where, at(columns[2]), None if place is None else at(place), *map(at, found)
    )
    check(n < 0)
    segment, value, count = (column[:n].copy() for column in found)
    return segment, value, count


def most_frequent(segment: Ints, values: Ints, limit: int) -> tuple[Ints, Ints, Ints]:
    """Of each segment the `limit` most frequent values, by falling frequency: segments, values,
    counts; segment: rising numbers."""
    return most_frequent_of(*pairs(segment, values), limit)


def most_frequent_of(owner: Ints, value: Ints, count: Ints, limit: int) -> tuple[Ints, Ints, Ints]:
    """`most_frequent` of what `pairs` found."""
    if len(owner) < 2:
        return owner, value, count
    size = np.bincount(owner, count).astype(np.int64)
    # As frequent ones: in the order of their values, those of small segments of appearance.
    by_tie = np.arange(len(owner))
    sorts = np.flatnonzero(size[owner] >= _FEW)
    by_tie[sorts] = sorts[np.argsort(value[sorts], kind="stable")]
    by_count = by_tie[order(owner[by_tie], -count[by_tie])]
    owner = owner[by_count]
    kept = position(starts(owner)) < limit
    by_count = by_count[kept]
    return owner[kept], value[by_count], count[by_count]


def counters(number: int, segment: Ints, values: Ints, count: Ints) -> list[Counter[int]]:
    """A counter for each of `number` segments; segment: rising numbers."""
    bounds = np.searchsorted(segment, np.arange(number + 1)).tolist()
    value_list, count_list = values.tolist(), count.tolist()
    out = []
    for i in range(number):
        here = slice(bounds[i], bounds[i + 1])
        counter: Counter[int] = Counter()
        dict.update(counter, zip(value_list[here], count_list[here], strict=True))
        out.append(counter)
    return out


def histograms(number: int, segment: Ints, values: Ints) -> list[Histogram]:
    """A histogram for each of `number` segments; segment: rising numbers; values: none below 0."""
    found = []
    for counter in counters(number, *pairs(segment, rounded(values))):
        histogram = Histogram()
        histogram.counts = counter
        found.append(histogram)
    return found
