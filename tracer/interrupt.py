# SPDX-License-Identifier: MIT
"""Ctrl-C in work that leaves something behind: what became of that; and work that it must not cut.

Besides, a command dies by it (tracer/command.py).
"""

from __future__ import annotations

import contextlib
import signal
import stat
import threading
from collections.abc import Iterator
from pathlib import Path


def _identity(target: Path) -> tuple[int, int] | None:
    """What is there now: what replaces it is another file."""
    try:
        there = target.stat()
    except OSError:
        return None
    return there.st_dev, there.st_ino


def _is_special(target: Path) -> bool:
    with contextlib.suppress(OSError):
        mode = target.stat().st_mode
        return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
    return False


@contextlib.contextmanager
def promised(*targets: Path | None, otherwise: str = "") -> Iterator[None]:
    """Add notes to a KeyboardInterrupt: whether these files or folders (None: none) were written.

    One counts as written when it is another one than before: files and datasets are replaced whole.
    `otherwise`: a note about those that were not.
    """
    before = [(target, _identity(target)) for target in targets if target]
    try:
        yield
    except KeyboardInterrupt as stop:
        missing = False
        for target, old in before:
            if _is_special(target):
                stop.add_note(f"{target} cut short")
                continue
            unchanged = _identity(target) == old
            missing = missing or unchanged
            stop.add_note(f"{target} {'not' if unchanged else 'is'} written")
        if missing and otherwise:
            stop.add_note(otherwise)
        raise


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C has to wait. Programs that are started meanwhile do not get it at all."""
    held: list[int] = []
    handles = threading.current_thread() is threading.main_thread()
    if handles:
        # A signal that is blocked here comes to another thread, and the handler runs here.
        before = signal.signal(signal.SIGINT, lambda number, _: held.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if handles:
            signal.signal(signal.SIGINT, before)
        if held:
            signal.raise_signal(signal.SIGINT)
