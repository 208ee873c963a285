# SPDX-License-Identifier: MIT
"""libcosy-mine.so (miner/core/): what takes numpy many passes over a column, in C.

Its functions and structures are as miner/core/api.h has them; the arrays whose addresses they get
must stay alive meanwhile. Other threads of this process run.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, Structure, c_int, c_int64, c_uint32, c_uint64, c_void_p
from typing import Any

import numpy as np
import numpy.typing as npt

from tracer.compiled import at, functions

LIBRARY = "libcosy-mine.so"


class Points(Structure):
    """struct cosy_points."""

    _fields_ = (("key", c_void_p), ("time", c_void_p), ("n", c_uint64))


function = functions(
    LIBRARY,
    {
        "order": (c_int, (c_void_p, c_uint32, c_uint64, c_void_p)),
        "dense": (c_int64, (c_void_p, c_uint32, c_uint64, c_void_p, c_void_p, c_void_p)),
        "last_before": (c_int, (POINTER(Points), POINTER(Points), c_void_p)),
        "fill": (c_int, (c_void_p, c_uint32, c_void_p, c_uint64, c_uint64, c_int64, c_void_p)),
        "carry": (c_int, (c_void_p, c_uint64, c_void_p, c_uint64, c_void_p)),
        "sums": (None, (c_void_p, c_void_p, c_uint64, c_void_p, c_uint64, c_void_p)),
    },
)


def column(values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """The values as the library takes them."""
    return np.ascontiguousarray(values, dtype=np.int64)


def addresses(
    keys: Sequence[npt.NDArray[Any]],
) -> tuple[ctypes.Array[c_void_p], int, list[npt.NDArray[np.int64]]]:
    """Where columns of equal length are, their length, and what must stay alive meanwhile."""
    columns = list(map(column, keys))
    n = len(columns[0])
    if any(len(values) != n for values in columns):
        raise ValueError("columns of different lengths")
    return (c_void_p * len(columns))(*map(at, columns)), n, columns
