# SPDX-License-Identifier: MIT
"""Where in which module calls were made."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracer import columns, dataset, processes, symbols
from tracer.events import Chunk, Words
from tracer.syscalls import by_name

PROT_EXEC = 4
MAP_ANONYMOUS = 0x20


class Sites:
    """Names of call sites, remembered across chunks."""

    def __init__(self, who: processes.Processes) -> None:
        # Images that map their libraries at the same addresses (forks) share.
        of_image = {id(image): processes.Modules(image) for image in who.images}
        self._of_thread = [of_image[id(image)] for image in who.of_thread]
        self._known: dict[tuple[int, int], int] = {}
        self._codes: dict[str, int] = {}
        self._names: dict[str, str] = {}
        """By file: what its sites are called after."""
        self._where: list[tuple[str, int]] = []
        self._mmap = by_name()["mmap"].nr

    def mapped(
        self, chunk: Chunk, object_ids: npt.NDArray[np.int32], paths: Sequence[bytes | None]
    ) -> list[tuple[int, int, bytes]]:
        """Return the libraries that came by dlopen: thread, address, path; `paths` by object."""
        some = np.flatnonzero((chunk.nr == self._mmap) & (chunk.ret > 0) & (object_ids >= 0))
        protection, flags = chunk.args[2][some], chunk.args[3][some]
        wanted = (protection & np.uint64(PROT_EXEC) > 0) & (flags & np.uint64(MAP_ANONYMOUS) == 0)
        found = []
        for at in some[wanted].tolist():
            if path := paths[object_ids[at]]:
                base = int(chunk.ret[at]) - int(chunk.args[5][at])
                found.append((int(chunk.thread[at]), base, path))
        return found

    def add(self, mapped: Iterable[tuple[int, int, bytes]]) -> None:
        """Note libraries, as mapped() returned them."""
        for thread, base, path in mapped:
            self._of_thread[thread].add(base, path)

    def codes(self, threads: npt.NDArray[np.int32], addresses: Words) -> npt.NDArray[np.int32]:
        """Return a number for the site of each pair; what it means is in names()."""
        pairs = list(zip(threads.tolist(), addresses.tolist(), strict=True))
        # In the order of threads and addresses, so that numbers do not depend on what came first.
        for thread, address in sorted(pairs):
            self._code(thread, address)
        return np.array([self._known[pair] for pair in pairs], np.int32)

    def names(self) -> pa.StringArray:
        """Return the names of all sites by their numbers."""
        return columns.strings(list(self._codes))

    def _name(self, path: str) -> str:
        """Return the last part of a path, or as many of them as tell it from the other files."""
        if path not in self._names:
            taken = set(self._names.values())
            parts = path.split("/")
            names = ("/".join(parts[at:]) for at in range(len(parts) - 1, -1, -1))
            self._names[path] = next((n for n in names if n and n not in taken), path)
        return self._names[path]

    def _code(self, thread: int, site: int) -> None:
        if (thread, site) in self._known:
            return
        path, offset = self._of_thread[thread].where(site)
        # Hexadecimal where no module is known.
        name = f"{self._name(path)}+0x{offset:x}" if path else f"0x{offset:x}"
        code = self._known[thread, site] = self._codes.setdefault(name, len(self._codes))
        if code == len(self._where):
            self._where.append((path, offset))

    def table(self) -> pa.Table:
        """Return what is known of all sites."""
        where = self._where
        found: dict[str, Sequence[Any]] = {
            "site": list(self._codes),
            "module": columns.names([os.fsencode(path) for path, _ in where]),
            "build_id": [processes.build_id(os.fsencode(path)) for path, _ in where],
            "offset": [offset for _, offset in where],
            "symbol": [symbols.of_file(path).name(at) if path else None for path, at in where],
        }
        return columns.table(dataset.SITES, found)
