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
from miner.callstats import CallStats, assemble, observations, table_entry
from miner.events import Bools, Ints
from miner.histogram import Histogram
from miner.loopstats import ContinuationTable, add_programs, returns_size
from miner.masks import MASK_BITS, similar_masks
from miner.motifs import Arg, ArgKind, Over
from miner.order import dense, order, position, ranges, sizes, starts
from miner.prefixes import PrefixTable
from miner.render import call_line
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
        stat_call = next((i for i, s in enumerate(order_of) if returns_size(s.key.nr)), None)
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
    # A group's iterations run by run, so that those of one instance are neighbours.
    by_run = order(run)
    body, group = replace(body, instance=run).sorted_by(by_run), group[by_run]
    # By event, for all groups: they share no event.
    code_of_row = np.full(len(annotated.events), -1, dtype=np.int64)
    code_of_row[body.rows] = body.codes
    return [measure(annotated, one, claimed, code_of_row) for one in body.by_group(group)]


def _ignored(keys: list[BodyKey], bit: Ints) -> int:
    """Calls that nearly every file sees: they say nothing of what is done with it."""
    table = [table_entry(key.nr) for key in keys]
    common = [bit[i] for i, call in enumerate(table) if call.returns_fd or call.name in _COMMON]
    return int(np.bitwise_or.reduce(common)) if common else 0


def measure(annotated: Annotated, body: Body, claimed: Bools, code_of_row: Ints) -> BodyLoop:
    """The loop whose iterations are those of `body`; marks its events in `claimed`.

    code_of_row: by event, index into body.keys, -1: not in the body.
    """
    events, rows = annotated.events, body.rows
    loop = BodyLoop(body.over)
    firsts = starts(body.iteration)
    loop.iterations = int(firsts.sum())
    new_instance = starts(body.instance)
    length = sizes(new_instance)
    loop.instances = len(length)
    loop.per_instance.add(length)
    loop.own_ns = int(events.work_ns[rows[~claimed[rows]]].sum())
    claimed[rows] = True
    begin = np.flatnonzero(firsts)
    loop.bytes.add(np.add.reduceat(events.bytes_out[rows] + events.bytes_in[rows], begin))
    loop.prefixes.add(body.codes, firsts, body.keys)
    _add_continuation(loop, length)
    _add_calls(loop, annotated, body, code_of_row)
    add_programs(loop.programs, loop.build_ids, events, annotated.image[rows[begin[new_instance]]])
    if body.whole is not None:
        loop.whole = int(body.whole.sum())
    if body.missing is not None:
        loop.missing = int(body.missing.sum())
    if body.source is not None:
        counts = np.bincount(body.source[body.source >= 0], minlength=len(SOURCES))
        loop.sources.update({s: int(n) for s, n in zip(SOURCES, counts, strict=True) if n})
    if body.path is not None:
        _add_paths(loop, annotated, body)
    loop.example = _example(annotated, body)
    return loop


def _add_continuation(loop: BodyLoop, length: Ints) -> None:
    for n in (0, *_NTH):
        left = length[length >= n] - n
        if not len(left):
            break
        remaining = int(left.sum())
        sums = (len(left), np.count_nonzero(left), remaining, remaining, 0)
        loop.continuation.add_sums(n, 0, np.array(sums, dtype=np.int64))


def _add_calls(loop: BodyLoop, annotated: Annotated, body: Body, code_of_row: Ints) -> None:
    events = annotated.events
    rank = position(starts(body.iteration))
    told = np.flatnonzero(events.st_size[body.rows] >= 0)[::-1]
    size_of = np.full(int(body.iteration[-1]) + 1, -1, dtype=np.int64)
    size_of[body.iteration[told]] = events.st_size[body.rows[told]]
    by_code = order(body.codes)
    begin = np.flatnonzero(starts(body.codes[by_code]))
    found = observations(events, body.rows[by_code], begin)
    for at, seen in zip(np.split(by_code, begin[1:]), found, strict=True):
        key = body.keys[int(body.codes[at[0]])]
        stats = loop.calls[key] = CallStats(key)
        iteration = body.iteration[at]
        new = starts(iteration)
        stats.listed = key.via != Via.RESULT and body.over in (Over.FILES, Over.PATHS)
        stats.add(events, seen, size_of[iteration])
        stats.rank_sum = int(rank[at[new]].sum())
        stats.iterations = int(np.count_nonzero(new))
        stats.add_repeats(seen, new)
        stats.add_next(events, seen, new)
        if body.over is Over.UNTIL_EOF and stats.rank_sum:
            # The write of a copy: to another object, the buffer and length of the read.
            stats.same = {
                "fd": Arg(ArgKind.FILE, field="G"),
                "buf_in": Arg(ArgKind.SAME, call=0, field="arg1"),
                "size": Arg(ArgKind.RESULT, call=0),
            }
        if key.via == Via.RESULT:
            stats.opener = _opener(body, annotated.root[seen.rows], code_of_row)


def _opener(body: Body, root: Ints, code_of_row: Ints) -> BodyKey | None:
    """The call of the body that most of these descriptors came from."""
    root = root[root >= 0][:_OPENERS]
    found = code_of_row[root]
    found = found[found >= 0]
    return body.keys[int(np.bincount(found).argmax())] if len(found) else None


def _add_paths(loop: BodyLoop, annotated: Annotated, body: Body) -> None:
    """The list of paths, and how much of it was known before."""
    events = annotated.events
    assert body.path is not None
    has = np.flatnonzero(body.path >= 0)
    if not len(has):
        return
    row = body.path[has]
    gone = body.missing[has] if body.missing is not None else np.zeros(len(has), bool)
    number, first = dense(path_identity(annotated, row), gone.astype(np.int64))
    loop.distinct = len(first)
    loop.known = int((body.instance[has] != body.instance[has][first][number]).sum())
    kept = first[:_PATHS_KEPT]
    columns = (events.path.texts(row[kept]), np.bincount(number).tolist(), gone[kept].tolist())
    for path, seen, absent in zip(*columns, strict=False):
        count, missing = loop.paths.get(path, (0, 0))
        loop.paths[path] = count + seen, missing + (seen if absent else 0)


def path_identity(annotated: Annotated, rows: Ints) -> Ints:
    """One number per path that the events name: equal for the same directory and name."""
    named = annotated.arguments
    known = named.has[rows] & (named.folder[rows] >= 0)
    code = annotated.events.path.codes[rows]
    return np.where(known, ((named.folder[rows] + 1) << 32) | named.name[rows], code)


def _example(annotated: Annotated, body: Body) -> list[str]:
    """The calls of the early iteration that shows most of the body."""
    early = int(np.searchsorted(body.iteration, _EXAMPLE_ITERATIONS))
    iteration = body.iteration[:early]
    _, first = dense(iteration, body.codes[:early])
    best = int(np.bincount(iteration[first]).argmax())
    start, stop = np.searchsorted(iteration, [best, best + 1])
    chosen = body.rows[start:stop][:_EXAMPLE_CALLS]
    return [call_line(annotated.events, int(i)) for i in chosen]
