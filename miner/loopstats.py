# SPDX-License-Identifier: MIT
"""Statistics of a loop over directory entries: additive over traces, end as a motif."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from miner import motifs
from miner.annotate import DIR, TYPE_NAMES, Annotated, Via
from miner.callstats import CallStats, assemble, table_entry
from miner.collect import Calls
from miner.events import Bools, Events, Ints
from miner.histogram import Histogram
from miner.order import order, position, starts
from miner.prefixes import PrefixTable, prefix_tables
from miner.render import call_line
from miner.tokens import BodyKey, BodyTokens
from tracer.syscalls import ArgKind, SyscallClass

_NTH = [1 << i for i in range(11)]  # 1..1024, what an image can ask for
_MAX_DEPTH = 64
_EXAMPLE_ITERATIONS = 4096
_EXAMPLE_CALLS = 12

Feature = tuple[BodyKey, str]
"""A body call and the class of entries (dir or leaf) that it was made for."""


class ContinuationTable:
    """Sums behind `motifs.Continuation`, by (n, bucket of entries)."""

    _SUMS = ("reached", "continued", "remaining", "children", "entries")

    def __init__(self) -> None:
        self._rows: dict[tuple[int, int], Ints] = {}

    def add(self, n: int, entries: Ints, remaining: Ints, children: Ints) -> None:
        """Add one instance per element: it reached n and had so much left."""
        # Bucket b holds directories of 2^(b-1) .. 2^b - 1 entries; bucket 0 empty ones.
        bucket = np.frexp(entries.astype(np.float64))[1].astype(np.int64)
        # Sums of counts: far below what a double cannot hold exactly.
        columns = [None, remaining > 0, remaining, children, entries]
        sums = np.array([np.bincount(bucket, column) for column in columns], dtype=np.int64).T
        for b in np.flatnonzero(sums[:, 0]).tolist():
            self.add_sums(n, b, sums[b])

    def add_sums(self, n: int, bucket: int, sums: Ints) -> None:
        """Add the sums over instances of one bucket, in the order of a row."""
        self._rows[n, bucket] = self._rows.get((n, bucket), 0) + sums

    def merge(self, other: ContinuationTable) -> None:
        """Add the sums of another table."""
        for key, row in other._rows.items():
            self._rows[key] = self._rows.get(key, np.zeros_like(row)) + row

    def rows(self) -> list[motifs.Continuation]:
        """The table in the form of the motif file, by n, then by size."""
        return [
            motifs.Continuation(
                n=n,
                min_entries=(1 << b) >> 1,
                max_entries=max((1 << b) - 1, 0),
                **{k: int(v) for k, v in zip(self._SUMS, row, strict=True)},
            )
            for (n, b), row in sorted(self._rows.items())
        ]


@dataclass
class EntryLoop:
    """One loop over entries; everything in it can be added up over traces."""

    calls: dict[BodyKey, CallStats] = field(default_factory=dict)
    per_instance: Histogram = field(default_factory=Histogram)  # iterations of touched scans
    entries: Histogram = field(default_factory=Histogram)  # of touched scans
    instances: int = 0
    iterations: int = 0
    entries_total: int = 0
    own_ns: int = 0
    prefixes: PrefixTable = field(default_factory=PrefixTable)
    scanned: int = 0
    visited: Counter[str] = field(default_factory=Counter)  # entries by type
    present: Counter[str] = field(default_factory=Counter)
    in_order: int = 0
    child_dirs: int = 0
    descended: int = 0
    interleaved: int = 0
    depths: Counter[int] = field(default_factory=Counter)
    all_calls: ContinuationTable = field(default_factory=ContinuationTable)
    file_calls: ContinuationTable = field(default_factory=ContinuationTable)
    hits: Counter[Feature] = field(default_factory=Counter)
    programs: Counter[str] = field(default_factory=Counter)
    build_ids: dict[str, str] = field(default_factory=dict)
    example: list[str] = field(default_factory=list)

    def features(self) -> dict[Feature, float]:
        """Share of the entries of a class that each body call was made for: the signature."""
        leaves = sum(count for kind, count in self.present.items() if kind != "dir")
        total = {"dir": self.present["dir"], "leaf": leaves}
        return {f: hits / max(total[f[1]], 1) for f, hits in self.hits.items()}

    def merge(self, other: EntryLoop) -> None:
        """Add what another trace or program says of the same loop."""
        for key, stats in other.calls.items():
            if key in self.calls:
                self.calls[key].merge(stats)
            else:
                self.calls[key] = stats
        self.per_instance.merge(other.per_instance)
        self.entries.merge(other.entries)
        self.prefixes.merge(other.prefixes)
        for name in (
            "instances",
            "iterations",
            "entries_total",
            "own_ns",
            "scanned",
            "in_order",
            "child_dirs",
            "descended",
            "interleaved",
        ):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.visited.update(other.visited)
        self.present.update(other.present)
        self.depths.update(other.depths)
        self.hits.update(other.hits)
        self.programs.update(other.programs)
        self.all_calls.merge(other.all_calls)
        self.file_calls.merge(other.file_calls)
        self.build_ids.update(other.build_ids)
        self.example = max(self.example, other.example, key=len)

    def to_loop(self) -> motifs.Loop:
        """Shape of the loop in the form of the motif file."""
        depths = [self.depths[d] for d in range(max(self.depths, default=-1) + 1)]
        return motifs.Loop(
            over=motifs.Over.ENTRIES,
            instances=self.instances,
            iterations=self.iterations,
            per_instance=self.per_instance.quantiles(),
            entries=self.entries.quantiles(),
            entries_total=self.entries_total,
            scanned=self.scanned,
            untouched=self.scanned - self.instances,
            coverage={k: round(self.visited[k] / n, 6) for k, n in self.present.items() if n},
            in_order=round(self.in_order / max(self.iterations, 1), 6),
            depth=motifs.Depth(
                descends=round(self.descended / max(self.child_dirs, 1), 6),
                interleaved=round(self.interleaved / max(self.descended, 1), 6),
                histogram=depths,
                max=len(depths) - 1,
            ),
        )

    def to_motif(self, name: str, boundary_ns: int) -> motifs.Motif:
        """The loop as a motif; what it would save is filled in by the cost model."""
        order = sorted(
            self.calls.values(), key=lambda c: (c.rank_sum / max(c.iterations, 1), c.key)
        )
        index = {stats.key: i for i, stats in enumerate(order)}
        stat_call = next((i for i, s in enumerate(order) if returns_size(s.key.nr)), None)
        loop = self.to_loop()
        calls = [stats.to_call(loop.iterations, index, stat_call) for stats in order]
        return assemble(
            name,
            loop,
            calls,
            boundary_ns,
            instances_by_program=dict(self.programs.most_common()),
            build_ids=self.build_ids,
            continuation=self.all_calls.rows(),
            continuation_files=self.file_calls.rows(),
            example=self.example,
            prefixes=self.prefixes.rows(index),
            own_ns=self.own_ns,
        )


def returns_size(nr: int) -> bool:
    """Whether the call returns a file's size."""
    return table_entry(nr).index(ArgKind.STAT_OUT, ArgKind.STATX_OUT) is not None


