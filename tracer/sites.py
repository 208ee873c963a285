# SPDX-License-Identifier: MIT
"""Where in which module calls were made."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracer import columns, dataset, processes, symbols
from tracer.columns import column
from tracer.events import Chunk
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
        self._where: list[tuple[str, int]] = []
        self._mmap = by_name()["mmap"].nr

    def add_mapped(
        self, chunk: Chunk, object_ids: npt.NDArray[np.int32], paths: Sequence[bytes | None]
    ) -> None:
        """Note the libraries that came by dlopen; `paths` are those of the objects."""
        some = np.flatnonzero((chunk.nr == self._mmap) & (chunk.ret > 0) & (object_ids >= 0))
        protection, flags = chunk.args[2][some], chunk.args[3][some]
        wanted = (protection & np.uint64(PROT_EXEC) > 0) & (flags & np.uint64(MAP_ANONYMOUS) == 0)
        for at in some[wanted].tolist():
            path = paths[object_ids[at]]
            if path:
                base = int(chunk.ret[at]) - int(chunk.args[5][at])
                self._of_thread[chunk.thread[at]].add(base, path)

    def column(self, chunk: Chunk) -> pa.DictionaryArray:
        """Return the names of the sites of these events."""
        places = column(chunk.site, pa.uint64()).dictionary_encode()
        place = np.frombuffer(places.indices.buffers()[1], np.int32, len(chunk)).astype(np.int64)
        n = len(places.dictionary)
        pairs = column(chunk.thread * n + place, pa.int64()).dictionary_encode()
        pair = np.frombuffer(pairs.indices.buffers()[1], np.int32, len(chunk))
        sites = places.dictionary.to_pylist()
        which = [divmod(value, n) for value in pairs.dictionary.to_pylist()]
        # In the order of threads and addresses, so that numbers do not depend on what came first.
        for thread, address in sorted((thread, sites[at]) for thread, at in which):
            self._code(thread, address)
        codes = np.array([self._known[t, sites[at]] for t, at in which], np.int32)[pair]
        known = chunk.site != 0
        return pa.DictionaryArray.from_arrays(
            column(codes, pa.int32(), None if known.all() else known),
            columns.strings(list(self._codes)),
        )

    def _code(self, thread: int, site: int) -> None:
        if (thread, site) in self._known:
            return
        path, offset = self._of_thread[thread].where(site)
        # Hexadecimal where no module is known.
        name = f"{os.path.basename(path) or path}+0x{offset:x}" if path else f"0x{offset:x}"
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
