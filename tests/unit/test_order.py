# SPDX-License-Identifier: MIT
"""Sorting and numbering by the fast ways equal the plain ones."""

from __future__ import annotations

import numpy as np
import pytest

from miner import joins
from miner.events import CALL_NUMBERS, Ints
from miner.order import dense, order, ranks
from miner.prefixes import LONGEST, prefix_tables
from miner.tokens import BodyKey


def numbered(rows: list[tuple[int, ...]]) -> tuple[list[int], list[int]]:
    known: dict[tuple[int, ...], int] = {}
    numbers = [known.setdefault(row, len(known)) for row in rows]
    return numbers, [numbers.index(i) for i in range(len(known))]


# Spans that a table holds, that are hashed, and that do not fit one number.
@pytest.mark.parametrize("span", [1, 5, 300, 1 << 20, 1 << 40])
def test_dense_numbers_by_appearance(span: int) -> None:
    rng = np.random.default_rng(span)
    columns: list[Ints] = [rng.integers(-span, span, 500) for _ in range(2)]
    number, first = dense(*columns)
    rows = list(zip(*(column.tolist() for column in columns), strict=True))
    assert (number.tolist(), first.tolist()) == numbered(rows)
    assert ranks(columns[0]).tolist() == np.unique(columns[0], return_inverse=True)[1].tolist()
    assert order(*columns).tolist() == np.lexsort(columns[::-1]).tolist()


@pytest.mark.parametrize("span", [1, 7, 9_000, 19_000, 1 << 20, 1 << 60])
def test_many_rows_are_ordered_as_few(span: int) -> None:
    """By counting, 16 bits at a time or by comparison, whatever the span allows."""
    rng = np.random.default_rng(span)
    key: Ints = rng.integers(-span, span, 10_000)
    assert order(key).tolist() == np.argsort(key, kind="stable").tolist()
    assert order(np.sort(key)).tolist() == list(range(10_000))


def test_tables_answer_for_every_number_that_a_trace_can_hold() -> None:
    unknown = [-1, 5000, CALL_NUMBERS // 2 - 1, -CALL_NUMBERS // 2]
    numbers = np.array([joins.number("close"), joins.number("read"), *unknown])
    assert joins.is_one(numbers, "read").tolist() == [False, True, *[False] * 4]
    assert joins.fd_index(numbers).tolist() == [0, 0, *[-1] * 4]


@pytest.mark.parametrize("kinds", [2, 127, 128, 5000])
def test_beginnings_are_counted_whatever_the_number_of_calls(kinds: int) -> None:
    """With many kinds of calls a beginning does not fit one number."""
    rng = np.random.default_rng(kinds)
    keys = [BodyKey(i, 0, "") for i in range(kinds)]
    lengths = rng.integers(1, 12, 400)
    firsts = np.zeros(int(lengths.sum()), dtype=bool)
    firsts[np.cumsum(lengths) - lengths] = True
    codes = rng.integers(max(kinds - 3, 0), kinds, len(firsts))
    group = np.repeat([0, 2], [150, 250])
    tables = prefix_tables(codes, firsts, keys, group, 3)
    found: list[dict[tuple[BodyKey | None, ...], int]] = [{} for _ in tables]
    for owner, iteration in zip(group, np.split(codes, np.flatnonzero(firsts)[1:]), strict=True):
        calls = [keys[c] for i, c in enumerate(iteration) if i == 0 or iteration[i - 1] != c]
        beginning = (*calls, *[None] * LONGEST)[:LONGEST]
        found[owner][beginning] = found[owner].get(beginning, 0) + 1
    assert [table._counts for table in tables] == found