def is_matching(key: BodyKey) -> bool:
    """Whether a compound could answer the call: pure, and the child is named in it."""
    pure = table_entry(key.nr).cls is SyscallClass.PURE
    return pure and key.via in (Via.NAME, Via.PATH, Via.CWD)


def _opens(key: BodyKey) -> bool:
    return table_entry(key.nr).returns_fd and key.via != Via.RESULT


def measure(
    annotated: Annotated, tokens: BodyTokens, rows: Ints, scans: Ints, depth: Ints
) -> EntryLoop:
    """The loop whose body events are `rows`, in a program that read the directories `scans`.

    rows: sorted by event; scans: sorted, all that the program read; depth: of every scan.
    """
    loop = EntryLoop(scanned=len(scans))
    table = annotated.scans
    rows = rows[order(annotated.entry[rows])]
    entry = annotated.entry[rows]
    firsts = starts(entry)
    rank = position(firsts)
    touched_entries = entry[firsts]
    kind = table.entry_type
    touched = np.flatnonzero(np.bincount(annotated.scan[rows], minlength=len(table)))
    _add_calls(loop, annotated, tokens, rows, rank)

    iterations = np.bincount(np.searchsorted(touched, table.entry_scan[touched_entries]))
    loop.per_instance.add(iterations)
    loop.entries.add(table.entries[touched])
    loop.instances, loop.iterations = len(touched), len(touched_entries)
    loop.entries_total = int(table.entries[touched].sum())
    loop.own_ns = int(annotated.events.work_ns[rows].sum())
    one = np.zeros(len(touched_entries), dtype=np.int64)
    (loop.prefixes,) = prefix_tables(tokens.codes[rows], firsts, tokens.keys, one, 1)
    loop.visited.update(_types(kind[touched_entries]))
    # Entry columns of the touched scans, without a loop over scans.
    length = table.entries[touched]
    within = np.arange(int(length.sum())) - np.repeat(np.cumsum(length) - length, length)
    present = np.repeat(table.entry_start[touched], length) + within
    loop.present.update(_types(kind[present]))

    by_time = order(table.entry_scan[touched_entries], rows[firsts])
    place = (touched_entries - table.entry_start[table.entry_scan[touched_entries]])[by_time]
    scan_of = table.entry_scan[touched_entries][by_time]
    before = np.full(len(place), -1, dtype=np.int64)
    same = scan_of[1:] == scan_of[:-1]
    before[1:][same] = place[:-1][same]
    loop.in_order = int((place == before + 1).sum())

    keys = [k for k, used in zip(tokens.keys, _used(tokens, rows), strict=True) if used]
    wanted = [is_matching(k) for k in tokens.keys]
    if not any(is_matching(k) for k in keys):
        wanted = [_opens(k) for k in tokens.keys]
    matching = np.sort(rows[np.array(wanted, dtype=bool)[tokens.codes[rows]]])
    _add_continuation(loop, annotated, matching, scans)
    _add_depth(loop, annotated, matching, touched, scans, depth)
    add_programs(loop.programs, loop.build_ids, annotated.events, table.image[touched])
    loop.example = _example(annotated, tokens, rows, firsts)
    return loop


