# SPDX-License-Identifier: MIT
"""Maximal repeats against their definition."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from miner.repeats import LONGEST, maximal_repeats, suffix_array


def brute_force(tokens: list[int]) -> set[tuple[int, tuple[int, ...]]]:
    """Length and places of all maximal repeats, by trying every window."""
    found = set()
    n = len(tokens)
    for length in range(2, n):
        places: dict[tuple[int, ...], list[int]] = {}
        for i in range(n - length + 1):
            places.setdefault(tuple(tokens[i : i + length]), []).append(i)
        for starts in places.values():
            before = {tokens[i - 1] if i else -1 for i in starts}
            after = {tokens[i + length] if i + length < n else -1 for i in starts}
            if len(starts) > 1 and len(before) > 1 and len(after) > 1:
                found.add((length, tuple(starts)))
    return found


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=45))
def test_as_defined(tokens: list[int]) -> None:
    found = maximal_repeats(np.array(tokens, dtype=np.int64))
    as_set = {(r.length, tuple(r.starts.tolist())) for r in found}
    assert len(as_set) == len(found)
    assert as_set == brute_force(tokens)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=60))
def test_suffix_array_is_sorted(tokens: list[int]) -> None:
    order, common = suffix_array(np.array(tokens, dtype=np.int64))
    suffixes = [tokens[i:] for i in order]
    assert suffixes == sorted(suffixes)
    for i in range(1, len(tokens)):
        pairs = zip(suffixes[i - 1], suffixes[i], strict=False)
        same = [a == b for a, b in pairs]
        assert common[i] == (same.index(False) if False in same else len(same))


def test_long_repeats_are_cut() -> None:
    block = list(range(100))
    found = maximal_repeats(np.array([*block, -1, *block, -2, *block], dtype=np.int64))
    assert max(r.length for r in found) == LONGEST
    longest = max(found, key=lambda r: (r.length, len(r.starts)))
    assert len(longest.starts) >= 3


def test_limits() -> None:
    tokens = np.array([1, 2, 9, 1, 2, 8, 1, 2, 3, 4, 7, 3, 4], dtype=np.int64)
    assert {(r.length, len(r.starts)) for r in maximal_repeats(tokens)} == {(2, 3), (2, 2)}
    assert [len(r.starts) for r in maximal_repeats(tokens, min_count=3)] == [3]
    assert maximal_repeats(tokens, min_length=3) == []
    assert maximal_repeats(np.zeros(0, dtype=np.int64)) == []


def test_negative_separators_never_repeat() -> None:
    tokens = np.array([1, 2, 3, -1, 1, 2, 3, -2, 1, 2, 3], dtype=np.int64)
    (repeat,) = maximal_repeats(tokens)
    assert (repeat.length, repeat.starts.tolist()) == (3, [0, 4, 8])
