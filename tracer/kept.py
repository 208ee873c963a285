# SPDX-License-Identifier: MIT
"""What is kept of a call besides its registers: which strings, which results.

The shim decides the same in C (shim/trace.c, find_kept); both follow the system call table.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from tracer.syscalls import ArgKind, by_name, by_nr

MAX_PATH_LEN = 4096
MAX_DIRENTS = 32768
STAT_BYTES, STATX_BYTES, PAIR_BYTES = 144, 256, 8
_OUT_STAT = struct.Struct("<QQQII")
_STAT = struct.Struct("<QQQI20xQ")  # dev, ino, nlink, mode, size
_STATX = struct.Struct("<16xI8xH2xQQ88xII")  # nlink, mode, ino, size, dev major, dev minor


@dataclass(frozen=True, slots=True)
class Kept:
    """Positions of arguments, None: the call has none such."""

    path: int | None = None
    path2: int | None = None
    out: int | None = None
    out_kind: ArgKind | None = None
    """STAT_OUT, STATX_OUT, DIRENTS_OUT, or PTR: two descriptors."""


@cache
def by_call() -> Mapping[int, Kept]:
    """Return what is kept, by call number; calls of which nothing is are not in it."""
    outs = (ArgKind.STAT_OUT, ArgKind.STATX_OUT, ArgKind.DIRENTS_OUT)
    found = {}
    for nr, call in by_nr().items():
        out = call.index(*outs)
        kind = call.args[out] if out is not None else None
        kept = Kept(call.index(ArgKind.PATH), call.index(ArgKind.PATH2, ArgKind.NAME), out, kind)
        if kept != Kept():
            found[nr] = kept
    for name, at in (("pipe", 0), ("pipe2", 0), ("socketpair", 3)):
        found[by_name()[name].nr] = Kept(out=at, out_kind=ArgKind.PTR)
    return found


PATH_WAS_READ = frozenset(
    -number
    for number in (
        errno.EPERM,
        errno.ENOENT,
        errno.EACCES,
        errno.EEXIST,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EROFS,
        errno.ENOTEMPTY,
        errno.ELOOP,
        errno.ENODATA,
    )
)
"""Failures that tell that the kernel had read the path before."""


def out_size(kind: ArgKind, ret: int) -> int:
    """Return how many bytes of a result are to be read."""
    if kind == ArgKind.DIRENTS_OUT:
        return min(ret, MAX_DIRENTS)
    return {ArgKind.STAT_OUT: STAT_BYTES, ArgKind.STATX_OUT: STATX_BYTES}.get(kind, PAIR_BYTES)


def out_of(kind: ArgKind, memory: bytes) -> bytes:
    """Return what a raw event holds of a result, b"" when it could not be read whole."""
    if kind == ArgKind.STAT_OUT and len(memory) == STAT_BYTES:
        dev, ino, nlink, mode, size = _STAT.unpack_from(memory)
        return _OUT_STAT.pack(dev, ino, size, mode, nlink & 0xFFFFFFFF)
    if kind == ArgKind.STATX_OUT and len(memory) == STATX_BYTES:
        nlink, mode, ino, size, major, minor = _STATX.unpack_from(memory)
        dev = (minor & 0xFF) | (major & 0xFFF) << 8 | (minor & ~0xFF) << 12
        return _OUT_STAT.pack(dev, ino, size, mode, nlink)
    return memory if kind in (ArgKind.DIRENTS_OUT, ArgKind.PTR) else b""