def _used(tokens: BodyTokens, rows: Ints) -> Bools:
    return np.bincount(tokens.codes[rows], minlength=len(tokens.keys)) > 0


def _types(kinds: Ints) -> dict[str, int]:
    counts = np.bincount(kinds, minlength=len(TYPE_NAMES))
    return {name: int(n) for name, n in zip(TYPE_NAMES, counts, strict=True) if n}


def _add_calls(
    loop: EntryLoop, annotated: Annotated, tokens: BodyTokens, rows: Ints, rank: Ints
) -> None:
    """Statistics of each body call; rows are sorted by (entry, event)."""
    events, kind = annotated.events, annotated.scans.entry_type
    codes, entry = tokens.codes[rows], annotated.entry[rows]
    # Size of each file by the first call that told it.
    told = np.flatnonzero(events.st_size[rows] >= 0)
    size_of = np.full(len(kind), -1, dtype=np.int64)
    size_of[entry[told[::-1]]] = events.st_size[rows[told[::-1]]]
    by_code = order(codes)
    entry, codes = entry[by_code], codes[by_code]
    begin = np.flatnonzero(starts(codes))
    calls = Calls(events, [tokens.keys[c] for c in codes[begin].tolist()], rows[by_code], begin)
    new = starts(codes, entry)
    calls.add_sizes(size_of[entry])
    calls.add_iterations(new, rank[by_code])
    calls.add_second(annotated.second, tokens.codes, tokens.keys, annotated.entry)
    for at, stats in zip(np.split(np.arange(len(rows)), begin[1:]), calls.stats, strict=True):
        loop.calls[stats.key] = stats
        stats.add_types(kind[entry[at]])
        dirs = int((kind[entry[at[new[at]]]] == DIR).sum())
        loop.hits[stats.key, "dir"] += dirs
        loop.hits[stats.key, "leaf"] += stats.iterations - dirs
        if stats.key.via == Via.RESULT:
            opener = tokens.codes[annotated.root[calls.rows[at]]]
            opener = opener[opener >= 0]
            if len(opener):
                stats.opener = tokens.keys[int(np.bincount(opener).argmax())]


