# SPDX-License-Identifier: MIT
"""Folds a trace: loops over directory entries, reads until the end, tandem repeats.

A loop over entries is found by data flow, not by adjacency: all child calls of a scan belong to it,
whatever lies between them. So recursion (du, find and tar go down into a sub-directory in the
middle of its parent), threads and noise do not break it apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from miner.annotate import Annotated
from miner.events import Bools, Ints
from miner.loopstats import EntryLoop, measure
from miner.tokens import BodyTokens, body_tokens

_MASK_BITS = 62  # distinct body calls that tell the loops of one program apart
_OVERLAP = 0.5
_MAX_PERIOD = 16
_MIN_TANDEM = 3


@dataclass(frozen=True)
class Tandem:
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


def group_masks(masks: Ints, weight: Ints) -> Ints:
    """Group number of each mask: masks that share half of the smaller one belong together.

    The variants of a loop in one program differ by what is optional in it (a directory without
    links, without sub-directories). The most frequent mask founds the first group.
    """
    unique, inverse = np.unique(masks, return_inverse=True)
    total = np.bincount(inverse, weights=weight)
    groups: list[int] = []
    label = np.zeros(len(unique), dtype=np.int64)
    for i in np.argsort(-total, kind="stable").tolist():
        mask = int(unique[i])
        for number, core in enumerate(groups):
            smaller = min(mask.bit_count(), core.bit_count())
            if (mask & core).bit_count() >= _OVERLAP * smaller:
                label[i] = number
                groups[number] |= mask
                break
        else:
            label[i] = len(groups)
            groups.append(mask)
    return label[inverse]


def _loops_of_program(
    annotated: Annotated, tokens: BodyTokens, rows: Ints, scans: Ints, depth: Ints
) -> list[tuple[EntryLoop, Ints]]:
    codes = tokens.codes[rows]
    counts = np.bincount(codes, minlength=len(tokens.keys))
    bit = np.full(len(tokens.keys), -1, dtype=np.int64)
    frequent = np.argsort(-counts, kind="stable")[:_MASK_BITS]
    bit[frequent] = np.arange(len(frequent))
    rows = rows[bit[codes] >= 0]
    by_scan = rows[np.argsort(annotated.scan[rows], kind="stable")]
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
    """Find the loops over directory entries, one per program image and kind of body."""
    tokens = body_tokens(annotated)
    depth = _depths(annotated)
    n = len(annotated.events)
    covered, first = np.zeros(n, dtype=bool), np.full(n, -1, dtype=np.int64)
    loops: list[EntryLoop] = []
    body = np.flatnonzero(tokens.codes >= 0)
    if not len(body):
        return EntryLoops(loops, covered, first)
    image = annotated.scans.image[annotated.scan[body]]
    order = np.argsort(image, kind="stable")
    images, start = np.unique(image[order], return_index=True)
    scan_order = np.argsort(annotated.scans.image, kind="stable")
    scan_image = annotated.scans.image[scan_order]
    for number, rows in zip(images.tolist(), np.split(body[order], start[1:]), strict=True):
        low, high = np.searchsorted(scan_image, [number, number + 1])
        scans = np.sort(scan_order[low:high])
        for loop, mine in _loops_of_program(annotated, tokens, rows, scans, depth):
            loops.append(loop)
            covered[mine] = True
            _, at, inverse = np.unique(annotated.scan[mine], return_index=True, return_inverse=True)
            first[mine] = mine[at][inverse]
    return EntryLoops(loops, covered, first)


def tandems(tokens: Ints) -> list[Tandem]:
    """Runs of at least three equal bodies back to back, shortest period first, no overlaps.

    For each period p the places where token[i] == token[i + p] form runs; a run of length r is
    1 + r / p bodies. Linear in the stream for each of the 16 periods.
    """
    found: list[Tandem] = []
    free = np.ones(len(tokens), dtype=bool)
    for period in range(1, _MAX_PERIOD + 1):
        if len(tokens) < _MIN_TANDEM * period:
            break
        equal = (tokens[:-period] == tokens[period:]) & free[:-period] & free[period:]
        edges = np.flatnonzero(np.diff(np.concatenate([[False], equal, [False]]).astype(np.int8)))
        for start, end in edges.reshape(-1, 2).tolist():
            repeats = (end - start) // period + 1
            if repeats >= _MIN_TANDEM and free[start : start + repeats * period].all():
                found.append(Tandem(start, period, repeats))
                free[start : start + repeats * period] = False
    return sorted(found, key=lambda t: t.start)
