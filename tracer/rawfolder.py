# SPDX-License-Identifier: MIT
"""The folders of raw files: where they are made, and what killed recordings left of them.

A recording holds a lock on its folder's note for as long as it lives, so that others can tell.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from pathlib import Path

PREFIX = "cosy-trace-"
NOTE = "run.json"
SHM = Path("/dev/shm")
SHM_ENOUGH_BYTES = 1 << 31


def _parent() -> str | None:
    """Return where raw files go: $TMPDIR if set, else memory if it is large, else /tmp."""
    if os.environ.get("TMPDIR"):
        return None
    try:
        free = os.statvfs(SHM)
        if os.access(SHM, os.W_OK) and free.f_bavail * free.f_frsize >= SHM_ENOUGH_BYTES:
            return str(SHM)
    except OSError:
        pass
    return None


def make() -> Path:
    """Make a folder that nobody else can read; raises OSError."""
    return Path(tempfile.mkdtemp(prefix=PREFIX, dir=_parent()))


def note(folder: Path, text: str) -> int | None:
    """Write the note, and return the descriptor that holds its lock; None: there is no room."""
    with contextlib.suppress(OSError):
        fd = os.open(folder / NOTE, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        os.write(fd, text.encode())
        return fd
    return None


def left_behind() -> list[Path]:
    """Return our folders whose recordings are gone, in all places where they may be."""
    found = []
    for parent in sorted({Path(tempfile.gettempdir()), SHM, Path("/tmp")}):
        for folder in sorted(parent.glob(f"{PREFIX}*")):
            with contextlib.suppress(OSError):  # no note yet, or somebody else's
                if folder.stat().st_uid != os.getuid():
                    continue
                fd = os.open(folder / NOTE, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
                try:
                    fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    found.append(folder)
                finally:
                    os.close(fd)
    return found
