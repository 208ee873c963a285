# SPDX-License-Identifier: MIT
"""System calls that Python's os module lacks, and children with other rights."""

from __future__ import annotations

import ctypes
import os
import pickle
import struct
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

SYS_PTRACE, SYS_OPEN_TREE, SYS_STATX, SYS_MOUNT_SETATTR = 101, 428, 332, 442
AT_FDCWD, AT_SYMLINK_NOFOLLOW = -100, 0x100
CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
MS_BIND, MS_REMOUNT, MS_NOATIME, MS_REC, MS_PRIVATE = 0x1000, 0x20, 0x400, 0x4000, 0x40000
NOBODY = 65534

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
T = TypeVar("T")


def checked(result: int) -> int:
    """The result of a C call, or its errno as OSError."""
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def syscall(number: int, *args: int | bytes | ctypes.Array[ctypes.c_char]) -> int:
    """Any system call; raises OSError."""
    values = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    return checked(_libc.syscall(ctypes.c_long(number), *values))


@dataclass(frozen=True)
class Statx:
    """What the program must agree with, beyond os.stat."""

    attributes: int
    mnt_id: int


def statx(fd: int, name: bytes) -> Statx:
    """statx with STATX_BASIC_STATS | STATX_MNT_ID of a child, links not followed."""
    buffer = ctypes.create_string_buffer(256)
    syscall(SYS_STATX, fd, name, AT_SYMLINK_NOFOLLOW, 0x17FF, buffer)
    (attributes,) = struct.unpack_from("<Q", buffer, 8)
    (mnt_id,) = struct.unpack_from("<Q", buffer, 144)
    return Statx(attributes, mnt_id)


def unshare(flags: int) -> None:
    """New namespaces for this process; mounts stay private to it."""
    checked(_libc.unshare(flags))
    if flags & CLONE_NEWNS:
        mount(None, "/", None, MS_REC | MS_PRIVATE)


def mount(source: str | None, target: str, fstype: str | None, flags: int, data: str = "") -> None:
    """mount(2)."""
    encoded = [None if word is None else word.encode() for word in (source, target, fstype)]
    checked(_libc.mount(*encoded, ctypes.c_ulong(flags), data.encode()))


def seccomp_allow_all() -> None:
    """Puts this process under a filter that lets everything pass."""
    instruction = ctypes.create_string_buffer(struct.pack("<HBBI", 0x06, 0, 0, 0x7FFF0000))
    program = struct.pack("<HxxxxxxQ", 1, ctypes.addressof(instruction))
    checked(_libc.prctl(38, 1, 0, 0, 0))
    checked(_libc.prctl(22, 2, program, 0, 0))


def trace_me() -> None:
    """PTRACE_TRACEME."""
    syscall(SYS_PTRACE, 0, 0, 0, 0)


def become(uid: int) -> None:
    """Drops to a user without groups or capabilities."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def in_child(work: Callable[[], T]) -> T:
    """Runs `work` in a forked process, which may change itself as it likes."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            answer = (True, work())
        except BaseException:
            answer = (False, traceback.format_exc())  # type: ignore[assignment]
        with os.fdopen(writer, "wb") as pipe:
            pickle.dump(answer, pipe)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        data = pipe.read()
    os.waitpid(pid, 0)
    ok, value = pickle.loads(data)
    assert ok, value
    return value  # type: ignore[no-any-return]


def idmapped_directory(path: str) -> int:
    """Descriptor of `path` on a detached mount that maps user 0 to 1000."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        checked(_libc.unshare(CLONE_NEWUSER))
        os.write(writer, b"x")
        os.pause() if hasattr(os, "pause") else ctypes.CDLL(None).pause()
    os.read(reader, 1)
    try:
        for kind in ("uid", "gid"):
            with open(f"/proc/{pid}/{kind}_map", "w") as file:
                file.write("0 1000 1\n")
        namespace = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY)
        tree = syscall(SYS_OPEN_TREE, AT_FDCWD, path.encode(), 0x1 | os.O_CLOEXEC)
        attr = struct.pack("<QQQQ", 0x100000, 0, 0, namespace)
        syscall(SYS_MOUNT_SETATTR, tree, b"", 0x1000, attr, len(attr))
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=tree)
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(reader)
        os.close(writer)
