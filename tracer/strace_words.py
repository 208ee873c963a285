# SPDX-License-Identifier: MIT
"""What single words in strace's lines mean: numbers, flags, strings, structures."""

from __future__ import annotations

import fcntl
import mmap
import os
import re
import select
import signal
import socket
import stat
import struct
from functools import lru_cache

from tracer import dirents
from tracer.syscalls import ArgKind

STRING = re.compile(rb'"((?:[^"\\]|\\.)*)"')
_ESCAPE = re.compile(rb"\\(?:x([0-9a-f]{2})|([0-7]{1,3})|(.))")
_SIMPLE = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"v": b"\v", b"f": b"\f", b"e": b"\x1b"}
_FIELD = re.compile(rb"stx?_(mode|size|ino)=([^,}]+)")
_DEV = re.compile(rb"st_dev=makedev\((0x[0-9a-f]+|0), (0x[0-9a-f]+|0)\)")
_ENTRY = re.compile(rb'd_type=(DT_\w+), d_name="((?:[^"\\]|\\.)*)"')
# The beginning of every stat with -v: told apart in a third of the time.
_WHOLE_STAT = re.compile(
    rb"\{st_dev=makedev\((0x[0-9a-f]+|0), (0x[0-9a-f]+|0)\), st_ino=(\d+), st_mode=([A-Z0-9|_]+), "
    rb"[a-z0-9_=, ]*st_size=(\d+),"
)
FD = re.compile(rb"(-?\d+)(?:<((?:->|[^<>\\]|\\.)*)>)?$")
_PAIR = re.compile(rb"\[(\d+)(?:<[^>]*>)?, (\d+)")
_TYPES = {b"DT_FIFO": 1, b"DT_CHR": 2, b"DT_DIR": 4, b"DT_BLK": 6, b"DT_REG": 8, b"DT_LNK": 10,
          b"DT_SOCK": 12}  # fmt: skip
_OUT = struct.Struct("<QQQII")
_U64 = (1 << 64) - 1
_STATX = (
    *("TYPE", "MODE", "NLINK", "UID", "GID", "ATIME", "MTIME"),
    *("CTIME", "INO", "SIZE", "BLOCKS", "BTIME", "MNT_ID"),
)
_OTHER_CONSTANTS = {
    "NULL": 0,
    "AT_FDCWD": 0xFFFFFF9C,
    "AT_SYMLINK_NOFOLLOW": 0x100,
    "AT_EACCESS": 0x200,
    "AT_REMOVEDIR": 0x200,
    "AT_SYMLINK_FOLLOW": 0x400,
    "AT_NO_AUTOMOUNT": 0x800,
    "AT_EMPTY_PATH": 0x1000,
    "AT_STATX_SYNC_AS_STAT": 0,
    "AT_STATX_FORCE_SYNC": 0x2000,
    "AT_STATX_DONT_SYNC": 0x4000,
    "STATX_BASIC_STATS": 0x7FF,
    "STATX_ALL": 0xFFF,
    **{f"STATX_{name}": 1 << bit for bit, name in enumerate(_STATX)},
    "CLONE_VM": 0x100,
    "CLONE_VFORK": 0x4000,
    "CLONE_THREAD": 0x10000,
    "O_LARGEFILE": 0,
    "FIOCLEX": 0x5451,
    "FIONCLEX": 0x5450,
    "MFD_CLOEXEC": 1,
    "CLOSE_RANGE_CLOEXEC": 4,
    "F_OK": 0,
    "X_OK": 1,
    "W_OK": 2,
    "R_OK": 4,
}


def _constants() -> dict[bytes, int]:
    found: dict[str, int] = {}
    for module in (os, fcntl, mmap, socket, stat, select, signal):
        for name in dir(module):
            value = getattr(module, name)
            if name.isupper() and isinstance(value, int):
                found[name] = int(value)
    found |= _OTHER_CONSTANTS
    return {name.encode(): value for name, value in found.items()}


CONSTANTS = _constants()


@lru_cache(maxsize=1 << 14)
def number(word: bytes) -> int:
    """Return what a printed argument was in its register; 0: strace does not say."""
    fd = FD.match(word)
    if fd:
        text = fd[1]
        octal = len(text) > 1 and text[:1] == b"0"
        return int(text, 8 if octal and text.isdigit() and b"8" not in text and b"9" not in text
                   else 10) & _U64  # fmt: skip
    if word[:9] == b"AT_FDCWD<":
        return CONSTANTS[b"AT_FDCWD"]
    value = 0
    for part in word.split(b"|"):
        part = part.split(b" ", 1)[0].split(b"<", 1)[0]
        if part in CONSTANTS:
            value |= CONSTANTS[part]
            continue
        try:
            octal = part[:1] == b"0" and part[1:2] not in (b"x", b"")
            value |= int(part, 8 if octal else 0)
        except ValueError:
            continue  # a name that we do not know
    return value & _U64


def unescape(text: bytes) -> bytes:
    """Return the bytes of a string as strace prints them."""
    if b"\\" not in text:
        return text

    def one(found: re.Match[bytes]) -> bytes:
        if found[1]:
            return bytes([int(found[1], 16)])
        if found[2]:
            return bytes([int(found[2], 8) & 255])
        return _SIMPLE.get(found[3], found[3])

    return _ESCAPE.sub(one, text)


def output(kind: ArgKind | None, word: bytes) -> bytes:
    """Return what a raw event holds of a printed result."""
    if kind == ArgKind.PTR:
        pair = _PAIR.match(word)
        return struct.pack("<ii", int(pair[1]), int(pair[2])) if pair else b""
    if kind == ArgKind.DIRENTS_OUT:
        return dirents.hashes(entries(word)).tobytes()
    if whole := _WHOLE_STAT.match(word):
        major, minor, ino, mode, size = whole.groups()
        device = os.makedev(int(major, 16), int(minor, 16))
        return _OUT.pack(device, int(ino), int(size), number(mode), 0)
    fields = {name: number(value) for name, value in _FIELD.findall(word)}
    if b"mode" not in fields:
        return b""
    dev = _DEV.search(word)
    device = os.makedev(int(dev[1], 16), int(dev[2], 16)) if dev else 0
    return _OUT.pack(device, fields.get(b"ino", 0), fields.get(b"size", 0), fields[b"mode"], 0)


def entries(word: bytes) -> list[tuple[bytes, int]]:
    """Return name and type of the printed directory entries, but "." and ".."."""
    found = [(unescape(name), _TYPES.get(kind, 0)) for kind, name in _ENTRY.findall(word)]
    return [pair for pair in found if pair[0] not in (b".", b"..")]
