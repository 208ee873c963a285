# SPDX-License-Identifier: MIT
"""Sorting, numbering and joining in C (miner/core/) equal the plain ways."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from miner import arrow, joins
from miner.events import CALL_NUMBERS, Ints
from miner.order import counted, dense, order, ranks
from miner.prefixes import LONGEST, prefix_tables
from miner.segments import sums_of
from miner.tokens import BodyKey


def numbered(rows: list[tuple[int, ...]]) -> tuple[list[int], list[int]]:
    known: dict[tuple[int, ...], int] = {}
    numbers = [known.setdefault(row, len(known)) for row in rows]
    return numbers, [numbers.index(i) for i in range(len(known))]


# Spans that a table holds, that are hashed, and that do not fit one word.
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
    """In one round of few or of many digits, or in several."""
    rng = np.random.default_rng(span)
    key: Ints = rng.integers(-span, span, 10_000)
    assert order(key).tolist() == np.argsort(key, kind="stable").tolist()
    assert order(np.sort(key)).tolist() == list(range(10_000))


def test_no_rows_and_one() -> None:
    none, one = np.zeros(0, dtype=np.int64), np.array([-(1 << 63)])
    for column in (none, one):
        assert order(column, column).tolist() == list(range(len(column)))
        number, first, count = counted(column, column)
        assert number.tolist() == first.tolist() == list(range(len(column)))
        assert count.tolist() == [1] * len(column)
        assert joins.last_before(none, none, column, column).tolist() == [-1] * len(column)


@pytest.mark.parametrize("kinds", [2, 3000])
def test_columns_of_all_64_bits_are_sorted_and_numbered(kinds: int) -> None:
    rng = np.random.default_rng(kinds)
    limits = np.iinfo(np.int64)
    values = np.append(rng.integers(limits.min, limits.max, kinds), [limits.min, limits.max])
    columns: list[Ints] = [values[rng.integers(0, len(values), 4000)] for _ in range(3)]
    assert order(*columns).tolist() == np.lexsort(columns[::-1]).tolist()
    number, first, count = counted(*columns)
    rows = list(zip(*(column.tolist() for column in columns), strict=True))
    known: dict[tuple[int, ...], list[int]] = {}
    for i, row in enumerate(rows):
        known.setdefault(row, []).append(i)
    assert first.tolist() == [places[0] for places in known.values()]
    assert count.tolist() == [len(places) for places in known.values()]
    assert [rows[i] for i in first[number].tolist()] == rows


def test_columns_have_one_length() -> None:
    with pytest.raises(ValueError, match="lengths"):
        order(np.arange(3), np.arange(4))


@pytest.mark.parametrize("in_time", [True, False])
def test_last_definition_before_a_use(in_time: bool) -> None:
    rng = np.random.default_rng(7)
    key, time = rng.integers(-3, 9, 300), rng.integers(0, 60, 300)
    uses, when = rng.integers(-5, 12, 900), rng.integers(-5, 70, 900)
    when = np.sort(when) if in_time else when
    found = joins.last_before(key, time, uses, when).tolist()
    for use, now, at in zip(uses.tolist(), when.tolist(), found, strict=True):
        before = [i for i in range(len(key)) if key[i] == use and time[i] <= now]
        assert at == max(before, key=lambda i: (time[i], i), default=-1)


@pytest.mark.parametrize(
    "kind",
    [pa.int8(), pa.int16(), pa.int32(), pa.uint32(), pa.int64(), pa.uint64()],
    ids=str,
)
@pytest.mark.parametrize("holes", [False, True])
def test_columns_of_arrow_with_holes(kind: pa.DataType, holes: bool) -> None:
    """Of several chunks, one of them a slice; more rows than are copied at once."""
    rng = np.random.default_rng(3)
    low = 0 if str(kind).startswith("u") else -100
    values: list[int | None] = rng.integers(low, 100, 5000).tolist()
    if holes:
        values = [None if rng.random() < 0.3 else value for value in values]
    parts = (values[:4500], values[4500:4500], values[4500:])
    column = pa.chunked_array([pa.array(part, kind) for part in parts]).slice(13)
    wanted = [-7 if value is None else value for value in values[13:]]
    assert arrow.integers(column, -7).tolist() == wanted


def test_sums_of_rows() -> None:
    values, rows = np.arange(100) ** 2 - 50, np.array([3, 3, 99, 0, 7, 50])
    sums = sums_of(values, rows, np.array([0, 1, 4]))
    assert sums.tolist() == [values[rows[a:b]].sum() for a, b in ((0, 1), (1, 4), (4, 6))]


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
