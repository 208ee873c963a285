# SPDX-License-Identifier: MIT
"""Means and medians, and how uncertain they are."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from scipy import stats

CONFIDENCE = 0.95


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean, lower and upper end of its 95 % interval (Student's t); raises ValueError for one."""
    if len(values) < 2:
        raise ValueError("an interval needs two values")
    mean = statistics.fmean(values)
    error = statistics.stdev(values) / len(values) ** 0.5
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * error
    return mean, mean - half, mean + half


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, lower and upper end of its 95 % interval, whatever the values' distribution.

    The ends are values themselves: the k-th from either side, k as large as the sign test allows.
    Fewer than six values cannot say so much: the ends are then infinitely far.
    """
    ordered = sorted(values)
    k = int(stats.binom.ppf((1 - CONFIDENCE) / 2, len(ordered), 0.5))
    middle = statistics.median(ordered)
    if k < 1:
        return middle, float("-inf"), float("inf")
    return middle, ordered[k - 1], ordered[-k]
