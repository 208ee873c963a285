# SPDX-License-Identifier: MIT
"""Motifs that are no loop over entries: reads until the end, tandem loops, plain repeats."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

import numpy as np

from miner import motifs
from miner.annotate import Annotated, Via
from miner.callstats import CallStats, assemble, table_entry
from miner.collect import per_call
from miner.descriptors import positions
from miner.events import NO_RET, Bools, Ints
from miner.histogram import Histogram
from miner.joins import argument_index, is_one, numbers
from miner.loops import tandems
from miner.loopstats import add_programs
from miner.motifs import Arg, ArgKind
from miner.order import dense, order, ranges, starts
from miner.render import call_line
from miner.repeats import maximal_repeats
from miner.tokens import BodyKey, stream_tokens, xattr_codes
from tracer import syscalls

_READS = (
    *("read", "pread64", "readv", "preadv", "preadv2", "getdents64", "getdents"),
    *("copy_file_range", "splice"),
)
_MIN_OCCURRENCES = 3
_CANDIDATES = 400  # repeats tried, best first
_K = syscalls.ArgKind

SequenceKey = tuple[object, ...]
"""What makes two sequences of different traces the same: calls and their provenance."""


@dataclass
class Sequence:
    """A motif of calls in a fixed order; additive over traces."""

    over: motifs.Over | None  # None: a repeat
    calls: list[CallStats]
    where: list[dict[int, Arg]]  # per call: provenance of its descriptors and path, by argument
    instances: int = 0
    rounds: int = 0  # iterations of all instances of a loop
    per_instance: Histogram = field(default_factory=Histogram)
    own_ns: int = 0
    programs: Counter[str] = field(default_factory=Counter)
    build_ids: dict[str, str] = field(default_factory=dict)
    example: list[str] = field(default_factory=list)
    known_ends: int = 0  # reads that could only return 0: the one before fell short
    known_ends_ns: int = 0  # time in these

    def key(self) -> SequenceKey:
        """Identity across traces."""
        args = tuple(
            tuple((i, a.kind, a.call, a.text, a.field) for i, a in sorted(w.items()))
            for w in self.where
        )
        return (self.over, tuple(c.key for c in self.calls), args)

    def merge(self, other: Sequence) -> None:
        """Add what another trace or program says of the same sequence."""
        for mine, theirs in zip(self.calls, other.calls, strict=True):
            mine.merge(theirs)
        for known, seen in zip(self.where, other.where, strict=True):
            for i, arg in seen.items():
                if known[i].value != arg.value:
                    known[i] = Arg(ArgKind.UNKNOWN)
        self.per_instance.merge(other.per_instance)
        self.own_ns += other.own_ns
        self.instances += other.instances
        self.rounds += other.rounds
        self.programs.update(other.programs)
        self.build_ids.update(other.build_ids)
        self.known_ends += other.known_ends
        self.known_ends_ns += other.known_ends_ns

    @property
    def crossings(self) -> int:
        """All calls of all instances."""
        return sum(c.count for c in self.calls)

    def to_motif(self, name: str, boundary_ns: int) -> motifs.Motif:
        """The sequence as a motif."""
        iterations = max((c.iterations for c in self.calls), default=0)
        calls = []
        for stats, where in zip(self.calls, self.where, strict=True):
            calls.append(stats.to_call(iterations, {}, None, where))
        loop = None
        if self.over:
            loop = motifs.Loop(
                self.over, self.instances, self.rounds, self.per_instance.quantiles()
            )
        return assemble(
            name,
            loop,
            calls,
            boundary_ns,
            crossings=self.crossings,
            instances_by_program=dict(self.programs.most_common()),
            build_ids=self.build_ids,
            example=self.example,
            own_ns=self.own_ns,
        )


def read_loops(annotated: Annotated, claimed: Bools) -> list[Sequence]:
    """Reads of one open file, or of one directory, until the call that returns 0; marks them in
    `claimed`, the events of other loops."""
    events, of = annotated.events, annotated.events.object
    reads = np.flatnonzero(is_one(events.nr, *_READS))
    reads = reads[(of[reads] >= 0) & (events.ret[reads] >= 0) & events.own[reads]]
    number_of = events.nr[reads]
    loops: list[_ReadLoop] = []
    for nr in numbers(*_READS).tolist():
        rows = reads[number_of == nr]
        rows = rows[order(of[rows])]
        if not len(rows):
            continue
        start = np.flatnonzero(np.diff(of[rows], prepend=-1))
        size = np.diff(np.append(start, len(rows)))
        ends = np.logical_or.reduceat(events.ret[rows] == 0, start)
        instances = np.flatnonzero((size >= 2) & ends)
        image = annotated.image[rows[start[instances]]]
        program = annotated.program[image]
        by_program = order(program)
        bounds = np.flatnonzero(starts(program[by_program]))
        for at in np.split(by_program, bounds[1:]) if len(instances) else []:
            mine = instances[at]
            chosen = rows[ranges(start[mine], size[mine])]
            loops.append(_ReadLoop(nr, chosen, size[mine], image[at]))
    if not loops:
        return []
    keys = [BodyKey(loop.nr, Via.FILE, "") for loop in loops]
    every = np.concatenate([loop.rows for loop in loops])
    begin = np.cumsum([0, *(len(loop.rows) for loop in loops[:-1])])
    own_ns = np.add.reduceat(np.where(claimed[every], 0, events.work_ns[every]), begin)
    claimed[every] = True
    found = []
    columns = (loops, per_call(events, keys, every, begin), own_ns.tolist())
    for loop, stats, own in zip(*columns, strict=True):
        sequence = _read_loop(annotated, loop, stats)
        sequence.own_ns = own
        found.append(sequence)
    return found


class _ReadLoop(NamedTuple):
    """The reads of one program with one call; size: reads of each file, image: that read it."""

    nr: int
    rows: Ints
    size: Ints
    image: Ints


def _read_loop(annotated: Annotated, found: _ReadLoop, stats: CallStats) -> Sequence:
    events = annotated.events
    nr, rows, size, image = found
    where = {positions(nr)[0]: Arg(ArgKind.FILE)}
    if len(positions(nr)) == 2 and _one_target(annotated, rows, size):
        where[positions(nr)[1]] = Arg(ArgKind.FILE, field="G")
    loop = Sequence(motifs.Over.UNTIL_EOF, [stats], [where], len(size), len(rows))
    loop.per_instance.add(size)
    add_programs(loop.programs, loop.build_ids, events, image)
    first = rows[: int(size[0])]
    loop.example = [call_line(events, int(i)) for i in first[:4]]
    index = int(argument_index(_K.SIZE)[nr])
    if index >= 0 and nr not in numbers("getdents64", "getdents"):
        wanted = events.args[:, index][rows].astype(np.int64)
        of, ret = events.object[rows], events.ret[rows]
        short = (ret > 0) & (ret < wanted) & events.objects.are("file")[of]
        known = rows[1:][short[:-1] & (ret[1:] == 0) & (of[1:] == of[:-1])]
        loop.known_ends, loop.known_ends_ns = len(known), int(events.dur_ns[known].sum())
    return loop


def _one_target(annotated: Annotated, rows: Ints, size: Ints) -> bool:
    """Whether the second descriptors of each file's reads are known to be one other object."""
    of, _ = annotated.second.of(rows)
    first = np.repeat(of[np.cumsum(size) - size], size)
    return bool(((of >= 0) & (of == first) & (of != annotated.events.object[rows])).all())


