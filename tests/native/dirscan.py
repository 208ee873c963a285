# SPDX-License-Identifier: MIT
"""Calls the eBPF executor as the shim does: memory registered once, then prctl()."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from dataclasses import dataclass

from tests.native.linux_calls import syscall

SYS_BPF, SYS_PRCTL, SYS_PIDFD_OPEN = 321, 157, 434
BPF_MAP_UPDATE_ELEM, BPF_OBJ_GET = 2, 7
OPTION = 0x436F7303
PAGES, PAGE = 10, 4096
PIN_DIR = "/sys/fs/bpf/cosy"
PINS = ("buffers", "dirscan")

OK, BADFD, NOTDIR, FS, IDMAP, USERNS, PERM, FULL, MOVED, LIMIT, WATCHED, NOT_RUN = range(12)
DECLINE, XATTR_NONE, ATIME_STABLE, ATTR_PLAIN = 0x1, 0x2, 0x4, 0x8
SB_ACL = 0x1

RUN = struct.Struct("<QIIIIIIQI10HQ56x")
CHILD = struct.Struct("<QQQqqqIIIIIIIHBB")
assert (RUN.size, CHILD.size) == (128, 80)


@dataclass(frozen=True)
class Child:
    """One struct cosy_bpf_child; times in nanoseconds."""

    name: bytes
    ino: int
    size: int
    blocks: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    mode: int
    flags: int


@dataclass(frozen=True)
class Result:
    """What one run, or several in a row, told."""

    status: int
    seen: int
    dev: int
    blksize: int
    mnt_id: int
    sb_flags: int
    dir_ino: int
    children: list[Child]

    @property
    def by_name(self) -> dict[bytes, Child]:
        """Children by name; a name that is there twice is an error of the program."""
        found = {child.name: child for child in self.children}
        assert len(found) == len(self.children)
        return found


def bpf(command: int, attr: bytes) -> int:
    """The system call; raises OSError."""
    return syscall(SYS_BPF, command, attr, len(attr))


def open_pin(name: str, file_flags: int = 0) -> int:
    """BPF_OBJ_GET of what is pinned under this name."""
    path = ctypes.create_string_buffer(f"{PIN_DIR}/{name}".encode())
    return bpf(BPF_OBJ_GET, struct.pack("<QII", ctypes.addressof(path), 0, file_flags))


class Memory:
    """One struct cosy_bpf_run and its pages: what a thread registers."""

    def __init__(self, cookie: int | None = None) -> None:
        self.bytes = mmap.mmap(-1, PAGE * (1 + PAGES), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.bytes))
        self.cookie = int.from_bytes(os.urandom(8)) | 1 if cookie is None else cookie

    def register(self, map_fd: int, tid: int) -> None:
        """Makes it the memory of thread group leader `tid`."""
        key = ctypes.c_int(syscall(SYS_PIDFD_OPEN, tid, 0))
        value = (ctypes.c_uint64 * (1 + PAGES))(
            *(self.address + i * PAGE for i in range(1 + PAGES))
        )
        addresses = [ctypes.addressof(key), ctypes.addressof(value)]
        try:
            bpf(BPF_MAP_UPDATE_ELEM, struct.pack("<IIQQQ", map_fd, 0, *addresses, 0))
        finally:
            os.close(key.value)

    def clear(self, byte: int = 0xA5) -> None:
        """As before a run; what is not written stays visible."""
        self.bytes[:] = bytes([byte]) * len(self.bytes)
        RUN.pack_into(self.bytes, 0, self.cookie, NOT_RUN, *[0] * 18)


class Program:
    """The executor, for the calling process; a child registers memory of its own."""

    def __init__(self, map_fd: int) -> None:
        self.map_fd = map_fd
        self.pid = 0
        self.memory = Memory()

    def register(self) -> None:
        """Memory of this process; done by the first run."""
        self.memory = Memory()
        self.memory.register(self.map_fd, os.getpid())
        self.pid = os.getpid()

    def run_raw(self, fd: int, *, skip: int = 0, option: int = OPTION) -> bytes:
        """The memory behind one run."""
        if self.pid != os.getpid():
            self.register()
        self.memory.clear()
        try:
            syscall(SYS_PRCTL, option, self.memory.cookie, fd, skip, 0)
        except OSError as error:
            assert error.errno == 22
        else:
            raise AssertionError("prctl must fail as ever")
        return self.memory.bytes[:]

    def run(self, fd: int, *, skip: int = 0, option: int = OPTION) -> Result:
        """One run, parsed; asserts that all is well-formed."""
        return parse(self.run_raw(fd, skip=skip, option=option))

    def run_all(self, fd: int) -> Result:
        """The whole directory, resumed as often as it takes."""
        result = self.run(fd)
        children, status, seen = list(result.children), result.status, result.seen
        while status in (FULL, LIMIT):
            more = self.run(fd, skip=seen)
            assert more.seen > seen
            children += more.children
            status, seen = more.status, more.seen
        return Result(**{**vars(result), "status": status, "seen": seen, "children": children})


def parse(memory: bytes) -> Result:
    """Memory to Python, every length checked against every other."""
    _, status, n, seen, dev, blksize, mnt_id, dir_ino, sb_flags, *used, _ = RUN.unpack_from(memory)
    children: list[Child] = []
    for i, length in enumerate(used):
        data = memory[PAGE * (i + 1) :][:length]
        assert len(data) == length
        at = 0
        while at < length:
            children.append(_parse_child(data, at))
            at += CHILD.size + (len(children[-1].name) + 7) // 8 * 8
        assert at == length
    assert len(children) == n
    return Result(status, seen, dev, blksize, mnt_id, sb_flags, dir_ino, children)


def _parse_child(data: bytes, at: int) -> Child:
    ino, size, blocks, asec, msec, csec, *rest = CHILD.unpack_from(data, at)
    ansec, mnsec, cnsec, nlink, uid, gid, rdev, mode, flags, namelen = rest
    name_at = at + CHILD.size
    padded = data[name_at : name_at + (namelen + 7) // 8 * 8]
    assert 0 < namelen <= len(padded)
    assert not padded[namelen:].strip(b"\0")
    second = 1_000_000_000
    times = (asec * second + ansec, msec * second + mnsec, csec * second + cnsec)
    name = padded[:namelen]
    assert b"/" not in name
    return Child(name, ino, size, blocks, *times, nlink, uid, gid, rdev, mode, flags)
