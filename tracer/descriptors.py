# SPDX-License-Identifier: MIT
"""What a descriptor refers to, and what those are that a traced program is born with."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass


@dataclass(slots=True)
class Object:
    """One open file description, or a working directory."""

    kind: str = "other"
    """file, directory, pipe, socket, tty, device or other."""
    path: bytes | None = None
    """Absolute where that is known; joined, not resolved: symbolic links stay."""
    dev: int | None = None
    ino: int | None = None
    event: int | None = None
    """Row of the call that made it; None: it was there before."""


def kind_of_mode(mode: int, path: bytes | None = None) -> str:
    """Return the kind of an object from st_mode, and from its path whether it is a terminal."""
    if stat.S_ISCHR(mode):
        tty = path is not None and path.startswith((b"/dev/pts/", b"/dev/tty", b"/dev/console"))
        return "tty" if tty else "device"
    kinds = {
        stat.S_IFREG: "file",
        stat.S_IFDIR: "directory",
        stat.S_IFIFO: "pipe",
        stat.S_IFSOCK: "socket",
        stat.S_IFBLK: "device",
    }
    return kinds.get(stat.S_IFMT(mode), "other")


def inherited() -> dict[int, Object]:
    """Return what those of our own descriptors are that survive an exec."""
    found: dict[int, Object] = {}
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        try:
            if not os.get_inheritable(fd):
                continue
            st = os.fstat(fd)
            link = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue
        path = os.fsencode(link) if link.startswith("/") else None
        found[fd] = Object(kind_of_mode(st.st_mode, path), path, st.st_dev, st.st_ino)
    return found
