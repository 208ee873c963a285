# SPDX-License-Identifier: MIT
"""A kernel's log: what in it tells of a bug, and how it is shown and kept."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from kmod.vm.place import FOLDER

COMPLAINT = re.compile(
    r"BUG:|WARNING:|Oops|general protection|KASAN|KCSAN|UBSAN|unreferenced object"
    r"|possible (?:recursive locking|circular locking|irq lock|deadlock)|suspicious RCU"
    r"|held lock|lock held when returning|stack segment|soft lockup|blocked for more than"
    r"|Bad page|list_(?:add|del) corruption|refcount_t:|Kernel panic|rcu: INFO"
)
# A trace of lockdep, with all the locks that it names, is that long.
BEHIND_LINES = 70
EXCERPT_LINES = 280
TAIL_LINES = 60
KEPT = 20


def complaints(log: str) -> list[str]:
    """The lines that tell of a bug: oops, warning, stall, lockdep report..."""
    return [line for line in log.splitlines() if COMPLAINT.search(line)]


def excerpt(log: str) -> str:
    """The first complaints with what stands behind them, and the last lines."""
    lines = log.splitlines()
    shown: list[str] = []
    end = 0
    for number, line in enumerate(lines):
        if not COMPLAINT.search(line) or len(shown) >= EXCERPT_LINES:
            continue
        begin = max(number, end)
        end = number + BEHIND_LINES
        shown += lines[begin:end]
    parts = []
    if shown:
        parts += ["the kernel complained:", *shown[:EXCERPT_LINES]]
    return "\n".join([*parts, "the kernel's last lines:", *lines[-TAIL_LINES:]])


def keep(log: str, folder: Path = FOLDER / "failed") -> Path:
    """Write all of it to a file of its own; the newest `KEPT` files stay."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{time.time_ns()}-{os.getpid()}.log"
    path.write_text(log)
    for old in sorted(folder.glob("*.log"))[:-KEPT]:
        old.unlink(missing_ok=True)
    return path