@dataclass(frozen=True)
class _Folded:
    """Token streams of all threads, loops folded: one element per call that is left."""

    token: Ints  # below 0: between threads and for loops, so that no repeat crosses them
    row: Ints  # event, -1 between threads
    count: Ints  # calls that the element stands for
    time_ns: Ints


def _streams(annotated: Annotated, claimed: Bools) -> tuple[Ints, Ints]:
    """Tokens of the calls that belong to no loop, thread by thread, and their events."""
    events = annotated.events
    rows = np.flatnonzero((events.ret != NO_RET) & events.own)
    rows = rows[order(events.thread[rows])]
    # What was taken out leaves one token behind, which equals no other.
    gone = claimed[rows]
    head = gone & ~np.append(False, gone[:-1])
    rows, head = rows[~gone | head], head[~gone | head]
    token = stream_tokens(annotated, rows)
    token[head] = -1 - np.arange(int(head.sum()))
    return token, rows


def _fold(annotated: Annotated, claimed: Bools) -> tuple[_Folded, list[Sequence]]:
    events = annotated.events
    token, rows = _streams(annotated, claimed)
    thread = events.thread[rows]
    cut = np.flatnonzero(thread[1:] != thread[:-1]) + 1
    # Each thread ends in a token of its own.
    token = np.insert(token, cut, int(token.min(initial=0)) - 1 - np.arange(len(cut)))
    rows = np.insert(rows, cut, -1)
    count = np.ones(len(token), dtype=np.int64)
    time_ns = np.where(rows >= 0, events.work_ns[rows], 0)
    keep = np.ones(len(token), dtype=bool)
    top = int(token.max(initial=0)) + 1
    shown = token.copy()
    found: list[Sequence] = []
    runs = tandems(token)
    if runs:
        start, period, repeats = np.array(runs, dtype=np.int64).T
        size = period * repeats
        place = ranges(start, size)
        run_of = np.repeat(np.arange(len(start)), size)
        within = place - start[run_of]
        head = start[run_of] + within % period[run_of]
        first = within < period[run_of]
        # The first round stands for all of them.
        time_ns[head[first]] = np.bincount(head, time_ns[place], len(token))[head[first]]
        count[head[first]] = repeats[run_of[first]]
        shown[head[first]] += top
        keep[place[~first]] = False
        bodies = _same_bodies(token, start, period)
        grids = [
            rows[ranges(start[mine], size[mine])].reshape(-1, int(period[mine[0]]))
            for mine in bodies
        ]
        found = _sequences(annotated, grids, motifs.Over.TANDEM)
        for mine, sequence in zip(bodies, found, strict=True):
            sequence.instances, sequence.rounds = len(mine), int(repeats[mine].sum())
            sequence.per_instance.add(repeats[mine])
            image = annotated.image[rows[start[mine]]]
            add_programs(sequence.programs, sequence.build_ids, events, image)
            sequence.own_ns = sum(stats.time_ns for stats in sequence.calls)
    return _Folded(shown[keep], rows[keep], count[keep], time_ns[keep]), found


