# SPDX-License-Identifier: MIT
"""Intervals hold the true value as often as they promise, and no verdict comes of too few runs."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import pytest

from bench.intervals import interval, median_interval
from bench.wrong_profile import verdict

Interval = Callable[[Sequence[float]], tuple[float, float, float]]


@pytest.mark.parametrize("estimate", [interval, median_interval])
@pytest.mark.parametrize("n", [6, 15, 40])
def test_the_true_value_lies_within(estimate: Interval, n: int) -> None:
    rng = random.Random(n)
    held = 0
    for _ in range(1000):
        middle, low, high = estimate([rng.gauss(1.0, 0.1) for _ in range(n)])
        assert low <= middle <= high
        held += low <= 1.0 <= high
    assert 935 <= held <= 990


def test_medians_are_not_moved_by_what_the_machine_did_once() -> None:
    _, low, high = median_interval([1.0, 1.01, 0.99, 1.02, 0.98] * 4 + [50.0, 0.01])
    assert 0.9 < low < high < 1.1


def test_too_few_values_say_nothing() -> None:
    assert median_interval([1.0] * 5) == (1.0, -math.inf, math.inf)
    with pytest.raises(ValueError, match="two"):
        interval([1.0])


@pytest.mark.parametrize(
    ("ratio", "said"),
    [
        ((0.99, 0.985, 1.01), "not below"),
        ((0.95, 0.9, 0.979), "below"),
        ((0.97, 0.9, 0.99), "undecided"),
        ((1.0, -math.inf, math.inf), "undecided"),
    ],
)
def test_a_verdict_is_given_when_the_interval_says_so(
    ratio: tuple[float, float, float], said: str
) -> None:
    assert verdict(ratio) == said
