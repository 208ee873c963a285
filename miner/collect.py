# SPDX-License-Identifier: MIT
"""From events to the statistics of body calls (`miner/callstats.py`), of many calls at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from enum import IntEnum
from functools import cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from miner.callstats import AS_FIRST, INHERITED, POINTERS, CallStats, table_entry
from miner.descriptors import Second, positions
from miner.events import Bools, Events, Ints
from miner.segments import counters, histograms, most_frequent, pairs, sums_of
from miner.tokens import BodyKey
from tracer import syscalls

_VALUES_KEPT = 64
_PERMISSIONS = 0o7777
_K = syscalls.ArgKind
_T = TypeVar("_T", bound=np.generic)
_UNCOUNTED = {_K.FD, _K.PATH, _K.PATH2, _K.NAME, _K.STR, _K.STAT_OUT, _K.STATX_OUT}


class _Counted(IntEnum):
    """What is counted of an argument."""

    NOTHING = 0
    VALUE = 1
    NULL = 2  # whether it is a null pointer
    DESCRIPTOR = 3  # its value, in lists of paths
    SECOND = 4  # its value, as that of a second descriptor


@cache
def _counted(nr: int) -> tuple[int, ...]:
    """By argument what is counted of it."""
    out = []
    places = positions(nr)
    for i, kind in enumerate(table_entry(nr).args):
        if i in places[1:]:
            out.append(_Counted.SECOND)
        elif kind in _UNCOUNTED and (kind is not _K.FD or i in places):
            out.append(_Counted.NOTHING)
        elif kind is _K.DIRFD:
            out.append(_Counted.DESCRIPTOR)
        else:
            out.append(_Counted.NULL if kind in POINTERS else _Counted.VALUE)
    return (*out, *[_Counted.NOTHING] * (6 - len(out)))


class Calls:
    """Events of many body calls, one call after the other.

    rows: events, those of a call in their order; begin: where each call's begin, none is empty;
    new: by row, whether it is the first of its call in an iteration (the rows of one iteration are
    neighbours).
    """

    def __init__(
        self,
        events: Events,
        keys: Sequence[BodyKey],
        rows: Ints,
        begin: Ints,
        listed: Sequence[bool] | None = None,
    ) -> None:
        self._events = events
        self.rows = rows
        self.begin = begin
        self.size = np.diff(begin, append=len(rows))
        self.number = np.repeat(np.arange(len(begin)), self.size)
        self.ret = events.ret[rows]
        self.stats = [CallStats(key) for key in keys]
        for stats, is_listed in zip(self.stats, listed or (), strict=False):
            stats.listed = is_listed
        self._kinds = [table_entry(key.nr).args for key in keys]
        self._add_sums()
        self._add_values()
        self._add_modes()

    def _add_sums(self) -> None:
        events, rows = self._events, self.rows
        columns = (events.work_ns, events.usual_ns, events.bytes_in, events.bytes_out)
        sums = [sums_of(column, rows, self.begin).tolist() for column in columns]
        for stats, size, *total in zip(self.stats, self.size.tolist(), *sums, strict=True):
            stats.count = size
            stats.time_ns, stats.usual_ns, stats.bytes_in, stats.bytes_out = total
        failed = np.flatnonzero((self.ret < 0) & (self.ret >= -4095))
        errors = most_frequent(self.number[failed], -self.ret[failed], _VALUES_KEPT)
        for stats, found in zip(self.stats, counters(len(self.stats), *errors), strict=True):
            stats.errors = found

    def _add_values(self) -> None:
        table = np.array([_counted(stats.key.nr) for stats in self.stats], dtype=np.int64)
        not_listed = np.array([not stats.listed for stats in self.stats])
        table[not_listed[:, None] & (table == _Counted.DESCRIPTOR)] = _Counted.NOTHING
        for i in range(6):
            self._add_nulls(i, np.flatnonzero(table[:, i] == _Counted.NULL))
            is_fd = (table[:, i] == _Counted.DESCRIPTOR) | (table[:, i] == _Counted.SECOND)
            calls = np.flatnonzero(is_fd | (table[:, i] == _Counted.VALUE))
            raw, number = self._argument(i, calls), self._of(calls, self.number)
            if is_fd.any():
                raw = np.where(is_fd[number], raw.astype(np.int32), raw)
            kept = most_frequent(number, raw, _VALUES_KEPT)
            found = counters(len(self.stats), *kept)
            for call in calls.tolist():
                self.stats[call].values[i] = found[call]

    def _add_nulls(self, i: int, calls: Ints) -> None:
        if not len(calls):
            return
        size = self.size[calls]
        begin = np.cumsum(size) - size
        used = np.add.reduceat(self._argument(i, calls) != 0, begin, dtype=np.int64)
        for call, n, all_of in zip(calls.tolist(), used.tolist(), size.tolist(), strict=True):
            found = ((0, n), (1, all_of - n))
            self.stats[call].values[i] = Counter({value: n for value, n in found if n})

    def _add_modes(self) -> None:
        """Add how often a mode, where it varies, is that of the last attributes."""
        for i in range(6):
            modes = self._having(i, _K.MODE).tolist()
            calls = np.array([c for c in modes if len(self.stats[c].values[i]) > 1], np.int64)
            if not len(calls):
                continue
            told = self._events.told_mode[self._of(calls, self.rows)]
            same = (told >= 0) & ((self._argument(i, calls) ^ told) & _PERMISSIONS == 0)
            hits = np.bincount(self._of(calls, self.number)[same], minlength=len(self.begin))
            for call in calls.tolist():
                self.stats[call].mode_of[i] = int(hits[call])

    def _of(self, calls: Ints, column: NDArray[_T]) -> NDArray[_T]:
        """What a column by row has for these calls (rising numbers)."""
        if len(calls) == len(self.begin):
            return column
        begin = self.begin[calls]
        bounds = zip(begin.tolist(), (begin + self.size[calls]).tolist(), strict=True)
        return np.concatenate([column[:0], *(column[a:b] for a, b in bounds)])

    def _argument(self, i: int, calls: Ints) -> Ints:
        return self._events.args[:, i][self._of(calls, self.rows)].view(np.int64)

    def _having(self, i: int, kind: syscalls.ArgKind) -> Ints:
        """The calls whose argument i is of this kind."""
        kinds = self._kinds
        return np.array([c for c, k in enumerate(kinds) if len(k) > i and k[i] is kind], np.int64)

    def add_sizes(self, st_size: Ints) -> None:
        """Add how often a length is that of the file; st_size: by row, -1: not known."""
        for i in range(6):
            calls = self._having(i, _K.SIZE)
            raw, known = self._argument(i, calls), self._of(calls, st_size)
            number = self._of(calls, self.number)
            for addend in (0, 1):
                same = np.flatnonzero((known >= 0) & (raw == known + addend))
                hits = np.bincount(number[same], minlength=len(self.begin))
                for call in calls.tolist():
                    self.stats[call].size_of[i, addend] += int(hits[call])

    def add_iterations(self, new: Bools, rank: Ints) -> None:
        """Add what iterations have of each call; rank: by row, position in its iteration."""
        first = np.flatnonzero(new)
        owner = self.number[first]
        count = len(self.begin)
        of_first = np.searchsorted(first, self.begin)
        ranks = np.add.reduceat(rank[first], of_first).tolist()
        size = np.diff(first, append=len(self.rows))
        ended = np.bincount(owner[self.ret[first + size - 1] == 0], minlength=count).tolist()
        iterations = np.bincount(owner, minlength=count).tolist()
        columns = (iterations, ranks, ended, histograms(count, owner, size))
        for stats, n, rank_sum, to_end, repeats in zip(self.stats, *columns, strict=True):
            stats.iterations, stats.rank_sum, stats.to_end = n, rank_sum, to_end
            stats.repeats = repeats

    def add_next(self, new: Bools) -> None:
        """Add how often an offset is where the same call ended before, in the same iteration."""
        for i in range(6):
            calls = self._having(i, _K.OFFSET)
            reads = calls[[_K.BUF_OUT in self._kinds[c] for c in calls.tolist()]]
            if not len(reads):
                continue
            offset, began = self._argument(i, reads), self._of(reads, new)
            ret, number = self._of(reads, self.ret), self._of(reads, self.number)
            follows = began & (offset == 0)
            follows[1:] |= (offset[1:] == offset[:-1] + ret[:-1]) & ~began[1:]
            hits = np.bincount(number[follows], minlength=len(self.begin))
            for call in reads.tolist():
                self.stats[call].next_of[i] += int(hits[call])

    def add_second(
        self, second: Second, codes: Ints, keys: Sequence[BodyKey], iteration: Ints
    ) -> None:
        """Add what second descriptor arguments are; by event: codes (into keys, -1: in no body) and
        the iteration that it belongs to."""
        have = [c for c, stats in enumerate(self.stats) if positions(stats.key.nr)[1:]]
        if not have:
            return
        calls = np.array(have, dtype=np.int64)
        rows = self._of(calls, self.rows)
        of, root = second.of(rows)
        what = np.where((root >= 0) & (iteration[root] == iteration[rows]), codes[root], -1)
        what[(of >= 0) & ~self._events.objects.opened[of]] = -2
        what[(of >= 0) & (of == self._events.object[rows])] = -3
        names = {-2: INHERITED, -3: AS_FIRST}
        columns = (column.tolist() for column in pairs(self._of(calls, self.number), what))
        for call, number, count in zip(*columns, strict=True):
            if number != -1:
                self.stats[call].second[names.get(number) or keys[number]] += count


def per_call(events: Events, keys: Sequence[BodyKey], rows: Ints, begin: Ints) -> list[CallStats]:
    """Statistics of calls without iterations: each of its events is one."""
    found = Calls(events, keys, rows, begin)
    for stats in found.stats:
        stats.iterations = stats.count
    return found.stats