def _same_bodies(token: Ints, start: Ints, period: Ints) -> list[Ints]:
    """The runs of each body (its first `period` tokens), in the order of appearance."""
    groups: list[Ints] = []
    for length in np.flatnonzero(np.bincount(period)).tolist():
        at = np.flatnonzero(period == length)
        number, _ = dense(*(token[start[at] + i] for i in range(length)))
        by_number = order(number)
        groups += np.split(at[by_number], np.flatnonzero(starts(number[by_number]))[1:])
    return sorted(groups, key=lambda group: int(group[0]))


def _sequences(annotated: Annotated, grids: list[Ints], over: motifs.Over | None) -> list[Sequence]:
    """The sequences whose instances are the rows of each grid: events, one column per call."""
    events = annotated.events
    if not grids:
        return []
    firsts = np.concatenate([grid[0] for grid in grids])
    keys = []
    for nr, code in zip(
        events.nr[firsts].tolist(), xattr_codes(events, firsts).tolist(), strict=True
    ):
        name = str(events.path2.array[code]) if code >= 0 else ""
        keys.append(BodyKey(nr, Via.OTHER, name))
    rows = np.concatenate([grid.T.ravel() for grid in grids])
    size = np.concatenate([np.full(grid.shape[1], len(grid)) for grid in grids])
    stats = iter(per_call(events, keys, rows, np.cumsum(size) - size))
    found = []
    for grid in grids:
        calls = list(islice(stats, grid.shape[1]))
        where = [_provenance(annotated, grid, j) for j in range(grid.shape[1])]
        example = [call_line(events, i) for i in grid[0].tolist()]
        found.append(Sequence(over, calls, where, instances=len(grid), example=example))
    return found


def _provenance(annotated: Annotated, grid: Ints, j: int) -> dict[int, Arg]:
    """Where the descriptors, the path and the data of column j come from, by argument."""
    events, column = annotated.events, grid[:, j]
    nr = int(events.nr[column[0]])
    out = {i: _descriptor(annotated, grid, j, i) for i in positions(nr)}
    out |= _buffer(annotated, grid, j)
    codes = events.path.codes[column]
    place = table_entry(nr).index(_K.PATH)
    if place is None:
        return out
    if (codes < 0).all() and table_entry(nr).index(_K.AT_FLAGS) is not None:
        out[place] = Arg(ArgKind.STRING, text="")  # AT_EMPTY_PATH
    elif (codes >= 0).all():
        arg = Arg(ArgKind.UNKNOWN)
        if (codes == codes[0]).all():
            arg = Arg(ArgKind.STRING, text=events.path[int(column[0])])
        else:
            for k in range(j):
                if (events.path.codes[grid[:, k]] == codes).all():
                    at = table_entry(int(events.nr[grid[0, k]])).index(_K.PATH)
                    arg = Arg(ArgKind.SAME, call=k, field=f"arg{at}")
                    break
        out[place] = arg
    return out


