# SPDX-License-Identifier: MIT
"""Folds a trace: loops over directory entries, reads until the end, tandem repeats.

A loop over entries is found by data flow, not by adjacency: all child calls of a scan belong to it,
whatever lies between them. So recursion (du, find and tar go down into a sub-directory in the
middle of its parent), threads and noise do not break it apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from miner.annotate import Annotated
from miner.events import Bools, Ints
from miner.loopstats import EntryLoop, measure
from miner.masks import MASK_BITS, group_masks
from miner.order import dense, order, starts
from miner.tokens import BodyTokens, body_tokens

_MAX_PERIOD = 16
_MIN_TANDEM = 3


class Tandem(NamedTuple):
    """Runs of one body, back to back, in one stream of tokens."""

    start: int  # of the run in the stream
    period: int
    repeats: int


@dataclass(frozen=True)
class EntryLoops:
    """All loops over entries of one trace, and the events that they explain."""

    loops: list[EntryLoop]
    covered: Bools  # by event
    first: Ints  # by covered event: the first event of its loop instance, else -1


def _depths(annotated: Annotated) -> Ints:
    """Depth of each scan below the first one of its walk."""
    parent = annotated.scans.parent
    depth = np.where(parent >= 0, -1, 0)
    frontier = depth == 0
    while frontier.any():
        below = (depth < 0) & frontier[np.maximum(parent, 0)] & (parent >= 0)
        depth[below] = depth[parent[below]] + 1
        frontier = below
    return np.maximum(depth, 0)


def _loops_of_program(
    annotated: Annotated, tokens: BodyTokens, rows: Ints, scans: Ints, depth: Ints
) -> list[tuple[EntryLoop, Ints]]:
    codes = tokens.codes[rows]
    counts = np.bincount(codes, minlength=len(tokens.keys))
    bit = np.full(len(tokens.keys), -1, dtype=np.int64)
    frequent = np.argsort(-counts, kind="stable")[:MASK_BITS]
    bit[frequent] = np.arange(len(frequent))
    rows = rows[bit[codes] >= 0]
    by_scan = rows[order(annotated.scan[rows])]
    scan = annotated.scan[by_scan]
    start = np.flatnonzero(np.diff(scan, prepend=-1))
    masks = np.bitwise_or.reduceat(np.int64(1) << bit[tokens.codes[by_scan]], start)
    size = np.diff(np.append(start, len(scan)))
    group = np.repeat(group_masks(masks, size), size)
    found = []
    for number in range(int(group.max()) + 1):
        mine = np.sort(by_scan[group == number])
        found.append((measure(annotated, tokens, mine, scans, depth), mine))
    return found


def entry_loops(annotated: Annotated) -> EntryLoops:
    """Find the loops over directory entries, one per program and kind of body."""
    tokens = body_tokens(annotated)
    depth = _depths(annotated)
    n = len(annotated.events)
    covered, first = np.zeros(n, dtype=bool), np.full(n, -1, dtype=np.int64)
    loops: list[EntryLoop] = []
    body = np.flatnonzero(tokens.codes >= 0)
    if not len(body):
        return EntryLoops(loops, covered, first)
    # Directories that were read in the piece before count there, unless they are still asked about.
    table = annotated.scans
    counted = annotated.events.own[table.first]
    counted[annotated.scan[body]] = True
    program_of = np.where(counted, annotated.program[table.image], -1)
    program = program_of[annotated.scan[body]]
    by_program = order(program)
    bounds = np.flatnonzero(starts(program[by_program]))
    for rows in np.split(body[by_program], bounds[1:]):
        scans = np.flatnonzero(program_of == program_of[annotated.scan[rows[0]]])
        for loop, mine in _loops_of_program(annotated, tokens, rows, scans, depth):
            loops.append(loop)
            covered[mine] = True
            scan, first_row = dense(annotated.scan[mine])
            first[mine] = mine[first_row][scan]
    return EntryLoops(loops, covered, first)


def tandems(tokens: Ints) -> list[Tandem]:
    """Runs of at least three equal bodies back to back, shortest period first, no overlaps.

    For each period p the places where token[i] == token[i + p] form runs; a run of length r is
    1 + r / p bodies. Linear in the stream for each of the 16 periods.
    """
    found: list[Tandem] = []
    tokens = tokens.astype(np.int32)
    free = np.ones(len(tokens), dtype=bool)
    for period in range(1, _MAX_PERIOD + 1):
        if len(tokens) < _MIN_TANDEM * period:
            break
        equal = np.zeros(len(tokens) - period + 2, dtype=bool)  # False at both ends
        np.equal(tokens[:-period], tokens[period:], out=equal[1:-1])
        equal[1:-1] &= free[:-period]
        equal[1:-1] &= free[period:]
        spans = np.flatnonzero(equal[1:] != equal[:-1]).reshape(-1, 2)
        long = spans[:, 1] - spans[:, 0] >= (_MIN_TANDEM - 1) * period
        last = 0
        for start, end in spans[long].tolist():
            repeats = (end - start) // period + 1
            # All of it is free, unless the run before reaches into it.
            if start >= last:
                last = start + repeats * period
                found.append(Tandem(start, period, repeats))
                free[start:last] = False
    return sorted(found, key=lambda t: t.start)
