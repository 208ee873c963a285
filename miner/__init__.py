# SPDX-License-Identifier: MIT
"""Finds what programs repeat across the user/kernel boundary.

`load` mines traces or reads a motif file, `calls` reads a trace with its data flow; both give
pandas data frames (docs/miner-api.md). Nothing heavy is imported before they are asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from miner.frames import Mined, calls, load

__all__ = ["Mined", "calls", "load"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from miner import frames

        return getattr(frames, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
