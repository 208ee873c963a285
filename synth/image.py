# SPDX-License-Identifier: MIT
"""The binary image of compounds: the mirror of kmod/uapi/cosy_image.h, its writer and its reader.

The dataclasses hold what the C structures hold; strings are text instead of offsets, bit masks and
enumerations stay integers. `tests/unit/test_image.py` compares sizes and offsets with the header.
Meaning is not checked here: `synth.verify` does that.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Final

from synth.errors import SynthError

MAGIC: Final = b"COSYIMG\x05"
MAX_SIZE: Final = 1 << 20
MAX_ARGS: Final = 6
MAX_COMPOUNDS: Final = 256
MAX_OPS: Final = 16
MAX_PATTERNS: Final = 32
MAX_PATHS: Final = 256
MAX_CONDS: Final = 4

HEADER: Final = struct.Struct("<8s15I20s")
COMPOUND: Final = struct.Struct("<18I3Q")
ARG: Final = struct.Struct("<BBHIQ")
OP: Final = struct.Struct("<HBBHH")  # followed by MAX_ARGS of ARG
OP_SIZE: Final = OP.size + MAX_ARGS * ARG.size
COND: Final = struct.Struct("<BBBBIQ")
PATTERN: Final = struct.Struct("<HHIII")
PATH: Final = struct.Struct("<I")
CRC_FROM: Final = 16


class ImageError(SynthError):
    """The bytes are no image: cut, damaged, or of another version."""


class CompoundFlag(IntFlag):
    """struct cosy_compound.flags"""

    SPECULATIVE = 0x1
    EXPLICIT = 0x2


class Guard(IntFlag):
    """struct cosy_compound.guards"""

    SCANNED = 0x1
    CHILD = 0x2
    LEAF = 0x4
    REGULAR = 0x8
    LISTED = 0x10


class Loop(IntEnum):
    """enum cosy_loop"""

    NONE = 0
    ENTRIES = 1
    PATHS = 2


class Executor(IntFlag):
    """struct cosy_compound.executors"""

    INLINE = 0x1
    AHEAD = 0x2
    BPF = 0x4
    MODULE = 0x8
    REFERENCE = 0x10


class ArgKind(IntEnum):
    """enum cosy_arg_kind"""

    NONE = 0
    CONST = 1
    STRING = 2
    DIR = 3
    NAME = 4
    PATH = 5
    OUT = 6
    RESULT = 7
    TRIGGER = 8
    ITEM = 9
    FIELD = 10


class Field(IntEnum):
    """enum cosy_field"""

    RET = 1
    ERRNO = 2
    TYPE = 3
    MODE = 4
    SIZE = 5


class Relation(IntEnum):
    """enum cosy_relation"""

    IS = 1
    IS_NOT = 2
    AT_MOST = 3
    AT_LEAST = 4


class OpFlag(IntFlag):
    """struct cosy_op.flags"""

    OPTIONAL = 0x1
    UNTIL = 0x2


@dataclass(frozen=True, slots=True)
class ImageArg:
    """struct cosy_arg"""

    kind: int
    index: int = 0
    string: str = ""
    value: int = 0
    field: int = 0


@dataclass(frozen=True, slots=True)
class ImageCond:
    """struct cosy_cond"""

    index: int
    field: int
    relation: int
    value: int


@dataclass(frozen=True, slots=True)
class ImageOp:
    """struct cosy_op with the conditions that its indices point to"""

    nr: int
    args: tuple[ImageArg, ...]
    flags: int = 0
    conds: tuple[ImageCond, ...] = ()


@dataclass(frozen=True, slots=True)
class ImagePattern:
    """struct cosy_pattern"""

    nr: int
    flags_allowed: int = 0
    mask_within: int = 0
    string: str = ""


@dataclass(frozen=True, slots=True)
class ImageCompound:
    """struct cosy_compound with what its indices point to"""

    name: str
    flags: int
    guards: int
    loop: int
    nth: int
    min_entries: int
    executors: int
    ops: tuple[ImageOp, ...]
    triggers: tuple[ImagePattern, ...]
    serves: tuple[ImagePattern, ...]
    limit_ops: int
    limit_bytes: int
    limit_time_ns: int
    paths: tuple[str, ...] = ()
    chunk: int = 0
    grow: int = 0
    miss: int = 0


@dataclass(frozen=True, slots=True)
class Image:
    """struct cosy_image; `build_id` in hex, "" for any program"""

    compounds: tuple[ImageCompound, ...]
    build_id: str = ""


class _Strings:
    """The string section while it grows; equal strings are stored once."""

    def __init__(self) -> None:
        self.data = bytearray(b"\0")
        self.known = {"": 0}

    def offset(self, text: str) -> int:
        if text not in self.known:
            raw = text.encode("utf-8", "surrogateescape")
            if b"\0" in raw:
                raise ImageError(f"a string holds a NUL: {text!r}: remove it")
            self.known[text] = len(self.data)
            self.data += raw + b"\0"
        return self.known[text]


class _Tables:
    """The flat tables while they grow."""

    def __init__(self) -> None:
        self.strings = _Strings()
        self.compounds, self.ops, self.patterns = bytearray(), bytearray(), bytearray()
        self.conds, self.paths = bytearray(), bytearray()

    def add(self, compound: ImageCompound) -> None:
        """Add one compound and all that it points to."""
        first_op = len(self.ops) // OP_SIZE
        first_pattern = len(self.patterns) // PATTERN.size
        n_triggers = len(compound.triggers)
        self.compounds += COMPOUND.pack(
            self.strings.offset(compound.name),
            compound.flags,
            compound.guards,
            compound.loop,
            compound.nth,
            compound.min_entries,
            compound.executors,
            first_op,
            len(compound.ops),
            first_pattern,
            n_triggers,
            first_pattern + n_triggers,
            len(compound.serves),
            len(self.paths) // PATH.size,
            len(compound.paths),
            compound.chunk,
            compound.grow,
            compound.miss,
            compound.limit_ops,
            compound.limit_bytes,
            compound.limit_time_ns,
        )
        for op in compound.ops:
            self._op(op)
        for pattern in compound.triggers + compound.serves:
            self.patterns += PATTERN.pack(
                pattern.nr,
                0,
                pattern.flags_allowed,
                pattern.mask_within,
                self.strings.offset(pattern.string),
            )
        for path in compound.paths:
            self.paths += PATH.pack(self.strings.offset(path))

    def _op(self, op: ImageOp) -> None:
        if len(op.args) > MAX_ARGS:
            raise ImageError(f"call {op.nr} has {len(op.args)} arguments, at most {MAX_ARGS} exist")
        first_cond = len(self.conds) // COND.size if op.conds else 0
        self.ops += OP.pack(op.nr, len(op.args), op.flags, first_cond, len(op.conds))
        for arg in op.args:
            text = self.strings.offset(arg.string)
            self.ops += ARG.pack(arg.kind, arg.index, arg.field, text, arg.value)
        self.ops += bytes((MAX_ARGS - len(op.args)) * ARG.size)
        for cond in op.conds:
            self.conds += COND.pack(cond.index, cond.field, cond.relation, 0, 0, cond.value)


def write(image: Image) -> bytes:
    """The image as bytes.

    Raises ImageError when it does not fit the format's limits or a field's width.
    """
    tables = _Tables()
    try:
        for compound in image.compounds:
            tables.add(compound)
    except struct.error as error:
        raise ImageError(f"a value does not fit the image format: {error}") from None
    # Paths last: the other tables' items are multiples of 8 bytes.
    places = []
    at = HEADER.size
    for table, size in (
        (tables.compounds, COMPOUND.size),
        (tables.ops, OP_SIZE),
        (tables.patterns, PATTERN.size),
        (tables.conds, COND.size),
        (tables.paths, PATH.size),
    ):
        places += [len(table) // size, at]
        at += len(table)
    size = at + len(tables.strings.data)
    if size > MAX_SIZE:
        raise ImageError(f"the image would have {size} bytes, at most {MAX_SIZE} are allowed")
    head = HEADER.pack(
        MAGIC,
        size,
        0,
        *places,
        at,
        len(tables.strings.data),
        0,
        bytes.fromhex(image.build_id) if image.build_id else bytes(20),
    )
    body = tables.compounds + tables.ops + tables.patterns + tables.conds + tables.paths
    return seal(head + body + tables.strings.data)


def seal(data: bytes) -> bytes:
    """The same image with its checksum made right."""
    crc = zlib.crc32(data[CRC_FROM:])
    return data[:12] + struct.pack("<I", crc) + data[CRC_FROM:]


class _Reader:
    """The tables of an image whose header was found sound."""

    def __init__(self, data: bytes) -> None:
        if len(data) < HEADER.size:
            raise ImageError(f"cut: {len(data)} bytes are less than a header")
        if len(data) > MAX_SIZE:
            raise ImageError(f"too large: {len(data)} bytes, at most {MAX_SIZE}")
        (
            magic,
            size,
            crc,
            self.n_compounds,
            self.compounds,
            self.n_ops,
            self.ops,
            self.n_patterns,
            self.patterns,
            self.n_conds,
            self.conds,
            self.n_paths,
            self.paths,
            self.strings,
            self.strings_size,
            flags,
            self.build_id,
        ) = HEADER.unpack_from(data)
        if magic != MAGIC:
            raise ImageError("no compound image, or one of another version")
        if size != len(data):
            raise ImageError(f"cut: {len(data)} bytes instead of {size}")
        if crc != zlib.crc32(data[CRC_FROM:]):
            raise ImageError("the checksum is wrong")
        if flags:
            raise ImageError(f"unknown flags {flags:#x}")
        self.data = data
        if self.n_compounds > MAX_COMPOUNDS:
            raise ImageError(f"{self.n_compounds} compounds, at most {MAX_COMPOUNDS}")
        self._table("compounds", self.compounds, self.n_compounds, COMPOUND.size, 8)
        self._table("operations", self.ops, self.n_ops, OP_SIZE, 8)
        self._table("patterns", self.patterns, self.n_patterns, PATTERN.size, 8)
        self._table("conditions", self.conds, self.n_conds, COND.size, 8)
        self._table("paths", self.paths, self.n_paths, PATH.size, 8)
        self._table("strings", self.strings, self.strings_size, 1, 1)
        last = self.strings + self.strings_size - 1
        if not self.strings_size or data[self.strings] or data[last]:
            raise ImageError("the string section does not start and end with NUL")

    def _table(self, what: str, first: int, count: int, size: int, align: int) -> None:
        if first % align or first < HEADER.size or first + count * size > len(self.data):
            raise ImageError(f"the table of {what} lies outside the file")

    def string(self, offset: int) -> str:
        if offset >= self.strings_size:
            raise ImageError("a string lies outside its section")
        start = self.strings + offset
        return self.data[start : self.data.index(0, start)].decode("utf-8", "surrogateescape")

    def op(self, index: int) -> ImageOp:
        at = self.ops + index * OP_SIZE
        nr, n_args, flags, first_cond, n_conds = OP.unpack_from(self.data, at)
        if n_args > MAX_ARGS:
            raise ImageError(f"an operation has {n_args} arguments")
        if n_conds > MAX_CONDS or first_cond + n_conds > self.n_conds:
            raise ImageError("an operation's conditions lie outside their table")
        if first_cond and not n_conds:
            raise ImageError("an operation without conditions points to some")
        args = []
        for k in range(MAX_ARGS):
            kind, slot, field, string, value = ARG.unpack_from(
                self.data, at + OP.size + k * ARG.size
            )
            if k < n_args:
                args.append(ImageArg(kind, slot, self.string(string), value, field))
            elif kind or slot or field or string or value:
                raise ImageError("an argument behind the last one is set")
        conds = tuple(self.cond(first_cond + k) for k in range(n_conds))
        return ImageOp(nr, tuple(args), flags, conds)

    def cond(self, index: int) -> ImageCond:
        at = self.conds + index * COND.size
        op, field, relation, reserved, reserved2, value = COND.unpack_from(self.data, at)
        if reserved or reserved2:
            raise ImageError("a reserved field of a condition is set")
        return ImageCond(op, field, relation, value)

    def path(self, index: int) -> str:
        return self.string(PATH.unpack_from(self.data, self.paths + index * PATH.size)[0])

    def pattern(self, index: int) -> ImagePattern:
        nr, reserved, flags, mask, string = PATTERN.unpack_from(
            self.data, self.patterns + index * PATTERN.size
        )
        if reserved:
            raise ImageError("a reserved field of a pattern is set")
        return ImagePattern(nr, flags, mask, self.string(string))

    def compound(self, index: int) -> ImageCompound:
        fields = COMPOUND.unpack_from(self.data, self.compounds + index * COMPOUND.size)
        name, flags, guards, loop, nth, min_entries, executors = fields[:7]
        first_op, n_ops, first_trigger, n_triggers, first_serve, n_serve = fields[7:13]
        first_path, n_paths, chunk, grow, miss = fields[13:18]
        limit_ops, limit_bytes, limit_time_ns = fields[18:]
        if n_paths > MAX_PATHS or first_path + n_paths > self.n_paths:
            raise ImageError("a compound's paths lie outside their table")
        if n_ops > MAX_OPS or first_op + n_ops > self.n_ops:
            raise ImageError("a compound's operations lie outside their table")
        if n_triggers + n_serve > MAX_PATTERNS:
            raise ImageError(f"a compound has more than {MAX_PATTERNS} patterns")
        for first, count in ((first_trigger, n_triggers), (first_serve, n_serve)):
            if first + count > self.n_patterns:
                raise ImageError("a compound's patterns lie outside their table")
        return ImageCompound(
            self.string(name),
            flags,
            guards,
            loop,
            nth,
            min_entries,
            executors,
            tuple(self.op(first_op + k) for k in range(n_ops)),
            tuple(self.pattern(first_trigger + k) for k in range(n_triggers)),
            tuple(self.pattern(first_serve + k) for k in range(n_serve)),
            limit_ops,
            limit_bytes,
            limit_time_ns,
            tuple(self.path(first_path + k) for k in range(n_paths)),
            chunk,
            grow,
            miss,
        )


def read(data: bytes) -> Image:
    """The image that these bytes hold.

    Raises ImageError when any offset, count, reserved field or the checksum is wrong.
    """
    reader = _Reader(data)
    build_id = reader.build_id.hex() if any(reader.build_id) else ""
    return Image(tuple(reader.compound(k) for k in range(reader.n_compounds)), build_id)
