# SPDX-License-Identifier: MIT
"""Names of kernel constants that compounds may use instead of numbers.

The values are the kernel's ABI for x86-64 (include/uapi/linux/fcntl.h, stat.h, asm-generic's
fcntl.h and errno.h); a test compares them with the C headers.
"""

from __future__ import annotations

import errno
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

# Flags of open(2) that neither create nor change anything: what compounds may say.
OPEN_FLAGS: Final[dict[str, int]] = {
    "O_NOCTTY": 0o400,
    "O_NONBLOCK": 0o4000,
    "O_LARGEFILE": 0o100000,  # the kernel's bit; the C library defines the name as 0
    "O_DIRECTORY": 0o200000,
    "O_NOFOLLOW": 0o400000,
    "O_NOATIME": 0o1000000,
    "O_CLOEXEC": 0o2000000,
}

# File types, as in st_mode & S_IFMT: whole values, no bits.
FILE_TYPES: Final[dict[str, int]] = {
    "S_IFIFO": 0o010000,
    "S_IFCHR": 0o020000,
    "S_IFDIR": 0o040000,
    "S_IFBLK": 0o060000,
    "S_IFREG": 0o100000,
    "S_IFLNK": 0o120000,
    "S_IFSOCK": 0o140000,
}

ERRORS: Final[dict[str, int]] = {name: number for number, name in errno.errorcode.items()}

# The working directory as a dirfd, sign-extended as the program's register holds it.
AT_FDCWD: Final = (1 << 64) - 100

# Names that mean no bits; accepted, never printed.
ZEROES: Final[dict[str, str]] = {"AT_STATX_SYNC_AS_STAT": "AT", "O_RDONLY": "O"}

# Short forms; accepted, never printed.
ALIASES: Final[dict[str, str]] = {"BASIC": "STATX_BASIC_STATS"}

FAMILIES: Final[dict[str, dict[str, int]]] = {
    "AT": AT_FLAGS,
    "STATX": STATX_MASKS,
    "O": OPEN_FLAGS,
    "FDCWD": {"AT_FDCWD": AT_FDCWD},
}

# Fields of a result (enum cosy_field) whose values have names.
VALUE_NAMES: Final[dict[str, dict[str, int]]] = {"type": FILE_TYPES, "errno": ERRORS}

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


def flag_family(call: str) -> str:
    """The family whose names spell a call's flags."""
    return "O" if call in ("open", "openat") else "AT"


def spell_value(field: str, value: int) -> str:
    """A value that a result's field is compared with: its name, or a number."""
    for name, known in VALUE_NAMES.get(field, {}).items():
        if known == value:
            return name
    if field == "ret" and value >> 63:
        return str(value - (1 << 64))
    return oct(value) if field == "mode" else str(value)


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
