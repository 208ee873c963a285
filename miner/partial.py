# SPDX-License-Identifier: MIT
"""What the miner found in one piece of a trace; can be added up, and sent between machines."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np

from miner import bodies, loops, pathlists, pieces, requests, sequences, sessions
from miner.annotate import annotate
from miner.bodies import BodyLoop
from miner.events import Bools, Events
from miner.loopstats import EntryLoop
from miner.sequences import Sequence


@dataclass
class Partial:
    """Motifs of a piece by kind; none of them refers to the piece's events any more."""

    entry_loops: list[EntryLoop] = field(default_factory=list)
    body_loops: list[BodyLoop] = field(default_factory=list)
    sequences: list[Sequence] = field(default_factory=list)
    events: int = 0
    work_ns: int = 0


class Found(Protocol):
    """A motif before it is one."""

    def merge(self, other: Any) -> None:
        """Add what another piece says of the same motif."""


F = TypeVar("F", bound=Found)


def merged(found: Iterable[F], key: Callable[[F], object]) -> list[F]:
    """Add up those of equal key, in the order of their first appearance."""
    out: dict[object, F] = {}
    for one in found:
        name = key(one)
        if name in out:
            out[name].merge(one)
        else:
            out[name] = one
    return list(out.values())


def mine_events(events: Events) -> Partial:
    """Everything that repeats in a piece. Kinds that come later only own what is left."""
    annotated = annotate(events)
    folded = loops.entry_loops(annotated)
    claimed: Bools = folded.covered.copy()
    found: list[BodyLoop] = []
    for body in (
        sessions.files(annotated),
        sessions.copies(annotated),
        *pathlists.paths(annotated),
        requests.requests(annotated),
    ):
        if body is not None:
            found += bodies.separate(annotated, body, claimed)
    others = sequences.read_loops(annotated, claimed)
    others += sequences.sequences(annotated, claimed)
    own = events.own
    return Partial(
        entry_loops=folded.loops,
        body_loops=found,
        sequences=others,
        events=int(np.count_nonzero(own)),
        work_ns=int(events.work_ns[own].sum()),
    )


def mine_piece(trace: pieces.Trace, piece: pieces.Piece, before: pieces.Piece | None) -> Partial:
    """Mine one piece of a trace; raises `tracer.target.DatasetError`."""
    return mine_events(pieces.load(trace, piece, before))
