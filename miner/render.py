# SPDX-License-Identifier: MIT
"""Calls and motifs as text: a recorded call as strace prints it, a body call by its provenance."""

from __future__ import annotations

import errno
from collections.abc import Sequence

from miner.events import NO_RET, Events
from miner.joins import AT_FDCWD
from miner.motifs import Arg, ArgKind, Call
from tracer import syscalls

_K = syscalls.ArgKind

# include/uapi/linux/fcntl.h, asm-generic/fcntl.h
_AT_FLAGS = {
    0x100: "AT_SYMLINK_NOFOLLOW",
    0x200: "AT_REMOVEDIR",
    0x400: "AT_SYMLINK_FOLLOW",
    0x800: "AT_NO_AUTOMOUNT",
    0x1000: "AT_EMPTY_PATH",
    0x2000: "AT_STATX_FORCE_SYNC",
    0x4000: "AT_STATX_DONT_SYNC",
}
_OPEN_FLAGS = {
    0o100: "O_CREAT",
    0o200: "O_EXCL",
    0o400: "O_NOCTTY",
    0o1000: "O_TRUNC",
    0o2000: "O_APPEND",
    0o4000: "O_NONBLOCK",
    0o40000: "O_DIRECT",
    0o100000: "O_LARGEFILE",
    0o200000: "O_DIRECTORY",
    0o400000: "O_NOFOLLOW",
    0o1000000: "O_NOATIME",
    0o2000000: "O_CLOEXEC",
    0o10000000: "O_PATH",
}
_ACCESS_MODES = ["O_RDONLY", "O_WRONLY", "O_RDWR"]
_FLAGS_SHOWN = 0.02  # of the calls that a value must make up to be shown
_OUTPUTS = {_K.BUF_OUT, _K.IOV_OUT, _K.STAT_OUT, _K.STATX_OUT, _K.DIRENTS_OUT}


def flag_names(kind: syscalls.ArgKind, value: int) -> str:
    """A flags argument by name, as strace prints it."""
    names: list[str] = []
    table: dict[int, str] = {}
    if kind is _K.AT_FLAGS:
        table = _AT_FLAGS
    elif kind is _K.OPEN_FLAGS and value & 3 < 3:
        table, names, value = _OPEN_FLAGS, [_ACCESS_MODES[value & 3]], value & ~3
    for bit, name in table.items():
        if value & bit:
            names.append(name)
            value &= ~bit
    if value or not names:
        names.append(hex(value) if value else "0")
    return "|".join(names)


def _number(value: int) -> str:
    return str(value) if value < 1 << 16 else hex(value)


def call_line(events: Events, i: int) -> str:
    """Event `i` in strace's notation; what the dataset does not hold is `...`."""
    nr = int(events.nr[i])
    entry = syscalls.by_nr().get(nr)
    kinds: Sequence[syscalls.ArgKind] = entry.args if entry else ()
    strings = [s[i] for s in (events.path, events.path2) if s.codes[i] >= 0]
    parts = []
    for kind, value in zip(kinds, events.args[i].tolist(), strict=False):
        fd = (value + (1 << 31)) % (1 << 32) - (1 << 31)
        if kind in (_K.PATH, _K.PATH2, _K.NAME, _K.STR):
            parts.append(f'"{strings.pop(0)}"' if strings else "...")
        elif kind in (_K.FD, _K.DIRFD):
            parts.append("AT_FDCWD" if fd == AT_FDCWD else str(fd))
        elif kind in (_K.AT_FLAGS, _K.OPEN_FLAGS):
            parts.append(flag_names(kind, value & 0xFFFFFFFF))
        elif kind in _OUTPUTS or kind in (_K.BUF_IN, _K.IOV_IN, _K.PTR):
            parts.append("..." if value else "NULL")
        else:
            parts.append(_number(value))
    ret = int(events.ret[i])
    if ret == NO_RET:
        result = "?"
    elif -4095 <= ret < 0:
        result = f"-1 {errno.errorcode.get(-ret, -ret)}"
    else:
        result = _number(ret)
    return f"{syscalls.name_of(nr)}({', '.join(parts)}) = {result}"


def _argument(arg: Arg, kind: syscalls.ArgKind) -> str:
    if arg.kind is ArgKind.CONST and arg.value is not None:
        if kind in (_K.AT_FLAGS, _K.OPEN_FLAGS):
            return flag_names(kind, arg.value)
        if kind in (_K.FD, _K.DIRFD) and arg.value == AT_FDCWD:
            return "AT_FDCWD"
        if kind is _K.STATX_MASK:
            return hex(arg.value)
        return "NULL" if kind in _OUTPUTS else _number(arg.value)
    words = {
        ArgKind.STRING: f'"{arg.text}"',
        ArgKind.DIR: "D",
        ArgKind.NAME: "e.name",
        ArgKind.PATH: "D/e.name",
        ArgKind.FILE: "F" if arg.field is None else arg.field,
        ArgKind.ITEM: "p",
        ArgKind.NEXT: "&next",
        ArgKind.OUT: "&out",
        ArgKind.RESULT: f"r{arg.call}",
        ArgKind.FIELD: f"r{arg.call}.{arg.field}" + (f"+{arg.value}" if arg.value else ""),
        ArgKind.SAME: f"r{arg.call}.{arg.field}",
        ArgKind.STAT: f"s.{arg.field}",
    }
    return words.get(arg.kind, "p2" if kind is _K.PATH2 else "?")


def body_line(call: Call) -> str:
    """A call of a motif by its provenance: `newfstatat(D, e.name, AT_SYMLINK_NOFOLLOW)`.

    Output buffers and their sizes say nothing to a reader and are left out.
    """
    entry = syscalls.by_nr().get(call.nr)
    kinds = list(entry.args) if entry else [_K.INT] * 6
    shown = []
    for kind, arg in zip(kinds, call.args, strict=False):
        if kind in _OUTPUTS or arg.kind is ArgKind.NONE:
            continue
        if kind is _K.SIZE and any(k in _OUTPUTS for k in kinds) and arg.kind is not ArgKind.FIELD:
            continue
        if kind in (_K.AT_FLAGS, _K.OPEN_FLAGS) and len(call.flags) > 1:
            often = [f.value for f in call.flags if f.count >= _FLAGS_SHOWN * call.count]
            often = often or [call.flags[0].value]
            shown.append(" or ".join(flag_names(kind, value) for value in often[:3]))
            continue
        shown.append(_argument(arg, kind))
    return f"{call.syscall}({', '.join(shown)})"
