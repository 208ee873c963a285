# SPDX-License-Identifier: MIT
"""Counts within many segments are those of each one by itself."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from miner.events import Ints
from miner.segments import counters, histograms, most_frequent, pairs, pairs_of

NUMBER = 12
SIZES = [0, 1, 3, 255, 256, 900, 0, 40, 3000, 1, 2, 0]


def column(span: int) -> tuple[Ints, Ints]:
    """Values below `span` in runs, in segments of SIZES."""
    rng = np.random.default_rng(span)
    segment = np.repeat(np.arange(NUMBER), SIZES)
    values = rng.integers(0, span, len(segment)) - span // 2
    same = rng.random(len(segment)) < 0.5
    values[1:][same[1:]] = values[:-1][same[1:]]
    return segment, values


@pytest.mark.parametrize("span", [1, 4, 300, 1 << 20, 1 << 62])
def test_pairs_are_counted_in_the_order_of_appearance(span: int) -> None:
    segment, values = column(span)
    found = zip(*(part.tolist() for part in pairs(segment, values)), strict=True)
    expected = Counter(zip(segment.tolist(), values.tolist(), strict=True))
    assert list(found) == [(*pair, count) for pair, count in expected.items()]


@pytest.mark.parametrize("span", [300, 1 << 40])
def test_pairs_of_chosen_segments_and_rows(span: int) -> None:
    """Of some segments only, the values by way of rows; of every other one as the int they are."""
    segment, values = column(span)
    rows = np.random.default_rng(5).permutation(len(values))
    chosen = np.array([2, 4, 5, 8])
    begin = np.searchsorted(segment, chosen)
    size = np.array(SIZES)[chosen]
    is_int = np.array([True, False, True, False])
    found = pairs_of(values, rows, begin, size, is_int)
    expected: Counter[tuple[int, int]] = Counter()
    for i, (first, n) in enumerate(zip(begin.tolist(), size.tolist(), strict=True)):
        mine = values[rows[first : first + n]]
        mine = mine.astype(np.int32) if is_int[i] else mine
        expected.update((i, value) for value in mine.tolist())
    pairs_found = zip(*(part.tolist() for part in found), strict=True)
    assert list(pairs_found) == [(*pair, count) for pair, count in expected.items()]


@pytest.mark.parametrize("span", [1, 4, 300, 1 << 20, 1 << 62])
def test_the_most_frequent_values_of_each_segment(span: int) -> None:
    """Those as frequent come in the order of appearance where they are few, else sorted."""
    segment, values = column(span)
    found = counters(NUMBER, *most_frequent(segment, values, 8))
    for i in range(NUMBER):
        mine = values[segment == i].tolist()
        counts = Counter(mine if len(mine) < 256 else sorted(mine))
        assert list(found[i].items()) == counts.most_common(8)


def test_histograms_count_what_one_by_one_would() -> None:
    rng = np.random.default_rng(1)
    segment = np.repeat(np.arange(NUMBER), SIZES)
    values = rng.integers(0, 1 << 14, len(segment)) >> rng.integers(0, 14, len(segment))
    found = histograms(NUMBER, segment, values)
    for i in range(NUMBER):
        mine = values[segment == i]
        shift = np.where(mine < 4096, 0, np.floor(np.log2(np.maximum(mine, 1))).astype(int) - 11)
        assert found[i].counts == Counter(((mine >> shift) << shift).tolist())
