# SPDX-License-Identifier: MIT
"""How iterations of a loop go on: counts of their beginnings, additive over traces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from miner import motifs
from miner.events import Bools, Ints
from miner.histogram import add_counts
from miner.order import dense, order, position, starts
from miner.tokens import BodyKey

LONGEST = 8
_KEPT = 512  # beginnings kept, the most frequent ones
_SHOWN = 0.01  # of the iterations that a prefix must have to be in the file
_ROWS = 64
_BITS = 62  # of a number that stands for calls

Beginning = tuple[BodyKey | None, ...]
"""The first calls of an iteration, None where it ended before LONGEST."""


class PrefixTable:
    """Counts of the first LONGEST calls of iterations; a call repeated in a row counts once."""

    def __init__(self) -> None:
        self._counts: Counter[Beginning] = Counter()

    def add(self, beginning: Beginning, count: int) -> None:
        """Add so many iterations that began like this."""
        self._counts[beginning] += count

    def merge(self, other: PrefixTable) -> None:
        """Add the counts of another table."""
        add_counts(self._counts, other._counts)

    def rows(self, index: Mapping[BodyKey, int]) -> list[motifs.Prefix]:
        """The table in the form of the motif file; `index`: position of each call in the body."""
        after: dict[tuple[int, ...], Counter[int | None]] = {}
        for beginning, count in self._counts.items():
            prefix: tuple[int, ...] = ()
            for key in beginning:
                call = None if key is None else index[key]
                after.setdefault(prefix, Counter())[call] += count
                if call is None:
                    break
                prefix = (*prefix, call)
        least = _SHOWN * sum(self._counts.values())
        shown = [(p, n) for p, n in after.items() if sum(n.values()) >= least]
        shown.sort(key=lambda row: (len(row[0]), -sum(row[1].values()), row[0]))
        return [
            motifs.Prefix(
                calls=list(prefix),
                reached=sum(following.values()),
                next=[
                    motifs.Next(call, count)
                    for call, count in sorted(
                        following.items(), key=lambda n: (-n[1], -1 if n[0] is None else n[0])
                    )
                ],
            )
            for prefix, following in shown[:_ROWS]
        ]


def prefix_tables(
    codes: Ints, firsts: Bools, keys: Sequence[BodyKey], group: Ints, number: int
) -> list[PrefixTable]:
    """Tables of `number` groups: `codes` (into keys) of the calls of iterations, `firsts` where one
    begins, group: by iteration, rising."""
    tables = [PrefixTable() for _ in range(number)]
    if not len(codes):
        return tables
    changes = firsts.copy()
    changes[1:] |= codes[1:] != codes[:-1]
    code, begins = codes[changes], firsts[changes]
    begin = np.flatnonzero(begins)
    length = np.minimum(np.diff(begin, append=len(code)), LONGEST)
    # A beginning as one number, or as few as its calls fit into.
    bits = len(keys).bit_length()
    fit = _BITS // bits
    numbers = []
    for low in range(0, LONGEST, fit):
        part = np.zeros(len(begin), dtype=np.int64)
        for i in range(low, min(low + fit, LONGEST)):
            has = np.flatnonzero(length > i)
            part[has] |= (code[begin[has] + i] + 1) << (bits * (i - low))
        numbers.append(dense(part)[0])
    same, first = dense(group, *numbers)
    counts = np.bincount(same)
    by_count = order(group[first], -counts)
    kept = by_count[position(starts(group[first][by_count])) < _KEPT]
    calls = code[np.minimum(begin[first[kept], None] + np.arange(LONGEST), len(code) - 1)]
    columns = (group[first[kept]], calls, length[first[kept]], counts[kept])
    for owner, row, size, count in zip(*(c.tolist() for c in columns), strict=True):
        beginning = (*(keys[c] for c in row[:size]), *[None] * (LONGEST - size))
        tables[owner].add(beginning, count)
    return tables