def _buffer(annotated: Annotated, grid: Ints, j: int) -> dict[int, Arg]:
    """The data that column j writes, when it lies where an earlier call of the sequence read it."""
    events = annotated.events
    written = table_entry(int(events.nr[grid[0, j]])).index(_K.BUF_IN)
    if written is None:
        return {}
    place = events.args[:, written][grid[:, j]]
    for k in reversed(range(j)):
        read = table_entry(int(events.nr[grid[0, k]])).index(_K.BUF_OUT)
        if read is None or not (events.args[:, read][grid[:, k]] == place).all():
            continue
        out = {written: Arg(ArgKind.SAME, call=k, field=f"arg{read}")}
        size = table_entry(int(events.nr[grid[0, j]])).index(_K.SIZE)
        if size is not None:
            length = events.args[:, size][grid[:, j]].view(np.int64)
            if (length == events.ret[grid[:, k]]).all():
                out[size] = Arg(ArgKind.RESULT, call=k)
        return out
    return {}


def _descriptor(annotated: Annotated, grid: Ints, j: int, index: int) -> Arg:
    """Where argument `index` of column j comes from."""
    events = annotated.events
    of, root = _meaning(annotated, grid[:, j], index)
    seen = np.unique(events.fd_arg(index, grid[:, j]))
    if len(seen) == 1 and seen[0] < 0:
        return Arg(ArgKind.CONST, value=int(seen[0]))
    known = bool((of >= 0).all())
    for k in range(j + 1):
        if table_entry(int(events.nr[grid[0, k]])).returns_fd and (root == grid[:, k]).all():
            return Arg(ArgKind.RESULT, call=k)
        for other in positions(int(events.nr[grid[0, k]])):
            if (k, other) >= (j, index):
                break
            if known and (of == _meaning(annotated, grid[:, k], other)[0]).all():
                return Arg(ArgKind.SAME, call=k, field=f"arg{other}")
    is_first = index == positions(int(events.nr[grid[0, j]]))[0]
    if len(seen) == 1 and (root < 0).all() and (known or is_first):
        return Arg(ArgKind.CONST, value=int(seen[0]))
    return Arg(ArgKind.UNKNOWN)


def _meaning(annotated: Annotated, rows: Ints, index: int) -> tuple[Ints, Ints]:
    """Object of argument `index` of events with one call number, and the event that opened it."""
    if index == positions(int(annotated.events.nr[rows[0]]))[0]:
        return annotated.events.object[rows], annotated.root[rows]
    return annotated.second.of(rows)


def sequences(annotated: Annotated, claimed: Bools) -> list[Sequence]:
    """Tandem loops, and the repeats that remain when all loops are folded.

    claimed: events of other loops, which are left out.
    """
    folded, found = _fold(annotated, claimed)
    candidates = maximal_repeats(folded.token, 2, _MIN_OCCURRENCES)
    time_before = np.concatenate([[0], np.cumsum(folded.time_ns)])

    def gain(starts: Ints, length: int) -> int:
        # All crossings but one of each occurrence, as time.
        total = time_before[starts + length] - time_before[starts]
        return int(total.sum()) * (length - 1) // length

    ranked = sorted(candidates, key=lambda r: -gain(r.starts, r.length))[:_CANDIDATES]
    free = np.ones(len(folded.token), dtype=bool)
    chosen = []
    for repeat in ranked:
        starts = _disjoint(repeat.starts, repeat.length)
        window = np.arange(repeat.length)
        starts = starts[free[starts[:, None] + window].all(axis=1)]
        if len(starts) < _MIN_OCCURRENCES:
            continue
        places = starts[:, None] + window
        free[places] = False
        chosen.append(places)
    repeated = _sequences(annotated, [folded.row[places] for places in chosen], None)
    for places, sequence in zip(chosen, repeated, strict=True):
        for j, stats in enumerate(sequence.calls):
            stats.count = int(folded.count[places[:, j]].sum())
            stats.usual_ns = stats.usual_ns * stats.count // len(places)
            stats.time_ns = int(folded.time_ns[places[:, j]].sum())
        image = annotated.image[folded.row[places[:, 0]]]
        add_programs(sequence.programs, sequence.build_ids, annotated.events, image)
        # What was folded is the loop's own.
        sequence.own_ns = int(folded.time_ns[places][folded.count[places] == 1].sum())
    return found + repeated


def _disjoint(starts: Ints, length: int) -> Ints:
    """The starts that are left when occurrences may not overlap, first come first."""
    if not (np.diff(starts) < length).any():
        return starts
    kept, end = [], -1
    for start in starts.tolist():
        if start >= end:
            kept.append(start)
            end = start + length
    return np.array(kept, dtype=np.int64)
