# SPDX-License-Identifier: MIT
"""Names of functions at offsets in programs and libraries.

Stripped libraries keep the names that others may call (.dynsym). Where debug symbols are installed
(/usr/lib/debug/.build-id), or the file was not stripped, all functions have one.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tracer import elf

DEBUG = Path("/usr/lib/debug/.build-id")
SHT_SYMTAB, SHT_DYNSYM = 2, 11
STT_FUNC, STT_GNU_IFUNC = 2, 10
MAX_FILE_BYTES = 1 << 30

_SECTION = np.dtype(
    [
        *(("name", "<u4"), ("type", "<u4"), ("flags", "<u8"), ("addr", "<u8"), ("offset", "<u8")),
        *(("size", "<u8"), ("link", "<u4"), ("info", "<u4"), ("align", "<u8"), ("entsize", "<u8")),
    ]
)
_SYMBOL = np.dtype(
    [
        *(("name", "<u4"), ("info", "u1"), ("other", "u1"), ("shndx", "<u2")),
        *(("value", "<u8"), ("size", "<u8")),
    ]
)
assert (_SECTION.itemsize, _SYMBOL.itemsize) == (64, 24)


class Symbols:
    """The functions of one file."""

    def __init__(self, path: str) -> None:
        """Read what there is; a file that is broken or gone has no names."""
        self._start = np.empty(0, np.uint64)
        self._end = np.empty(0, np.uint64)
        self._names: list[str] = []
        parts = [table for file in (path, _debug_file(path)) if file for table in _functions(file)]
        if not parts:
            return
        found: dict[int, tuple[int, str]] = {}
        for start, size, name in (row for part in parts for row in part):
            known = found.get(start)
            # Of several names of one function the plainest.
            if known is None or _plainness(name) < _plainness(known[1]):
                found[start] = (max(size, known[0] if known else 0), name)
        starts = sorted(found)
        self._start = np.array(starts, np.uint64)
        self._end = np.array([start + found[start][0] for start in starts], np.uint64)
        self._names = [found[start][1] for start in starts]

    def name(self, offset: int) -> str | None:
        """Return `function+0xoffset`, None when no function with a name is there."""
        at = int(np.searchsorted(self._start, np.uint64(offset), side="right")) - 1
        if at < 0 or offset >= int(self._end[at]):
            return None
        return f"{self._names[at]}+0x{offset - int(self._start[at]):x}"


def _plainness(name: str) -> tuple[int, int, str]:
    return len(name) - len(name.lstrip("_")), len(name), name


@lru_cache(maxsize=256)
def of_file(path: str) -> Symbols:
    """Return the functions of a file."""
    return Symbols(path)


def _debug_file(path: str) -> str | None:
    try:
        build_id = elf.inspect(path).build_id
    except OSError:
        return None
    if not build_id:
        return None
    file = DEBUG / build_id[:2] / f"{build_id[2:]}.debug"
    return str(file) if file.is_file() else None


def _functions(path: str) -> list[list[tuple[int, int, str]]]:
    """Return (start, size, name) of the functions in each symbol table."""
    try:
        if Path(path).stat().st_size > MAX_FILE_BYTES:
            return []
        data = np.fromfile(path, np.uint8)
    except OSError:
        return []
    if len(data) < 64 or data[:5].tobytes() != b"\x7fELF\x02":
        return []
    offset = int(data[40:48].view("<u8")[0])
    entry, count = (int(n) for n in data[58:62].view("<u2"))
    if entry != _SECTION.itemsize or offset + entry * count > len(data):
        return []
    sections = data[offset : offset + entry * count].copy().view(_SECTION)
    wanted = np.isin(sections["type"], (SHT_SYMTAB, SHT_DYNSYM))
    return [_table(data, sections, int(at)) for at in np.flatnonzero(wanted)]


def _table(
    data: npt.NDArray[np.uint8], sections: npt.NDArray[np.void], at: int
) -> list[tuple[int, int, str]]:
    begin, size = int(sections[at]["offset"]), int(sections[at]["size"])
    link = int(sections[at]["link"])
    if link >= len(sections) or begin + size > len(data):
        return []
    text_at, text_size = int(sections[link]["offset"]), int(sections[link]["size"])
    text = data[text_at : text_at + text_size].tobytes()
    whole = size // _SYMBOL.itemsize * _SYMBOL.itemsize
    symbols = data[begin : begin + whole].copy().view(_SYMBOL)
    kinds = symbols["info"] & 15
    good = np.isin(kinds, (STT_FUNC, STT_GNU_IFUNC)) & (symbols["shndx"] != 0)
    good &= (symbols["size"] > 0) & (symbols["name"] < len(text))
    found = []
    for row in symbols[good]:
        name = int(row["name"])
        raw = text[name : text.index(b"\0", name)] if b"\0" in text[name:] else text[name:]
        found.append((int(row["value"]), int(row["size"]), raw.decode("utf-8", "replace")))
    return found
