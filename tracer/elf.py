# SPDX-License-Identifier: MIT
"""What the file of a program says: its build-id, its loader, its privileges."""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass
from functools import cache
from typing import BinaryIO

PT_LOAD = 1
PT_INTERP = 3
PT_NOTE = 4
NT_GNU_BUILD_ID = 3
EM_X86_64 = 62
MAX_SCRIPTS = 5  # nested interpreters, as the kernel allows
MAX_HEADERS = 512
MAX_NOTES_BYTES = 1 << 16

_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_PHDR = struct.Struct("<IIQQQQQQ")
_NHDR = struct.Struct("<III")


@dataclass(frozen=True, slots=True)
class Program:
    """One executable file."""

    path: str
    kind: str
    """`elf` (x86-64), `script`, or `other`."""
    interpreter: str | None = None
    """PT_INTERP of an ELF file (None: static), or what stands behind `#!`."""
    build_id: str | None = None
    """In hexadecimal."""
    set_id: bool = False
    """A set-user-id or set-group-id bit, or file capabilities."""


def _segments(file: BinaryIO) -> list[tuple[int, int, int]]:
    """Return (type, offset, size in the file) of every program header."""
    head = file.read(_EHDR.size)
    if len(head) < _EHDR.size:
        return []
    fields = _EHDR.unpack(head)
    phoff, phentsize, phnum = fields[5], fields[9], fields[10]
    if fields[2] != EM_X86_64 or head[4] != 2 or phentsize != _PHDR.size or phnum > MAX_HEADERS:
        return []
    file.seek(phoff)
    data = file.read(phnum * phentsize)
    data = data[: len(data) // _PHDR.size * _PHDR.size]
    return [(row[0], row[2], row[5]) for row in _PHDR.iter_unpack(data)]


def _build_id(notes: bytes) -> str | None:
    at = 0
    while at + _NHDR.size <= len(notes):
        name_size, size, kind = _NHDR.unpack_from(notes, at)
        at += _NHDR.size
        name = notes[at : at + name_size]
        at += (name_size + 3) & ~3
        if kind == NT_GNU_BUILD_ID and name == b"GNU\0" and at + size <= len(notes):
            return notes[at : at + size].hex()
        at += (size + 3) & ~3
    return None


def is_fixed(path: str) -> bool:
    """Whether a program file says itself at which address it is loaded."""
    try:
        with open(path, "rb") as file:
            head = file.read(18)
    except OSError:
        return False
    return head[:4] == b"\x7fELF" and head[16:18] == b"\x02\x00"  # ET_EXEC


def _set_id(path: str, file: BinaryIO) -> bool:
    if os.fstat(file.fileno()).st_mode & (stat.S_ISUID | stat.S_ISGID):
        return True
    try:
        return bool(os.getxattr(path, "security.capability"))
    except OSError:
        return False


def inspect(path: str) -> Program:
    """Read what matters of the executable file `path`.

    Raises OSError when it cannot be read. Broken files give kind `other`.
    """
    with open(path, "rb") as file:
        set_id = _set_id(path, file)
        magic = file.read(256)
        if magic[:2] == b"#!":
            words = magic[2:].split(b"\n", 1)[0].split()
            interpreter = os.fsdecode(words[0]) if words else None
            return Program(path, "script", interpreter, set_id=set_id)
        if magic[:4] != b"\x7fELF":
            return Program(path, "other", set_id=set_id)
        file.seek(0)
        segments = _segments(file)
        if not segments:
            return Program(path, "other", set_id=set_id)
        interpreter = build_id = None
        for kind, offset, size in segments:
            if kind not in (PT_INTERP, PT_NOTE):
                continue
            file.seek(offset)
            data = file.read(min(size, MAX_NOTES_BYTES))
            if kind == PT_INTERP:
                interpreter = os.fsdecode(data.rstrip(b"\0"))
            else:
                build_id = build_id or _build_id(data)
    return Program(path, "elf", interpreter, build_id, set_id)


@cache
def span(path: str) -> int:
    """Return how many bytes of address space a program or library takes; 0: not known."""
    try:
        with open(path, "rb") as file:
            file.seek(0)
            head = file.read(_EHDR.size)
            if len(head) < _EHDR.size or head[:4] != b"\x7fELF" or head[4] != 2:
                return 0
            fields = _EHDR.unpack(head)
            if fields[9] != _PHDR.size or fields[10] > MAX_HEADERS:
                return 0
            file.seek(fields[5])
            data = file.read(fields[10] * _PHDR.size)
    except OSError:
        return 0
    rows = _PHDR.iter_unpack(data[: len(data) // _PHDR.size * _PHDR.size])
    return max((row[3] + row[6] for row in rows if row[0] == PT_LOAD), default=0)


def is_set_id(path: str) -> bool:
    """Whether a program runs with other rights than its caller's."""
    try:
        return inspect(path).set_id
    except OSError:
        return False


def why_native(path: str) -> str | None:
    """Return why the shim cannot follow the program `path`; None: it can.

    Scripts are followed to their interpreter. A file that cannot be read is
    taken for one that can be followed: the kernel will have its say.
    """
    for _ in range(MAX_SCRIPTS):
        try:
            program = inspect(path)
        except OSError:
            return None
        if program.set_id and program.kind != "script":
            return "has set-id bits or file capabilities"
        if program.kind == "script" and program.interpreter:
            path = program.interpreter
            continue
        if program.kind == "elf" and program.interpreter is None:
            return "is statically linked"
        if program.kind == "elf" and "ld-linux-x86-64.so" not in str(program.interpreter):
            return f"is loaded by {program.interpreter}, not by the GNU C library's loader"
        return None
    return None
