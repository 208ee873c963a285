# SPDX-License-Identifier: MIT
"""How far runs over large directories reach: decided by what traces did, and by costs."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

import pytest

from miner.cost import Calibration, saved_per_child_ns
from miner.motifs import Continuation
from synth import chunks
from synth.language import Reach
from tests.unit.test_synthesize import STATS, motif

COSTS = Calibration(bpf_run_ns=1000.0, bpf_child_ns=200.0)
ENTRIES = 4096


def table(asked: Sequence[int]) -> list[Continuation]:
    """Rows of directories of ENTRIES entries, of which so many were asked for, one call each."""
    rows = []
    for n in (1 << k for k in range(11)):
        ahead = [count - n for count in asked if count >= n]
        if ahead:
            goes_on = sum(count > 0 for count in ahead)
            entries = len(ahead) * ENTRIES
            sums = (len(ahead), goes_on, sum(ahead), sum(ahead), entries)
            rows.append(Continuation(n, ENTRIES, 2 * ENTRIES - 1, *sums))
    return rows


def chosen(*asked: int, child_ns: float = COSTS.bpf_child_ns) -> Reach:
    """What is made of directories of ENTRIES entries, of which so many were asked for."""
    made = motif([STATS], table(asked))
    return chunks.choose([made], dataclasses.replace(COSTS, bpf_child_ns=child_ns))


def test_directories_are_told_apart_by_how_far_programs_went() -> None:
    groups = chunks.asked(motif([STATS], table([1, 3, 100, ENTRIES])), COSTS)
    saved_ns = saved_per_child_ns(motif([STATS], []), "bpf", COSTS)
    assert groups == [chunks.Asked(1, ENTRIES, n, saved_ns) for n in (1, 3, 100, ENTRIES)]


def test_a_rule_goes_as_far_as_traced_programs_did() -> None:
    whole, left = chosen(*[ENTRIES] * 8), chosen(*[1] * 8)
    assert left.miss < whole.miss
    assert whole.grow * whole.chunk >= ENTRIES, "all of it, once enough was asked for"
    assert chosen(*[ENTRIES] * 4, *[ENTRIES // 50] * 4).miss <= whole.miss


def test_costs_decide_too() -> None:
    usual = chosen(*[ENTRIES] * 8)
    assert chosen(*[ENTRIES] * 8, child_ns=20.0).chunk > usual.chunk
    # However much was asked for: what one may waste before it is seen is bounded.
    dear = chosen(*[ENTRIES] * 8, child_ns=3000.0)
    assert dear.chunk * 3000.0 <= max(chunks.CHUNK_LOSS_NS, chunks.LEAST_CHUNK * 3000.0)
    assert dear.miss <= chunks.MOST_MISS


def test_nothing_large_was_traced() -> None:
    assert chunks.choose([], COSTS).chunk == chunks.LEAST_CHUNK


def played(
    rule: Reach, entries: int, asked: int, saved_ns: float, rng: random.Random, oldest_first: bool
) -> float:
    """The shim's rule, call by call: runs follow a list, the program has an order of its own."""
    told: set[int] = set()
    listed = list(range(entries))
    questions = listed[::-1][:asked] if oldest_first else rng.sample(listed, asked)
    net, reach, missed, in_a_row = 0.0, 0, 0, 0
    for done, child in enumerate(questions):
        further = min(reach * rule.grow, entries) if reach else rule.chunk
        worth = (entries - done) * (further - len(told)) / entries * saved_ns
        if not reach or (
            len(told) < further <= missed * rule.miss and worth > further * COSTS.bpf_child_ns
        ):
            reach, missed = further, 0
            runs = -(-min(reach, entries) // chunks.RUN_ENTRIES)
            told = set(listed[: min(runs * chunks.RUN_ENTRIES, entries)])
            net -= runs * COSTS.bpf_run_ns + len(told) * COSTS.bpf_child_ns
        if child in told:
            net += saved_ns
            in_a_row = 0
        else:
            missed += 1
            in_a_row += 1
            if in_a_row > chunks.MOST_FRUITLESS:
                break
    return net


@pytest.mark.parametrize("oldest_first", [False, True])
@pytest.mark.parametrize(
    "rule", [Reach(256, 4, 16), Reach(1024, 64, 16), Reach(512, 256, 2), Reach(4096, 4, 1)]
)
@pytest.mark.parametrize("asked", [1, 100, 1000, 6000])
def test_the_rule_is_played_as_the_shim_plays_it(
    rule: Reach, asked: int, oldest_first: bool
) -> None:
    rng = random.Random(1)
    entries, saved_ns = 6000, 800.0
    expected = chunks.played_ns(rule, entries, asked, saved_ns, COSTS, oldest_first=oldest_first)
    times = 1 if oldest_first else 5
    found = [played(rule, entries, asked, saved_ns, rng, oldest_first) for _ in range(times)]
    assert sum(found) / times == pytest.approx(expected, rel=0.15, abs=20_000)


def test_a_run_that_is_to_reach_further_reaches_the_end() -> None:
    """What it tells first was made last, and is asked for last by who goes by inode numbers."""
    whole = chosen(*[ENTRIES] * 8)
    assert whole.chunk * whole.grow >= chunks.MOST_ENTRIES
