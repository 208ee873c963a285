# SPDX-License-Identifier: MIT
"""Statistics of loops whose iterations are sets of calls: each file, path, request or copied block.

Additive over traces; ends as a motif. Loops over the entries of a directory have more to tell
(`miner/loopstats.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from miner import motifs
from miner.annotate import Annotated, Via
from miner.callstats import CallStats, assemble, table_entry
from miner.collect import Calls
from miner.descriptors import positions
from miner.events import Bools, Ints
from miner.histogram import Histogram
from miner.loopstats import ContinuationTable, add_program, returns_size
from miner.masks import MASK_BITS, similar_masks
from miner.motifs import Arg, ArgKind, Over
from miner.order import dense, order, position, ranges, starts
from miner.prefixes import PrefixTable, prefix_tables
from miner.render import call_line
from miner.segments import histograms, pairs
from miner.tokens import BodyKey

_NTH = [1 << i for i in range(11)]
_EXAMPLE_CALLS = 12
_EXAMPLE_ITERATIONS = 4096
_COMMON = frozenset({"close", "fstat", "newfstatat", "statx", "fcntl", "lseek"})
_PATHS_KEPT = 256
_OPENERS = 4096  # descriptors looked at to tell which call opened them


@dataclass(frozen=True)
class Body:
    """Iterations of loops, before they are told apart: one element per call.

    Sorted by (iteration, event). Iterations of one instance are numbered by time, but others may
    lie between them.
    """

    over: Over
    keys: list[BodyKey]
    rows: Ints  # events
    codes: Ints  # into keys
    iteration: Ints  # from 0, each has at least one call
    instance: Ints  # by iteration
    source: Ints | None = None  # by iteration: index into SOURCES, -1: no path
    path: Ints | None = None  # by iteration: event whose path it is, -1: none
    missing: Bools | None = None  # by iteration: the path was not there
    whole: Bools | None = None  # by iteration: the file was read to its end

    def sorted_by(self, new_order: Ints) -> Body:
        """The same iterations in another order."""
        size = np.bincount(self.iteration, minlength=len(new_order))
        at = ranges((np.cumsum(size) - size)[new_order], size[new_order])
        columns: list[Any] = [
            None if column is None else column[new_order]
            for column in (self.instance, self.source, self.path, self.missing, self.whole)
        ]
        iteration = np.repeat(np.arange(len(new_order)), size[new_order])
        return Body(self.over, self.keys, self.rows[at], self.codes[at], iteration, *columns)

    def by_group(self, group: Ints) -> Iterator[Body]:
        """The iterations of each group (a number by iteration), one group after the other."""
        by_group = order(group)
        whole = self.sorted_by(by_group)
        cuts = np.append(np.flatnonzero(starts(group[by_group])), len(group)).tolist()
        bounds = np.searchsorted(whole.iteration, cuts).tolist()
        for i, (start, stop) in enumerate(pairwise(cuts)):
            mine = slice(bounds[i], bounds[i + 1])
            columns: list[Any] = [
                None if column is None else column[start:stop]
                for column in (whole.instance, whole.source, whole.path, whole.missing, whole.whole)
            ]
            iteration = whole.iteration[mine] - start
            yield Body(
                self.over, self.keys, whole.rows[mine], whole.codes[mine], iteration, *columns
            )


SOURCES = ["other", "entry", "argv"]
OTHER, ENTRY, ARGV = range(3)


@dataclass
class BodyLoop:
    """One loop; everything in it can be added up over traces."""

    over: Over
    calls: dict[BodyKey, CallStats] = field(default_factory=dict)
    instances: int = 0
    iterations: int = 0
    per_instance: Histogram = field(default_factory=Histogram)
    bytes: Histogram = field(default_factory=Histogram)
    prefixes: PrefixTable = field(default_factory=PrefixTable)
    continuation: ContinuationTable = field(default_factory=ContinuationTable)
    sources: Counter[str] = field(default_factory=Counter)
    paths: dict[str, tuple[int, int]] = field(default_factory=dict)  # count, missing
    distinct: int = 0
    known: int = 0
    whole: int = 0
    missing: int = 0
    programs: Counter[str] = field(default_factory=Counter)
    build_ids: dict[str, str] = field(default_factory=dict)
    example: list[str] = field(default_factory=list)
    own_ns: int = 0

    def features(self) -> dict[BodyKey, float]:
        """Share of the iterations that have each call."""
        return {key: s.iterations / max(self.iterations, 1) for key, s in self.calls.items()}

    def merge(self, other: BodyLoop) -> None:
        """Add what another trace or program says of the same loop."""
        for key, stats in other.calls.items():
            if key in self.calls:
                self.calls[key].merge(stats)
            else:
                self.calls[key] = stats
        for name in ("instances", "iterations", "distinct", "known", "whole", "missing", "own_ns"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.per_instance.merge(other.per_instance)
        self.bytes.merge(other.bytes)
        self.prefixes.merge(other.prefixes)
        self.continuation.merge(other.continuation)
        self.sources.update(other.sources)
        self.programs.update(other.programs)
        self.build_ids.update(other.build_ids)
        for path, (count, missing) in other.paths.items():
            if path in self.paths or len(self.paths) < _PATHS_KEPT:
                had = self.paths.get(path, (0, 0))
                self.paths[path] = had[0] + count, had[1] + missing
        self.example = max(self.example, other.example, key=len)

    def to_motif(self, name: str, boundary_ns: int) -> motifs.Motif:
        """The loop as a motif; what it would save is filled in by the cost model."""
        order_of = sorted(
            self.calls.values(), key=lambda c: (c.rank_sum / max(c.iterations, 1), repr(c.key))
        )
        index = {stats.key: i for i, stats in enumerate(order_of)}
        sized = [i for i, stats in enumerate(order_of) if returns_size(stats.key.nr)]
        stat_call = max(sized, key=lambda i: order_of[i].iterations, default=None)
        calls = [stats.to_call(self.iterations, index, stat_call) for stats in order_of]
        loop = motifs.Loop(
            over=self.over,
            instances=self.instances,
            iterations=self.iterations,
            per_instance=self.per_instance.quantiles(),
            bytes=self.bytes.quantiles(),
            sources=dict(self.sources.most_common()),
            distinct=self.distinct,
            known=round(self.known / max(self.iterations, 1), 6),
            whole=round(self.whole / max(self.iterations, 1), 6),
            paths=[motifs.PathSeen(p, n, gone) for p, (n, gone) in self.paths.items()],
        )
        return assemble(
            name,
            loop,
            calls,
            boundary_ns,
            instances_by_program=dict(self.programs.most_common()),
            build_ids=self.build_ids,
            continuation=self.continuation.rows(),
            example=self.example,
            prefixes=self.prefixes.rows(index),
            own_ns=self.own_ns,
        )


def separate(annotated: Annotated, body: Body, claimed: Bools) -> list[BodyLoop]:
    """The loops in `body`: one per program and kind of iteration; marks their events in `claimed`.

    An instance is a run of iterations of one kind.
    """
    begin = np.flatnonzero(starts(body.iteration))
    program = annotated.program[annotated.image[body.rows[begin]]]
    counts = np.bincount(body.codes, minlength=len(body.keys))
    bit = np.zeros(len(body.keys), dtype=np.int64)
    frequent = np.argsort(-counts, kind="stable")[:MASK_BITS]
    bit[frequent] = np.int64(1) << np.arange(len(frequent))
    masks = np.bitwise_or.reduceat(bit[body.codes], begin)
    if body.whole is not None:
        masks |= body.whole.astype(np.int64) << MASK_BITS
    group = np.zeros(len(begin), dtype=np.int64)
    count = 0
    for number in np.flatnonzero(np.bincount(program)).tolist():
        mine = np.flatnonzero(program == number)
        # One call or the other may find out that a path is not there.
        probes = body.missing is not None and body.missing[mine].all()
        ignored = 0 if body.over is Over.PATHS else _ignored(body.keys, bit)
        label = np.zeros(len(mine), np.int64) if probes else similar_masks(masks[mine], ignored)
        group[mine] = count + label
        count += int(label.max()) + 1
    by_instance = order(body.instance)
    run = np.empty(len(group), dtype=np.int64)
    run[by_instance] = np.cumsum(starts(body.instance[by_instance], group[by_instance]))
    # Group by group, and within run by run, so that the iterations of an instance are neighbours.
    by_run = order(group, run)
    return measure(annotated, replace(body, instance=run).sorted_by(by_run), group[by_run], claimed)


def _ignored(keys: list[BodyKey], bit: Ints) -> int:
    """Calls that nearly every file sees: they say nothing of what is done with it."""
    table = [table_entry(key.nr) for key in keys]
    common = [bit[i] for i, call in enumerate(table) if call.returns_fd or call.name in _COMMON]
    return int(np.bitwise_or.reduce(common)) if common else 0


def measure(annotated: Annotated, body: Body, group: Ints, claimed: Bools) -> list[BodyLoop]:
    """The loops whose iterations are those of each group in `body`; marks their events in
    `claimed`.

    group: by iteration, from 0, rising; the iterations of an instance are neighbours.
    """
    events, rows = annotated.events, body.rows
    loops = [BodyLoop(body.over) for _ in range(int(group[-1]) + 1)]
    count = len(loops)
    firsts = starts(body.iteration)
    begin = np.flatnonzero(firsts)
    group_begin = np.flatnonzero(starts(group))
    instance_begin = np.flatnonzero(starts(body.instance))
    instance_group = group[instance_begin]
    length = np.diff(instance_begin, append=len(group))
    row_begin = begin[group_begin]
    own_ns = np.add.reduceat(np.where(claimed[rows], 0, events.work_ns[rows]), row_begin)
    claimed[rows] = True
    moved = np.add.reduceat(events.bytes_out[rows] + events.bytes_in[rows], begin)
    columns = (
        np.diff(group_begin, append=len(group)).tolist(),
        np.bincount(instance_group).tolist(),
        own_ns.tolist(),
        histograms(count, instance_group, length),
        histograms(count, group, moved),
        prefix_tables(body.codes, firsts, body.keys, group, count),
    )
    for loop, *values in zip(loops, *columns, strict=True):
        loop.iterations, loop.instances, loop.own_ns = values[:3]
        loop.per_instance, loop.bytes, loop.prefixes = values[3:]
    _add_continuation(loops, instance_group, length)
    distinct = _add_calls(loops, annotated, body, group)
    image = annotated.image[rows[begin[instance_begin]]]
    found = pairs(instance_group, image)
    by_image = order(found[0], found[1])
    for i, *seen in zip(*(column[by_image].tolist() for column in found), strict=True):
        add_program(loops[i].programs, loops[i].build_ids, events, *seen)
    for name in ("whole", "missing"):
        column = getattr(body, name)
        if column is not None:
            for loop, total in zip(loops, np.bincount(group, column).tolist(), strict=True):
                setattr(loop, name, int(total))
    if body.source is not None:
        known = body.source >= 0
        place = group[known] * len(SOURCES) + body.source[known]
        counts = np.bincount(place, minlength=count * len(SOURCES)).reshape(count, -1)
        for loop, row in zip(loops, counts.tolist(), strict=True):
            loop.sources.update({s: n for s, n in zip(SOURCES, row, strict=True) if n})
    if body.path is not None:
        _add_paths(loops, annotated, body, group)
    _add_examples(loops, annotated, body, distinct, group_begin)
    return loops


def _add_continuation(loops: list[BodyLoop], group: Ints, length: Ints) -> None:
    for n in (0, *_NTH):
        reached = np.flatnonzero(length >= n)
        if not len(reached):
            break
        left, owner = length[reached] - n, group[reached]
        columns = [np.bincount(owner, weights) for weights in (None, left > 0, left)]
        sums = np.array(columns, dtype=np.int64).T
        for i in np.flatnonzero(sums[:, 0]).tolist():
            loops[i].continuation.add_sums(n, 0, np.append(sums[i], [sums[i, 2], 0]))


def _add_calls(loops: list[BodyLoop], annotated: Annotated, body: Body, group: Ints) -> Ints:
    """Add statistics of the calls; returns by iteration the number of different ones."""
    events, rows, keys = annotated.events, body.rows, body.keys
    rank = position(starts(body.iteration))
    told = np.flatnonzero(events.st_size[rows] >= 0)[::-1]
    size_of = np.full(len(group), -1, dtype=np.int64)
    size_of[body.iteration[told]] = events.st_size[rows[told]]
    call = group[body.iteration] * len(keys) + body.codes
    by_call = order(call)
    call = call[by_call]
    begin = np.flatnonzero(starts(call))
    owner, code = np.divmod(call[begin], len(keys))
    iteration = body.iteration[by_call]
    key_of = [keys[c] for c in code.tolist()]
    lists = body.over in (Over.FILES, Over.PATHS)
    listed = [lists and key.via != Via.RESULT for key in key_of]
    calls = Calls(events, key_of, rows[by_call], begin, listed)
    new = starts(iteration)
    new[begin] = True
    calls.add_sizes(size_of[iteration])
    calls.add_iterations(new, rank[by_call])
    calls.add_next(new)
    code_of_row = np.full(len(events), -1, dtype=np.int64)
    code_of_row[rows] = body.codes
    if any(positions(key.nr)[1:] for key in keys):
        iteration_of_row = np.full(len(events), -1, dtype=np.int64)
        iteration_of_row[rows] = body.iteration
        calls.add_second(annotated.second, code_of_row, keys, iteration_of_row)
    _add_openers(calls, annotated, body, code_of_row)
    for stats, number in zip(calls.stats, owner.tolist(), strict=True):
        loops[number].calls[stats.key] = stats
        if body.over is Over.UNTIL_EOF and stats.rank_sum:
            # The write of a copy: to another object, the buffer and length of the read.
            stats.same = {
                0: Arg(ArgKind.FILE, field="G"),
                1: Arg(ArgKind.SAME, call=0, field="arg1"),
                2: Arg(ArgKind.RESULT, call=0),
            }
    return np.bincount(iteration[new], minlength=len(group))


def _add_openers(calls: Calls, annotated: Annotated, body: Body, code_of_row: Ints) -> None:
    """Add the call of the body that most of these descriptors came from: all have a root."""
    by_result = np.array(
        [i for i, stats in enumerate(calls.stats) if stats.key.via == Via.RESULT], dtype=np.int64
    )
    if not len(by_result):
        return
    size = np.minimum(calls.size[by_result], _OPENERS)
    at = ranges(calls.begin[by_result], size)
    code = code_of_row[annotated.root[calls.rows[at]]]
    owner, code = calls.number[at[code >= 0]], code[code >= 0]
    owner, code, count = pairs(owner, code)
    # Of those that are as many the first of the keys.
    best = order(owner, -count, code)
    best = best[starts(owner[best])]
    for i, opener in zip(owner[best].tolist(), code[best].tolist(), strict=True):
        calls.stats[i].opener = body.keys[opener]


def _add_paths(loops: list[BodyLoop], annotated: Annotated, body: Body, group: Ints) -> None:
    """The lists of paths, and how much of them was known before."""
    events = annotated.events
    assert body.path is not None
    has = np.flatnonzero(body.path >= 0)
    row, owner, instance = body.path[has], group[has], body.instance[has]
    gone = body.missing[has] if body.missing is not None else np.zeros(len(has), bool)
    identity, _ = dense(path_identity(annotated, row), gone.astype(np.int64))
    number, first = dense(owner, identity)
    known = np.bincount(owner, instance != instance[first][number], len(loops))
    distinct = np.bincount(owner[first], minlength=len(loops))
    for loop, *counts in zip(loops, distinct.tolist(), known.tolist(), strict=True):
        loop.distinct, loop.known = counts[0], int(counts[1])
    kept = np.flatnonzero(position(starts(owner[first])) < _PATHS_KEPT)
    seen = np.bincount(number)[kept]
    first = first[kept]
    columns = (owner[first].tolist(), events.path.texts(row[first]), seen.tolist())
    for i, path, count, absent in zip(*columns, gone[first].tolist(), strict=True):
        had = loops[i].paths.get(path, (0, 0))
        loops[i].paths[path] = had[0] + count, had[1] + (count if absent else 0)


def path_identity(annotated: Annotated, rows: Ints) -> Ints:
    """One number per path that the events name: equal for the same directory and name."""
    named = annotated.arguments
    known = named.has[rows] & (named.folder[rows] >= 0)
    code = annotated.events.path.codes[rows]
    return np.where(known, ((named.folder[rows] + 1) << 32) | named.name[rows], code)


def _add_examples(
    loops: list[BodyLoop], annotated: Annotated, body: Body, distinct: Ints, group_begin: Ints
) -> None:
    """The calls of the early iteration that shows most of the body; distinct: by iteration, the
    number of different calls."""
    size = np.minimum(np.diff(group_begin, append=len(distinct)), _EXAMPLE_ITERATIONS)
    early = ranges(group_begin, size)
    begin = np.cumsum(size) - size
    # The first of those that show as much.
    best = -np.maximum.reduceat(distinct[early] * len(distinct) - early, begin) % len(distinct)
    start = np.searchsorted(body.iteration, best)
    stop = np.searchsorted(body.iteration, best + 1)
    for loop, a, b in zip(loops, start.tolist(), stop.tolist(), strict=True):
        chosen = body.rows[a:b][:_EXAMPLE_CALLS]
        loop.example = [call_line(annotated.events, int(i)) for i in chosen]
