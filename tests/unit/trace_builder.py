# SPDX-License-Identifier: MIT
"""Trace datasets for tests: programs that walk a tree, call for call as strace shows the real ones.

The sequences follow coreutils 9.1, findutils 4.9 and tar 1.34 on Debian 12.
"""

from __future__ import annotations

import posixpath
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from tracer import syscalls
from tracer.dataset import EVENTS, OBJECTS, PROCESSES, ROW_GROUP, Writer
from tracer.syscalls import ArgKind

AT_FDCWD = 2**64 - 100
NOFOLLOW, EMPTY_PATH = 0x100, 0x1000
DIR, REG, LNK = 4, 8, 10
MODES = {DIR: 0o040755, REG: 0o100644, LNK: 0o120777}
F_GETFL, F_SETFD, F_DUPFD_CLOEXEC = 3, 2, 1030
ENODATA = 61
START_NS = 1_000_000_000

Tree = dict[str, Any]
"""Name to Tree (directory), None (file) or str (symbolic link)."""


def fnv(name: str, kind: int) -> int:
    """The hash of one entry as cosy_trace.h defines it."""
    value = 2166136261
    for octet in name.encode():
        value = ((value ^ octet) * 16777619) & 0xFFFFFFFF
    return (value & ~15) | kind


def kind_of(node: Any) -> int:
    """DT_* of a tree's node."""
    return DIR if isinstance(node, dict) else LNK if isinstance(node, str) else REG


def random_tree(rng: random.Random, depth: int = 3, width: int = 8) -> Tree:
    """Directories of up to `width` files, links and sub-directories."""
    tree: Tree = {}
    for i in range(rng.randrange(width + 1)):
        tree[f"file{i}"] = None
    for i in range(rng.randrange(3)):
        tree[f"link{i}"] = "file0"
    if depth:
        for i in range(rng.randrange(4) or 1):
            tree[f"dir{i}"] = random_tree(rng, depth - 1, width)
    names = list(tree)
    rng.shuffle(names)
    return {name: tree[name] for name in names}


def count(tree: Tree, *kinds: int) -> int:
    """Nodes of these kinds below `tree`, without itself."""
    below = sum(count(n, *kinds) for n in tree.values() if isinstance(n, dict))
    return below + sum(kind_of(n) in kinds for n in tree.values())


