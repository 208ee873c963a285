# SPDX-License-Identifier: MIT
"""Arrow columns out of arrays and lists.

By way of buffers: pa.array loads pandas to look at an array, which takes 0.4 s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracer.dataset import path_text
from tracer.events import Bytes, Ints, Mask


def bits(valid: Mask) -> pa.Buffer:
    """Return what arrow takes for booleans."""
    return pa.py_buffer(np.packbits(valid, bitorder="little"))


def column(values: npt.NDArray[Any], kind: pa.DataType, valid: Mask | None = None) -> pa.Array:
    """Return a column, with nulls where `valid` is given and not set."""
    data = pa.py_buffer(np.ascontiguousarray(values))
    return pa.Array.from_buffers(kind, len(values), [None if valid is None else bits(valid), data])


def binary(joined: Bytes, ends: Ints) -> pa.LargeBinaryArray:
    """Return strings that lie one behind the other: string i is joined[ends[i]:ends[i + 1]]."""
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(joined)]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(ends) - 1, buffers)


def of_bits(values: npt.NDArray[Any], kind: pa.DataType, valid: Bytes, n_valid: int) -> pa.Array:
    """Return a column of which `valid` has a bit for each value that is none null."""
    n = len(values)
    buffers = [None if n_valid == n else pa.py_buffer(valid), pa.py_buffer(values)]
    return pa.Array.from_buffers(kind, n, buffers, n - n_valid)


def lists(ends: npt.NDArray[np.int32], values: npt.NDArray[np.uint32], valid: Bytes) -> pa.Array:
    """Return a column of lists of numbers: list i is values[ends[i]:ends[i + 1]]."""
    buffers = [pa.py_buffer(valid), pa.py_buffer(ends)]
    inside = column(values, pa.uint32())
    return pa.Array.from_buffers(pa.list_(pa.uint32()), len(ends) - 1, buffers, children=[inside])


def text(joined: Bytes, ends: npt.NDArray[np.int32]) -> pa.StringArray:
    """Return texts that lie one behind the other, as binary() does."""
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(joined)]
    return pa.Array.from_buffers(pa.string(), len(ends) - 1, buffers)


def percent_form(raw: pa.LargeBinaryArray) -> pa.StringArray:
    """Return names as path_text does; nearly always they are so already, and are copied at once."""
    ends = np.frombuffer(raw.buffers()[1], np.int64, len(raw) + 1)
    joined = np.frombuffer(raw.buffers()[2], np.uint8, int(ends[-1]))
    odd = np.flatnonzero((joined >= 0x80) | (joined == ord("%")))
    if len(odd):
        sizes, parts, done = np.diff(ends), [], 0
        for at in np.unique(np.searchsorted(ends, odd, side="right") - 1).tolist():
            begin, end = ends[at : at + 2].tolist()
            name = path_text(joined[begin:end].tobytes()).encode()
            parts += [joined[done:begin], np.frombuffer(name, np.uint8)]
            sizes[at], done = len(name), end
        joined = np.concatenate([*parts, joined[done:]])
        ends = np.concatenate([[0], np.cumsum(sizes)])
    return text(joined, ends.astype(np.int32))


def _joined(words: Sequence[bytes]) -> tuple[Ints, Bytes]:
    ends = np.zeros(len(words) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, words), np.int64, len(words)), out=ends[1:])
    return ends, np.frombuffer(b"".join(words), np.uint8)


def names(raw: Sequence[bytes | None]) -> pa.StringArray:
    """Return a column of names in percent form; None and empty ones are null."""
    ends, joined = _joined([name or b"" for name in raw])
    return joined_names(joined, ends)


def joined_names(joined: Bytes, ends: Ints) -> pa.StringArray:
    """Return a column of names that lie one behind the other, as names() does."""
    plain = percent_form(binary(joined, ends)).buffers()
    return pa.Array.from_buffers(pa.string(), len(ends) - 1, [bits(np.diff(ends) > 0), *plain[1:]])


def strings(values: Sequence[str | None]) -> pa.StringArray:
    """Return a column of text, None as null."""
    ends, joined = _joined([b"" if value is None else value.encode() for value in values])
    valid = bits(np.array([value is not None for value in values], np.bool_))
    buffers = [valid, pa.py_buffer(ends.astype(np.int32)), pa.py_buffer(joined)]
    return pa.Array.from_buffers(pa.string(), len(values), buffers)


def _integers(values: Sequence[int | None], kind: pa.DataType) -> pa.Array:
    """Return a column of integers, None as null."""
    valid = np.array([value is not None for value in values], np.bool_)
    numbers = np.array([value or 0 for value in values], kind.to_pandas_dtype())
    return column(numbers, kind, valid)


def _lists(values: Sequence[Sequence[str]], kind: pa.DataType) -> pa.Array:
    """Return a column of lists of text."""
    ends = np.cumsum([0, *map(len, values)]).astype(np.int32)
    words = strings([word for value in values for word in value])
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(ends)], children=[words])


def table(schema: pa.Schema, columns: Mapping[str, Sequence[Any] | pa.Array]) -> pa.Table:
    """Return a table of lists, with None for null, or columns."""
    arrays = []
    for field in schema:
        values = columns[field.name]
        if isinstance(values, pa.Array):
            arrays.append(values)
        elif pa.types.is_string(field.type):
            arrays.append(strings(values))
        elif pa.types.is_list(field.type):
            arrays.append(_lists(values, field.type))
        else:
            arrays.append(_integers(values, field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def numbers(column: pa.Array, null: int = 0) -> Ints:
    """Return a column of integers or booleans, with `null` for nulls.

    By its buffers: pyarrow's ways, and its scalars, load pandas.
    """

    def plain(values: pa.Array) -> Ints:
        whole = values.cast(pa.int64())
        return np.frombuffer(whole.buffers()[1], np.int64, len(whole), whole.offset * 8)

    if not len(column):
        return np.empty(0, np.int64)
    if not column.null_count:
        return plain(column)
    return np.where(plain(column.is_valid()), plain(column), null)
