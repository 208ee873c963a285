# SPDX-License-Identifier: MIT
"""How iterations of a loop go on: counts of their beginnings, additive over traces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from miner import motifs
from miner.events import Bools, Ints
from miner.histogram import add_counts
from miner.order import dense, position
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

    def add(self, codes: Ints, firsts: Bools, keys: Sequence[BodyKey]) -> None:
        """Add iterations: `codes` (into keys) of their calls, `firsts` where one begins."""
        if not len(codes):
            return
        changes = firsts.copy()
        changes[1:] |= codes[1:] != codes[:-1]
        code, begins = codes[changes], firsts[changes]
        at = position(begins)
        begin = np.flatnonzero(begins)
        end = np.append(begin[1:], len(code))
        # A beginning as one number, or as few as its calls fit into.
        bits = len(keys).bit_length()
        fit = _BITS // bits
        parts = []
        for low in range(0, LONGEST, fit):
            fits = (at >= low) & (at < min(low + fit, LONGEST))
            digit = np.where(fits, (code + 1) << np.where(fits, bits * (at - low), 0), 0)
            parts.append(np.add.reduceat(digit, begin))
        number, first = dense(*parts)
        counts = np.bincount(number)
        for i in np.argsort(-counts, kind="stable")[:_KEPT].tolist():
            start = int(begin[first[i]])
            calls = code[start : min(start + LONGEST, int(end[first[i]]))].tolist()
            beginning = (*(keys[c] for c in calls), *[None] * (LONGEST - len(calls)))
            self._counts[beginning] += int(counts[i])

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