class Program:
    """One process that makes calls; each method is a generator that yields between calls."""

    def __init__(self, builder: TraceBuilder, pid: int, cwd: str, tid: int | None = None) -> None:
        self.builder, self.pid, self.tid = builder, pid, tid or pid
        self.fds: dict[int, int] = {}  # descriptor to object
        self.cwd = builder.new_object("directory", cwd)

    def thread(self, tid: int) -> Program:
        """Another thread: the same descriptors."""
        other = Program(self.builder, self.pid, "/", tid)
        other.fds, other.cwd = self.fds, self.cwd
        return other

    def object_of(self, fd: int) -> int | None:
        return self.cwd if fd == AT_FDCWD else self.fds.get(fd)

    def free_fd(self) -> int:
        return next(i for i in range(3, 4096) if i not in self.fds)

    def call(self, name: str, *args: int, ret: int = 0, **more: Any) -> int:
        kinds = syscalls.by_name()[name].args
        fds = [i for i, k in enumerate(kinds) if k in (ArgKind.FD, ArgKind.DIRFD)]
        if fds and "object_id" not in more:
            more["object_id"] = self.object_of(args[fds[0]])
        self.builder.add(self, name, args, ret, **more)
        return ret

    def open(self, dirfd: int, path: str, flags: int = 0, kind: str = "directory") -> int:
        fd = self.call("openat", dirfd, 0, flags, path=path, ret=self.free_fd())
        base = self.builder.objects[self.object_of(dirfd) or 0]["path"]
        row = len(self.builder.rows) - 1
        self.fds[fd] = self.builder.new_object(kind, posixpath.join(base, path), row)
        return fd

    def close(self, fd: int) -> None:
        self.call("close", fd)
        self.fds.pop(fd, None)

    def dup(self, fd: int) -> int:
        new = self.call("fcntl", fd, F_DUPFD_CLOEXEC, 3, ret=self.free_fd())
        self.fds[new] = self.fds[fd]
        return new

    def stat(self, dirfd: int, path: str, kind: int, flags: int = NOFOLLOW) -> None:
        out = {"st_mode": MODES[kind], "st_size": 4 if kind == LNK else 100, "st_ino": 1}
        self.call("newfstatat", dirfd, 0, 0x7000, flags, path=path, bytes_out=144, **out)

    def fstat(self, fd: int, kind: int = DIR) -> None:
        self.stat(fd, "", kind, EMPTY_PATH)

    def getdents(self, fd: int, tree: Tree) -> None:
        names = [fnv(name, kind_of(node)) for name, node in tree.items()]
        size = 24 * len(names) + 48
        self.call("getdents64", fd, 0, 32768, ret=size, names=names, bytes_out=size)

    def end_of_dir(self, fd: int) -> None:
        self.call("getdents64", fd, 0, 32768, ret=0, names=[])

    # --- the real programs -----------------------------------------------

    def fts_enter(self, dirfd: int, name: str, tree: Tree) -> int:
        """Open and read a directory as gnulib's fts does; returns the descriptor that stays."""
        fd = self.open(dirfd, name, 0xB0900)
        self.fstat(fd)
        self.call("fcntl", fd, F_GETFL, ret=0x38800)
        self.call("fcntl", fd, F_SETFD, 1)
        self.stat(dirfd, name, DIR)
        kept = self.dup(fd)
        self.getdents(fd, tree)
        self.end_of_dir(fd)
        self.close(fd)
        return kept

    def du(self, dirfd: int, name: str, tree: Tree, stat_files: bool = True) -> Iterator[None]:
        """`du -s` and `find -size`; without stat_files `find -name`."""
        self.stat(dirfd, name, DIR)
        fd = self.fts_enter(dirfd, name, tree)
        for child, node in tree.items():
            yield
            if isinstance(node, dict):
                yield from self.du(fd, child, node, stat_files)
            elif stat_files:
                self.stat(fd, child, kind_of(node))
        self.close(fd)

    def tar(self, dirfd: int, name: str, tree: Tree) -> Iterator[None]:
        """`tar cf /dev/null`: every file twice, sub-directories as they come."""
        self.stat(dirfd, name, DIR)
        fd = self.open(dirfd, name, 0xA0900)
        self.fstat(fd)
        self.fstat(fd)
        self.getdents(fd, tree)
        self.end_of_dir(fd)
        for child, node in tree.items():
            yield
            if isinstance(node, dict):
                yield from self.tar(fd, child, node)
                continue
            self.stat(fd, child, kind_of(node))
            if isinstance(node, str):
                size = {"bytes_out": 4, "ret": 4}
                self.call("readlinkat", fd, 0, 0x5000, 5, path=child, **size)
            else:
                self.stat(fd, child, REG)
        self.fstat(fd)
        self.close(fd)

    def ls_one(self, path: str, kind: int) -> None:
        out = {"st_mode": MODES[kind], "st_size": 4 if kind == LNK else 100, "st_ino": 1}
        flags = NOFOLLOW | 0x800
        self.call("statx", AT_FDCWD, 0, flags, 0x25E, 0x7000, path=path, bytes_out=256, **out)
        self.getxattr("lgetxattr", path, "security.selinux", 255)
        if kind == LNK:
            self.call("readlink", 0, 0x5000, 5, path=path, ret=4, bytes_out=4)
            return
        self.getxattr("getxattr", path, "system.posix_acl_access", 0)
        if kind == DIR:
            self.getxattr("getxattr", path, "system.posix_acl_default", 0)

    def getxattr(self, call: str, path: str, name: str, size: int) -> None:
        self.call(call, 0, 0, 0x6000 if size else 0, size, path=path, path2=name, ret=-ENODATA)

    def ls(self, path: str, tree: Tree) -> Iterator[None]:
        """`ls -lR`: a whole directory first, then its sub-directories."""
        fd = self.open(AT_FDCWD, path, 0x90800)
        self.fstat(fd)
        self.getdents(fd, tree)
        for child, node in tree.items():
            self.ls_one(f"{path}/{child}", kind_of(node))
            yield
        self.end_of_dir(fd)
        self.close(fd)
        for child, node in sorted(tree.items()):
            if isinstance(node, dict):
                yield from self.ls(f"{path}/{child}", node)

    def grep(self, dirfd: int, name: str, tree: Tree) -> Iterator[None]:
        """`grep -r`: fts, and each file opened, read to its end and closed."""
        self.stat(dirfd, name, DIR)
        fd = self.fts_enter(dirfd, name, tree)
        for child, node in tree.items():
            yield
            if isinstance(node, dict):
                yield from self.grep(fd, child, node)
            elif node is None:
                file = self.open(fd, child, 0x20900, "file")
                self.fstat(file, REG)
                self.call("read", file, 0x8000, 98304, ret=100, bytes_out=100)
                self.call("read", file, 0x8000, 98304, ret=0)
                self.close(file)
        self.close(fd)

    def noise(self, rng: random.Random, calls: int) -> Iterator[None]:
        """Calls that belong to no loop."""
        for _ in range(calls):
            name = rng.choice(["mprotect", "getpid", "brk", "write", "newfstatat", "futex"])
            if name == "newfstatat":
                self.stat(AT_FDCWD, f"/etc/conf{rng.randrange(50)}", REG, 0)
            elif name == "write":
                self.call("write", 1, 0x9000, 80, ret=80, bytes_in=80)
            else:
                self.call(name, rng.randrange(1 << 20), rng.randrange(4096))
            yield


