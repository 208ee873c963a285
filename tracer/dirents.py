# SPDX-License-Identifier: MIT
"""What is kept of getdents64's entries."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

FNV_BASIS, FNV_PRIME = 2166136261, 16777619  # kmod/uapi/cosy_trace.h

Hashes = npt.NDArray[np.uint32]


def hashes(found: Iterable[tuple[bytes, int]]) -> Hashes:
    """Return for each entry what kmod/uapi/cosy_trace.h keeps: FNV-1a of its name, and its type."""
    pairs = list(found)
    if not pairs:
        return np.empty(0, np.uint32)
    length = np.array([len(name) for name, _ in pairs])
    width = int(length.max())
    table = np.frombuffer(b"".join(name.ljust(width, b"\0") for name, _ in pairs), np.uint8)
    table = table.reshape(len(pairs), width)
    value = np.full(len(pairs), FNV_BASIS, np.uint32)
    for column in range(width):
        live = length > column
        value[live] = (value[live] ^ table[live, column]) * np.uint32(FNV_PRIME)
    kinds = np.array([kind for _, kind in pairs], np.uint32)
    return (value & np.uint32(0xFFFFFFF0)) | (kinds & np.uint32(15))
