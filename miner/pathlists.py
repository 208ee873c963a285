# SPDX-License-Identifier: MIT
"""Loops over paths that no directory scan explains: search paths, the files of an index, each
component of a path.

An iteration is what a thread asks about one path before it asks about another. Paths that are not
there form *probe lists* (where might the header, the module, the library be?), paths that are there
lists of attributes. Which paths these will be is known from earlier runs only.
"""

from __future__ import annotations

import errno

import numpy as np

from miner.annotate import Annotated, Via
from miner.bodies import ARGV, OTHER, Body, path_identity
from miner.events import NO_RET, Ints
from miner.joins import argument_index, is_one
from miner.motifs import Over
from miner.order import order, sizes, starts
from miner.sessions import OPENS, key_codes, runs, word_of_command
from miner.tokens import by_class
from tracer import syscalls

_LEAST = 2  # iterations of a run
_MISSING = (errno.ENOENT, errno.ENOTDIR)


def _candidates(annotated: Annotated) -> Ints:
    """Calls that only ask about a path, by thread and time; opens break a list that is there."""
    events = annotated.events
    named = argument_index(syscalls.ArgKind.PATH)[events.nr] >= 0
    asks = by_class(events.nr, syscalls.SyscallClass.PURE)
    rows = np.flatnonzero(
        events.path.nonempty
        & named
        & (asks | is_one(events.nr, *OPENS))
        & (events.ret != NO_RET)
        & events.own
    )
    return rows[order(events.thread[rows])]


def paths(annotated: Annotated) -> list[Body]:
    """Probe lists, and lists of paths whose attributes are asked for."""
    events = annotated.events
    rows = _candidates(annotated)
    if not len(rows):
        return []
    thread = events.thread[rows]
    iteration = runs(thread, path_identity(annotated, rows))
    begin = np.flatnonzero(starts(iteration))
    absent = np.isin(-events.ret[rows], _MISSING)
    opens = is_one(events.nr[rows], *OPENS)
    gone = np.logical_and.reduceat(absent, begin)
    # A call on an entry of a directory that was read is part of that loop, unless it is not there.
    asked = ~np.logical_or.reduceat((opens & ~absent) | (annotated.via[rows] >= 0), begin)
    kind = np.where(gone, 1, np.where(asked, 2, 0))
    run = runs(thread[begin], kind)
    long = (sizes(starts(run)) >= _LEAST)[run] & (kind > 0)
    codes, keys = key_codes(events, rows, np.full(len(rows), int(Via.OTHER)))
    first = rows[begin]
    whole = Body(
        over=Over.PATHS,
        keys=keys,
        rows=rows,
        codes=codes,
        iteration=iteration,
        instance=run,
        source=np.where(word_of_command(annotated, first), ARGV, OTHER),
        path=first,
        missing=gone,
    )
    label = np.where(long, kind, 0)
    parts = zip(np.unique(label).tolist(), whole.by_group(label), strict=True)
    return [part for number, part in parts if number]
