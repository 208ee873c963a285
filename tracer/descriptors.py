# SPDX-License-Identifier: MIT
"""What a descriptor refers to, and what those are that a traced program is born with."""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass

KINDS = ("other", "file", "directory", "socket", "pipe", "tty", "device")
"""tracer/core/operations.h has the same."""


@dataclass(slots=True)
class Object:
    """One open file description, or a working directory."""

    kind: str = "other"
    """One of KINDS."""
    path: bytes | None = None
    """Absolute where that is known; joined, not resolved: symbolic links stay."""
    dev: int | None = None
    ino: int | None = None
    event: int | None = None
    """Row of the call that made it; None: it was there before."""


_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFBLK: "device",
}


def kind_of_mode(mode: int, path: bytes | None = None) -> str:
    """Return the kind of an object from st_mode, and from its path whether it is a terminal."""
    kind = stat.S_IFMT(mode)
    if kind == stat.S_IFCHR:
        tty = path is not None and path.startswith((b"/dev/pts/", b"/dev/tty", b"/dev/console"))
        return "tty" if tty else "device"
    return _KINDS.get(kind, "other")


def _object(name: str) -> Object:
    """What a link in /proc/PID/fd leads to; raises OSError."""
    st = os.stat(name)
    link = os.readlink(name)
    path = os.fsencode(link) if link.startswith("/") else None
    return Object(kind_of_mode(st.st_mode, path), path, st.st_dev, st.st_ino)


def inherited() -> dict[int, Object]:
    """Return what those of our own descriptors are that survive an exec."""
    found: dict[int, Object] = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.get_inheritable(int(name)):
                found[int(name)] = _object(f"/proc/self/fd/{name}")
    return found


def of_process(pid: int) -> dict[int, Object]:
    """Return what the descriptors of a running process are, as far as we may know."""
    found: dict[int, Object] = {}
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                found[int(name)] = _object(f"/proc/{pid}/fd/{name}")
    return found
