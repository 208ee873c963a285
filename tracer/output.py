# SPDX-License-Identifier: MIT
"""Files that commands write where they were told to: whole or not at all, and as GNU tools would.

Only regular files are replaced, symbolic links are followed, and what is there to be written to
(a device, a FIFO, /dev/fd/N) is written to.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


class OutputError(Exception):
    """Nothing can be written there; one line says why and what to do."""


def _mode(target: Path) -> int:
    """Return what is there, links followed, 0: nothing; raises OutputError."""
    try:
        return target.stat().st_mode
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise OutputError(f"cannot write: {target}: {error.strerror}: use another name") from error


def check(target: Path, force: bool) -> None:
    """Raise OutputError where written() could not write, or would replace a file unasked."""
    mode = _mode(target)
    if _descriptor(target) is not None:
        return
    if stat.S_ISDIR(mode):
        raise OutputError(f"cannot write: {target}: is a folder: use another name")
    if stat.S_ISREG(mode) and not force:
        raise OutputError(f"exists already: {target}: use --force to replace it, or another name")
    if not mode and not _place(target).parent.is_dir():
        raise OutputError(f"no such folder: {_place(target).parent}: make it, or use another name")


def _descriptor(target: Path) -> int | None:
    """Return the descriptor of ours that /dev/fd/N and its like mean."""
    if target.name.isdigit() and os.path.realpath(target.parent) == f"/proc/{os.getpid()}/fd":
        return int(target.name)
    return None


def _place(target: Path) -> Path:
    """Return where the file is that a name means."""
    return Path(os.path.realpath(target))


@contextlib.contextmanager
def written(target: Path, mode: int | None = None) -> Iterator[BinaryIO]:
    """Open a file to be written, which takes its name only when all went well; raises OSError.

    It gets these permissions, whatever the umask; without `mode` those of the file that it
    replaces, or what the umask leaves.
    """
    if (fd := _descriptor(target)) is not None:
        with os.fdopen(os.dup(fd), "wb") as stream:
            yield stream
        return
    there = target.stat().st_mode if target.exists() else 0
    if there and not stat.S_ISREG(there):
        # No O_CREAT and no O_TRUNC: what they do is for files alone.
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_NOCTTY), "wb") as device:
            yield device
        return
    place = _place(target)
    scratch = place.with_name(f".{place.name[:200]}.tmp-{os.getpid()}")
    try:
        fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o666)
        with os.fdopen(fd, "wb") as file:
            if mode is not None or there:
                os.fchmod(fd, stat.S_IMODE(there) if mode is None else mode)
            yield file
            # Renamed before it is on disk, it could be empty after a power cut.
            file.flush()
            os.fsync(fd)
        scratch.replace(place)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
