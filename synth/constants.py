# SPDX-License-Identifier: MIT
"""Names of kernel constants that compounds may use instead of numbers.

The values are the kernel's ABI for x86-64 (include/uapi/linux/fcntl.h, stat.h); a test compares
them with the C headers.
"""

from __future__ import annotations

from typing import Final

AT_FLAGS: Final[dict[str, int]] = {
    "AT_SYMLINK_NOFOLLOW": 0x100,
    "AT_SYMLINK_FOLLOW": 0x400,
    "AT_NO_AUTOMOUNT": 0x800,
    "AT_EMPTY_PATH": 0x1000,
    "AT_STATX_FORCE_SYNC": 0x2000,
    "AT_STATX_DONT_SYNC": 0x4000,
}

STATX_MASKS: Final[dict[str, int]] = {
    "STATX_BASIC_STATS": 0x7FF,
    "STATX_TYPE": 0x1,
    "STATX_MODE": 0x2,
    "STATX_NLINK": 0x4,
    "STATX_UID": 0x8,
    "STATX_GID": 0x10,
    "STATX_ATIME": 0x20,
    "STATX_MTIME": 0x40,
    "STATX_CTIME": 0x80,
    "STATX_INO": 0x100,
    "STATX_SIZE": 0x200,
    "STATX_BLOCKS": 0x400,
    "STATX_BTIME": 0x800,
    "STATX_MNT_ID": 0x1000,
}

# Names that mean no bits; accepted, never printed.
ZEROES: Final[dict[str, str]] = {"AT_STATX_SYNC_AS_STAT": "AT"}

# Short forms; accepted, never printed.
ALIASES: Final[dict[str, str]] = {"BASIC": "STATX_BASIC_STATS"}

FAMILIES: Final[dict[str, dict[str, int]]] = {"AT": AT_FLAGS, "STATX": STATX_MASKS}

BASIC_STATS: Final = STATX_MASKS["STATX_BASIC_STATS"]


def lookup(name: str) -> tuple[str, int] | None:
    """The family and value of a constant's name, or None if there is no such name."""
    if name in ZEROES:
        return ZEROES[name], 0
    name = ALIASES.get(name, name)
    for family, names in FAMILIES.items():
        if name in names:
            return family, names[name]
    return None


def spell(family: str, value: int) -> str:
    """The canonical text of `value`: names joined by `|`, bits without a name as one hex number.

    A name that covers others (STATX_BASIC_STATS) comes first in its table and wins.
    """
    words: list[str] = []
    rest = value
    for name, bits in FAMILIES.get(family, {}).items():
        if rest & bits == bits:
            words.append(name)
            rest &= ~bits
    if rest or not words:
        words.append(hex(rest) if words else str(rest))
    return "|".join(words)