class TraceBuilder:
    """Collects events and writes the dataset of docs/architecture.md."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.processes: list[dict[str, Any]] = []
        self.objects: list[dict[str, Any]] = []
        self.now_ns = START_NS
        self.lost_events = 0

    def program(self, exe: str, cwd: str = "/home/user", pid: int | None = None) -> Program:
        pid = pid or 1000 + len(self.processes)
        self.processes.append(
            {
                "pid": pid,
                "ppid": 1,
                "exe": exe,
                "build_id": f"{pid:040x}",
                "argv": [exe],
                "cwd": cwd,
                "start_ns": self.now_ns,
                "exit": 0,
            }
        )
        return Program(self, pid, cwd)

    def new_object(self, kind: str, path: str, event: int | None = None) -> int:
        self.objects.append({"kind": kind, "path": path, "event": event})
        return len(self.objects) - 1

    def add(
        self,
        program: Program,
        name: str,
        args: tuple[int, ...],
        ret: int,
        dur_ns: int = 1000,
        **more: Any,
    ) -> None:
        """One call; times advance by its duration and 100 ns of user time."""
        row: dict[str, Any] = {
            "t_ns": self.now_ns,
            "dur_ns": dur_ns,
            "pid": program.pid,
            "tid": program.tid,
            "nr": syscalls.by_name()[name].nr,
            **{f"a{i}": (args[i] if i < len(args) else 0) % 2**64 for i in range(6)},
            "ret": ret,
            "path": None,
            "path2": None,
            "bytes_in": len(more.get("path") or ""),
            "bytes_out": 0,
            "site": "libc.so.6+0x1000",
            "object_id": None,
            "names": None,
            "st_mode": None,
            "st_size": None,
            "st_ino": None,
        }
        self.rows.append(row | more)
        self.now_ns += dur_ns + 100

    def write(self, path: Path, row_group: int = ROW_GROUP, **more_meta: Any) -> Path:
        """Write the dataset with so many events in a row group, return its path."""
        path.parent.mkdir(exist_ok=True)
        known = [
            {"object_id": i, "dev": None, "ino": None, **o} for i, o in enumerate(self.objects)
        ]
        events = pa.Table.from_pylist(self.rows, EVENTS)
        processes = pa.Table.from_pylist(self.processes, PROCESSES)
        objects = pa.Table.from_pylist(known, OBJECTS)
        meta = {
            "backend": "shim",
            "kernel": "6.1",
            "clock": "CLOCK_MONOTONIC",
            "lost_events": self.lost_events,
            "command": ["test"],
            "recorded": "2026-01-01T00:00:00Z",
            "wall_ns": self.now_ns - START_NS,
            "tool_version": "0",
            **more_meta,
        }
        with Writer(path, row_group=row_group) as writer:
            writer.write_events(events)
            writer.finish(processes, objects, meta)
        return path


def run(*parts: Iterator[None], rng: random.Random | None = None) -> None:
    """Run generators to their end: one after the other, or interleaved at random with `rng`."""
    live = list(parts)
    while live:
        part = rng.choice(live) if rng else live[0]
        if next(part, StopIteration) is StopIteration:
            live.remove(part)
