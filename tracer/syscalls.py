# SPDX-License-Identifier: MIT
"""The system call table of syscalls.toml, by number and by name."""

from __future__ import annotations

import enum
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal


class SyscallClass(enum.StrEnum):
    """What a call may change and what it may tell; syscalls.toml says more."""

    UNKNOWN = "unknown"
    PURE = "pure"
    POSITIONAL = "positional"
    MUTATING = "mutating"
    SYNC = "sync"
    PROCESS = "process"


class ArgKind(enum.StrEnum):
    """What one argument of a call means; syscalls.toml says more."""

    FD = "fd"
    DIRFD = "dirfd"
    PATH = "path"
    PATH2 = "path2"
    NAME = "name"
    STR = "str"
    FLAGS = "flags"
    AT_FLAGS = "at_flags"
    OPEN_FLAGS = "open_flags"
    STATX_MASK = "statx_mask"
    MODE = "mode"
    SIZE = "size"
    OFFSET = "offset"
    COUNT = "count"
    BUF_IN = "buf_in"
    BUF_OUT = "buf_out"
    IOV_IN = "iov_in"
    IOV_OUT = "iov_out"
    STAT_OUT = "stat_out"
    STATX_OUT = "statx_out"
    DIRENTS_OUT = "dirents_out"
    PTR = "ptr"
    PID = "pid"
    SIG = "sig"
    INT = "int"
    CMD = "cmd"
    DEV = "dev"


@dataclass(frozen=True, slots=True)
class Syscall:
    """One system call of x86-64."""

    nr: int
    name: str
    cls: SyscallClass
    args: tuple[ArgKind, ...]
    returns_fd: bool
    moves: Literal["in", "out"] | None
    """The return value counts bytes into or out of the kernel that no argument shows."""

    def index(self, *kinds: ArgKind) -> int | None:
        """Return the position of the first argument of one of these kinds."""
        return next((i for i, kind in enumerate(self.args) if kind in kinds), None)


@cache
def by_name() -> Mapping[str, Syscall]:
    """Return every call of the table by its name, in the order of the numbers."""
    with Path(__file__).with_name("syscalls.toml").open("rb") as file:
        calls = tomllib.load(file)["calls"]
    return {
        name: Syscall(
            nr=call["nr"],
            name=name,
            cls=SyscallClass(call["class"]),
            args=tuple(ArgKind(kind) for kind in call["args"]),
            returns_fd=call.get("returns_fd", False),
            moves=call.get("moves"),
        )
        for name, call in calls.items()
    }


@cache
def by_nr() -> Mapping[int, Syscall]:
    """Return every call of the table by its number."""
    return {call.nr: call for call in by_name().values()}


def name_of(nr: int) -> str:
    """Return the name of call number `nr`, or `syscall_NR` when it has none."""
    call = by_nr().get(nr)
    return call.name if call else f"syscall_{nr}"
