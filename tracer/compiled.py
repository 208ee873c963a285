# SPDX-License-Identifier: MIT
"""libcosy-trace.so (tracer/core/): what is done for every single event, in C.

Here are its functions and structures as tracer/core/api.h has them; who calls them keeps the arrays
alive whose addresses it passes. Others of this process run meanwhile.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from ctypes import POINTER, Structure, c_double, c_int32, c_int64, c_size_t, c_uint64, c_void_p
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from tracer import native

LIBRARY = "libcosy-trace.so"
NO_ARGUMENT = 6

BLOCK = np.dtype([(name, "<u8") for name in ("events", "n", "heap", "heap_size")])
CALL = np.dtype(
    [
        ("copies_in", "?"),
        ("copies_out", "?"),
        ("n_args", "u1"),
        ("returns", "u1"),
        ("size_at", "i1"),
        ("pad", "u1"),
        ("fixed_out", "<u2"),
    ]
)
RETURNS_DIRENTS, RETURNS_STAT = 1, 2
EFFECT = np.dtype(
    [
        ("does", "u1"),
        ("kind", "u1"),
        ("fd_at", "u1"),
        ("flags_at", "u1"),
        ("late", "?"),
        ("opens", "?"),
        ("tells", "?"),
        ("lists", "?"),
    ]
)
CLOSE, OPEN, DUP, EXEC, RANGE = range(1, 6)
START = np.dtype([("tsc", "<i8"), ("table", "<i4"), ("parent", "<i4"), ("cwd_end", "<u8")])
INHERITED = np.dtype(
    [
        ("fd", "<i4"),
        ("kind", "<u2"),
        ("known", "<u2"),
        ("path_end", "<u8"),
        ("dev", "<u8"),
        ("ino", "<u8"),
    ]
)


class Chunk(Structure):
    """struct cosy_chunk."""

    _fields_ = (
        ("n", c_uint64),
        ("stride", c_uint64),
        *((name, c_void_p) for name in ("words", "thread", "at", "heap")),
        ("heap_size", c_uint64),
    )


class Scan(Structure):
    """struct cosy_scan."""

    _fields_ = (("n_calls", c_uint64), ("lost", c_uint64))


class Texts(Structure):
    """struct cosy_texts."""

    _fields_ = (
        *((name, c_void_p) for name in ("valid", "codes", "ends", "joined")),
        *((name, c_uint64) for name in ("room", "n", "n_valid", "odd")),
    )


class Columns(Structure):
    """struct cosy_columns."""

    _fields_ = (
        ("zero_tsc", c_int64),
        ("zero_ns", c_int64),
        ("ns_per_tick", c_double),
        *((name, c_void_p) for name in ("pids", "tids", "calls")),
        *((name, c_void_p) for name in ("t_ns", "dur_ns", "pid", "tid", "nr", "args")),
        *((name, c_void_p) for name in ("bytes_in", "bytes_out", "returned")),
        ("path", Texts),
        ("path2", Texts),
        *((name, c_void_p) for name in ("has_site", "site", "site_thread", "site_address")),
        *((name, c_void_p) for name in ("has_names", "names_ends", "names")),
        ("names_room", c_uint64),
        *((name, c_void_p) for name in ("has_stat", "st_mode", "st_size", "st_ino")),
        *((f"n_{name}", c_uint64) for name in ("returned", "sites", "pairs", "lists", "stats")),
    )


class World(Structure):
    """struct cosy_world."""

    _fields_ = (
        *((name, c_void_p) for name in ("effects", "table_of", "starts", "cwds")),
        *((name, c_void_p) for name in ("inherited", "inherited_paths")),
        *((f"n_{name}", c_uint64) for name in ("tables", "starts", "inherited")),
    )


_PROTOTYPES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "scan": (
        None,
        (c_void_p, c_size_t, c_uint64, c_void_p, c_int64, c_void_p, c_void_p, POINTER(Scan)),
    ),
    "load": (
        c_uint64,
        (c_void_p, c_size_t, c_uint64, c_void_p, c_uint64, c_void_p, c_void_p, c_void_p),
    ),
    "merge": (c_int32, (c_void_p, c_size_t, POINTER(Chunk))),
    "columns": (c_int32, (POINTER(Chunk), POINTER(Columns))),
    "objects_create": (c_void_p, (POINTER(World),)),
    "objects_destroy": (None, (c_void_p,)),
    "objects_of": (c_int32, (c_void_p, POINTER(Chunk), c_void_p)),
    "objects_finish": (c_int32, (c_void_p,)),
    "objects_count": (c_uint64, (c_void_p,)),
    "objects_path": (c_void_p, (c_void_p, c_uint64, POINTER(c_uint64))),
    "objects_columns": (None, (c_void_p,) * 7),
}


def functions(
    library: str, prototypes: Mapping[str, tuple[Any, tuple[Any, ...]]]
) -> Callable[[str], Any]:
    """Return what gives the function cosy_NAME of a built library by NAME, and raises
    NativeFileError where there is no such library; prototypes: types of result and arguments."""

    @cache
    def opened() -> ctypes.CDLL:
        return ctypes.CDLL(str(native.find(library)))

    @cache
    def function(name: str) -> Any:
        found = getattr(opened(), f"cosy_{name}")
        found.restype, found.argtypes = prototypes[name]
        return found

    return function


function = functions(LIBRARY, _PROTOTYPES)


def at(array: npt.NDArray[Any]) -> int:
    """Return where an array's first element is; its elements must lie one behind the other."""
    assert array.flags.c_contiguous
    return int(array.ctypes.data)


def check(result: int) -> None:
    """Raise MemoryError if a function says so."""
    if result:
        raise MemoryError
