# SPDX-License-Identifier: MIT
"""Calls the pinned eBPF programs as the shim does: BPF_OBJ_GET, then BPF_PROG_RUN."""

from __future__ import annotations

import ctypes
import os
import struct
from dataclasses import dataclass, field

SYS_BPF = 321
BPF_OBJ_GET = 7
BPF_PROG_RUN = 10
ABI = 2
SIZES = {"dirscan_small": 4096, "dirscan_large": 65528}
PIN_DIR = "/sys/fs/bpf/cosy"

OK, BADFD, NOTDIR, FS, IDMAP, USERNS, PERM, FULL, MOVED, LIMIT, WATCHED, BUSY, ABI_MISMATCH = range(
    13
)
DIR_COMPLETE = 0x1
DECLINE, XATTR_NONE, ATIME_STABLE, ATTR_PLAIN = 0x1, 0x2, 0x4, 0x8
SB_ACL = 0x1
BELOW = 1
NO_PARENT = 0xFFFFFFFF

RUN = struct.Struct("<IiII IIII IIIIII Q")
DIR = struct.Struct("<IIIIQ")
CHILD = struct.Struct("<QQQqqqIIIIIIIHBB")
assert (RUN.size, DIR.size, CHILD.size) == (64, 24, 80)

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Child:
    """One struct cosy_bpf_child; times in nanoseconds."""

    name: bytes
    offset: int  # of the record in data[]
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
class Block:
    """One struct cosy_bpf_dir with its children."""

    parent: int
    flags: int
    ino: int
    children: list[Child]

    @property
    def by_name(self) -> dict[bytes, Child]:
        """Children by name; a name that is there twice is an error of the program."""
        found = {child.name: child for child in self.children}
        assert len(found) == len(self.children)
        return found


@dataclass(frozen=True)
class Result:
    """What one BPF_PROG_RUN returned."""

    status: int
    seen: int
    dev: int
    blksize: int
    mnt_id: int
    sb_flags: int
    dir_ino: int
    blocks: list[Block] = field(default_factory=list)

    @property
    def root(self) -> Block:
        """The directory that was asked for."""
        return self.blocks[0]


def bpf(command: int, attr: bytes | ctypes.Array[ctypes.c_char]) -> int:
    """The system call; raises OSError."""
    result: int = _libc.syscall(SYS_BPF, command, attr, len(attr))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def open_pin(name: str, file_flags: int = 0) -> int:
    """BPF_OBJ_GET of a pinned program."""
    path = ctypes.create_string_buffer(f"{PIN_DIR}/{name}".encode())
    return bpf(BPF_OBJ_GET, struct.pack("<QII", ctypes.addressof(path), 0, file_flags))


class Program:
    """One program, by its descriptor; it is closed with the object."""

    def __init__(self, name: str, fd: int) -> None:
        self.size = SIZES[name]
        self.fd = fd
        self.context = ctypes.create_string_buffer(self.size)

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    def run_raw(
        self, fd: int, *, skip: int = 0, depth: int = 0, abi: int = ABI, flags: int = 0
    ) -> bytes:
        """The whole context behind one run. What was there before stays where nothing is put."""
        RUN.pack_into(self.context, 0, abi, fd, skip, depth, *[0xDEADBEEF] * 9, flags, 0)
        # prog_fd, retval, data sizes, data, repeat, duration, ctx sizes, ctx_in, ctx_out, ...
        attr = struct.pack(
            "<IIIIQQIIIIQQIIII",
            *[self.fd, 0, 0, 0, 0, 0, 0, 0, self.size, 0],
            *[ctypes.addressof(self.context), 0, 0, 0, 0, 0],
        )
        bpf(BPF_PROG_RUN, attr)
        return self.context.raw

    def run(
        self, fd: int, *, skip: int = 0, depth: int = 0, abi: int = ABI, flags: int = 0
    ) -> Result:
        """One run, parsed; asserts that the blocks are well-formed."""
        return parse(self.run_raw(fd, skip=skip, depth=depth, abi=abi, flags=flags))

    def run_all(self, fd: int) -> Result:
        """The whole directory, resumed as often as it takes."""
        result = self.run(fd)
        children = list(result.root.children) if result.blocks else []
        status, seen = result.status, result.seen
        while status == FULL:
            more = self.run(fd, skip=seen)
            assert more.seen > seen
            children += more.root.children
            status, seen = more.status, more.seen
        blocks = [Block(NO_PARENT, 0, result.dir_ino, children)] if result.blocks else []
        return Result(**{**vars(result), "status": status, "seen": seen, "blocks": blocks})


def parse(context: bytes) -> Result:
    """Context bytes to Python, every length checked against every other."""
    fields = RUN.unpack_from(context)
    status, used, n_dirs, n_children, seen = fields[4:9]
    dev, blksize, mnt_id, sb_flags, flags, dir_ino = fields[9:15]
    if status == ABI_MISMATCH or n_dirs == 0:
        assert used == 0
        return Result(status, seen, dev, blksize, mnt_id, sb_flags, dir_ino)
    data = context[RUN.size : RUN.size + used]
    assert len(data) == used
    blocks: list[Block] = []
    offsets: dict[int, Child] = {}
    at = 0
    for _ in range(n_dirs):
        n, length, parent, block_flags, ino = DIR.unpack_from(data, at)
        end, at = at + length, at + DIR.size
        children = []
        for _ in range(n):
            child = _parse_child(data, at)
            offsets[at] = child
            children.append(child)
            at += CHILD.size + (len(child.name) + 7) // 8 * 8
        assert at == end
        if flags & BELOW:
            assert parent == NO_PARENT
            assert blocks or not children
        else:
            assert (parent == NO_PARENT) == (not blocks)
        assert parent == NO_PARENT or offsets[parent].mode & 0o170000 == 0o040000
        assert parent == NO_PARENT or offsets[parent].ino == ino
        blocks.append(Block(parent, block_flags, ino, children))
    assert at == used
    assert sum(len(block.children) for block in blocks) == n_children
    return Result(status, seen, dev, blksize, mnt_id, sb_flags, dir_ino, blocks)


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
    return Child(name, at, ino, size, blocks, *times, nlink, uid, gid, rdev, mode, flags)