def _add_continuation(loop: EntryLoop, annotated: Annotated, matching: Ints, scans: Ints) -> None:
    """How the program goes on in a directory after n matching calls on its children."""
    table = annotated.scans
    rows = matching[order(annotated.scan[matching])]
    scan, entry = annotated.scan[rows], annotated.entry[rows]
    local = np.searchsorted(scans, scan)
    total = np.bincount(local, minlength=len(scans))
    begin = np.cumsum(total) - total
    # The last call on each child; marks after a position count the children still to come.
    last = np.full(len(table.entry_scan), -1, dtype=np.int64)
    last[entry] = np.arange(len(rows))  # of equal ones the last stays
    mark = np.zeros(len(rows) + 1, dtype=np.int64)
    mark[last[last >= 0]] = 1
    after = np.append(np.cumsum(mark[:-1][::-1])[::-1], 0)  # marks at or behind a position
    end = begin + total
    children = after[np.minimum(begin, len(rows))] - after[end]
    entries = table.entries[scans]
    leaf = table.entry_type[entry] != DIR
    for out, counted in (
        (loop.all_calls, np.ones(len(rows), dtype=bool)),
        (loop.file_calls, leaf),
    ):
        out.add(0, entries, total, children)
        rows_counted = np.flatnonzero(counted)
        nth = position(starts(local[rows_counted])) + 1
        for n in _NTH:
            at = rows_counted[nth == n]
            if not len(at):
                break
            who = local[at]
            out.add(n, entries[who], end[who] - at - 1, after[at + 1] - after[end[who]])


def _add_depth(
    loop: EntryLoop, annotated: Annotated, matching: Ints, touched: Ints, scans: Ints, depth: Ints
) -> None:
    table = annotated.scans
    loop.child_dirs = loop.present["dir"]
    is_touched = np.zeros(len(table) + 1, dtype=bool)
    is_touched[touched] = True
    below = scans[is_touched[table.parent[scans]]]
    # Each sub-directory once, however often it was read.
    opened = annotated.entry[table.opened[below]]
    _, at = np.unique(opened, return_index=True)
    below = below[at]
    loop.descended = len(below)
    last_call = np.full(len(table), -1, dtype=np.int64)
    last_call[annotated.scan[matching]] = matching  # sorted by event: the last one stays
    loop.interleaved = int((table.opened[below] < last_call[table.parent[below]]).sum())
    counts = np.bincount(np.minimum(depth[scans], _MAX_DEPTH))
    loop.depths.update({d: int(n) for d, n in enumerate(counts) if n})


def add_programs(
    programs: Counter[str], build_ids: dict[str, str], events: Events, images: Ints
) -> None:
    """Add the instances of a motif: `images` that they ran in, one each."""
    counts = np.bincount(images + 1)
    used = np.flatnonzero(counts)
    for image, count in zip((used - 1).tolist(), counts[used].tolist(), strict=True):
        add_program(programs, build_ids, events, image, count)


def add_program(
    programs: Counter[str], build_ids: dict[str, str], events: Events, image: int, count: int
) -> None:
    """Add so many instances of a motif that ran in an image, -1: an unknown one."""
    process = events.processes[image] if image >= 0 else None
    programs[process.exe if process else "?"] += count
    if process and process.build_id:
        build_ids[process.exe] = process.build_id


def _example(annotated: Annotated, tokens: BodyTokens, rows: Ints, firsts: Bools) -> list[str]:
    """The calls of the early iteration that shows most of the body."""
    begin = np.append(np.flatnonzero(firsts), len(rows))
    early = int(begin[min(_EXAMPLE_ITERATIONS, len(begin) - 1)])
    shown = np.zeros((min(_EXAMPLE_ITERATIONS, len(begin) - 1), len(tokens.keys)), dtype=bool)
    shown[np.cumsum(firsts[:early]) - 1, tokens.codes[rows[:early]]] = True
    best = int(shown.sum(axis=1).argmax())
    chosen = rows[begin[best] : begin[best + 1]][:_EXAMPLE_CALLS]
    return [call_line(annotated.events, int(i)) for i in chosen]
