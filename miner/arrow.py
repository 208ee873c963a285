# SPDX-License-Identifier: MIT
"""Between Arrow and numpy, without what imports pandas (`pyarrow.array`, scalars for `compute`):
that takes half a second of each mining process."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from miner import compiled
from tracer.compiled import at, check


def numbers(values: NDArray[Any]) -> pa.Array:
    """The numbers as an Arrow array; it shares their memory."""
    data = pa.py_buffer(np.ascontiguousarray(values))
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, data])


def bits(values: NDArray[np.bool_]) -> pa.BooleanArray:
    """The truth values as an Arrow array."""
    data = pa.py_buffer(np.packbits(values, bitorder="little"))
    return pa.Array.from_buffers(pa.bool_(), len(values), [None, data])


def strings(values: Iterable[str]) -> pa.StringArray:
    """The strings as an Arrow array."""
    builder = pa.lib.StringBuilder()
    builder.append_values(list(values))
    return builder.finish()


_TYPES = {"i2": 0, "i4": 1, "u4": 2, "i8": 3, "u8": 3}  # enum cosy_type


def fill(out: NDArray[Any], chunks: Iterable[pa.Array], missing: int) -> None:
    """Copy the numbers of `chunks` to `out` (of 64 bits each), `missing` where there is none."""
    end = 0
    for chunk in chunks:
        begin, end = end, end + len(chunk)
        if not len(chunk):
            continue
        valid, data = chunk.buffers()
        values = np.frombuffer(data, dtype=chunk.type.to_pandas_dtype())
        kind = _TYPES.get(values.dtype.str[1:])
        if kind is None:
            values, kind = values.astype(np.int64), _TYPES["i8"]
        bits = valid.address if chunk.null_count else None
        where = (at(values), kind, bits, chunk.offset, len(chunk), missing, at(out[begin:end]))
        check(compiled.function("fill")(*where))


def integers(column: pa.Array | pa.ChunkedArray, missing: int) -> NDArray[np.int64]:
    """The numbers of a column, `missing` where there is none."""
    out = np.empty(len(column), dtype=np.int64)
    fill(out, column.chunks if isinstance(column, pa.ChunkedArray) else [column], missing)
    return out


def _unpacked(array: pa.Array, buffer: int) -> NDArray[np.bool_]:
    octets = np.frombuffer(array.buffers()[buffer], dtype=np.uint8)
    found = np.unpackbits(octets, count=array.offset + len(array), bitorder="little")
    return found[array.offset :].view(bool)


def truth(array: pa.BooleanArray) -> NDArray[np.bool_]:
    """The truth values of an array without nulls."""
    return _unpacked(array, 1) if len(array) else np.zeros(0, dtype=bool)
