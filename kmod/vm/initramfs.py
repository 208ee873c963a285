# SPDX-License-Identifier: MIT
"""Builds an initramfs: a cpio archive of files, programs with their libraries, and busybox.

Uncompressed: the emulated CPU copies faster than it decompresses.
"""

from __future__ import annotations

import lzma
import os
import re
import shutil
import stat
import subprocess
from pathlib import Path, PurePosixPath

from kmod.vm.errors import UnavailableError

BUSYBOX = "/busybox"
# As on a Debian system, so that a program's path says the same inside and outside.
MERGED = {name: f"usr/{name}" for name in ("bin", "sbin", "lib", "lib64")}


class Initramfs:
    """An archive in the format "newc" (Linux, early-userspace/buffer-format.rst)."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[int, bytes]] = {}
        for link, target in MERGED.items():
            self._entries[link] = (stat.S_IFLNK | 0o777, target.encode())

    def directory(self, path: str) -> None:
        """An empty directory, and those above it."""
        parts = self._place(path).split("/")
        for i in range(len(parts)):
            self._entries.setdefault("/".join(parts[: i + 1]), (stat.S_IFDIR | 0o755, b""))

    def data(self, path: str, content: bytes | str, mode: int = 0o644) -> None:
        """A file with this content."""
        self._add(
            path, stat.S_IFREG | mode, content.encode() if isinstance(content, str) else content
        )

    def link(self, path: str, target: str) -> None:
        """A symbolic link."""
        self._add(path, stat.S_IFLNK | 0o777, target.encode())

    def copy(self, source: Path, path: str) -> None:
        """A file or a whole directory of the host; a file keeps its mode."""
        if source.is_symlink() and not source.exists():
            self.link(path, os.readlink(source))
        elif source.is_dir():
            self.directory(path)
            for child in sorted(source.iterdir()):
                self.copy(child, f"{path}/{child.name}")
        else:
            content = source.read_bytes()
            if source.suffix == ".xz" and path.endswith(".ko"):
                content = lzma.decompress(content)
            self.data(path, content, stat.S_IMODE(source.stat().st_mode))
            if source.suffix == ".so":
                self.libraries(source)

    def program(self, name: str, path: str | None = None) -> None:
        """A program of the host, by name or path, with the libraries that it is linked with."""
        found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        if found is None:
            raise UnavailableError(f"{name} is not installed, a virtual machine needs it")
        source = Path(os.path.abspath(found))
        self.copy(source, path or str(source))
        self.libraries(source)

    def libraries(self, source: Path) -> None:
        """What the dynamic linker would load with `source`: nothing for a static program."""
        done = subprocess.run(["ldd", str(source)], capture_output=True, text=True, check=False)
        for library in re.findall(r"^\s*(?:\S+ => )?(/\S+) \(0x", done.stdout, re.MULTILINE):
            if self._place(library) not in self._entries:
                self.copy(Path(library), library)

    def busybox(self) -> None:
        """Busybox and a link for each of its commands, in a folder that PATH names last."""
        found = shutil.which("busybox")
        if found is None:
            raise UnavailableError("busybox is not installed: apt-get install busybox-static")
        self.copy(Path(found), f"{BUSYBOX}/busybox")
        names = subprocess.run([found, "--list"], capture_output=True, text=True, check=True).stdout
        for name in names.split():
            if name != "busybox":
                self.link(f"{BUSYBOX}/{name}", "busybox")

    def write(self, target: Path) -> None:
        """Write the archive."""
        with open(target, "wb") as file:
            position = 0
            entries = [*self._entries.items(), ("TRAILER!!!", (0, b""))]
            for inode, (path, (mode, content)) in enumerate(entries, 1):
                name = path.encode() + b"\0"
                # Magic, inode, mode, uid, gid, links, mtime, size, 4 device numbers, name, check.
                numbers = [inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name), 0]
                header = b"070701" + b"".join(b"%08x" % number for number in numbers)
                for part in (header + name, content):
                    padding = -(position + len(part)) % 4
                    file.write(part + b"\0" * padding)
                    position += len(part) + padding

    def _add(self, path: str, mode: int, content: bytes) -> None:
        place = self._place(path)
        parent = str(PurePosixPath(place).parent)
        if parent != ".":
            self.directory(parent)
        self._entries[place] = (mode, content)

    @staticmethod
    def _place(path: str) -> str:
        """The path below the root, through the links of a merged /usr."""
        place = os.path.normpath(path).lstrip("/")
        first, slash, rest = place.partition("/")
        return f"{MERGED[first]}/{rest}" if slash and first in MERGED else place
