# SPDX-License-Identifier: MIT
"""How far long work is, for whoever waits for it at a terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType

FIRST_S = 1.0  # work that takes no longer says nothing
EACH_S = 0.2


class Progress:
    """A line on standard error that is written again and again; none where that is no terminal.

    As a context manager it removes the line at the end.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._shown = sys.stderr is not None and sys.stderr.isatty()
        self._next = time.monotonic() + FIRST_S
        self._said = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._said:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()

    def __call__(self, done: int, total: int | None = None) -> None:
        """Say that so many are done, of how many where that is known."""
        if not self._shown or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + EACH_S
        self._said = True
        of = f" of {total / 1e6:.1f}" if total is not None else ""
        sys.stderr.write(f"\rcosy-trace: {self._what}: {done / 1e6:.1f}{of} million")
        sys.stderr.flush()
