# SPDX-License-Identifier: MIT
"""The replay against the plainest one: a table for each process, one call at a time."""

from __future__ import annotations

import os
import posixpath
import random
import struct
from os import O_CLOEXEC
from pathlib import Path

import numpy as np
import pytest

from tests.unit.raw_builder import Event, RawBuilder, executed, process, trace
from tests.unit.test_objects import AT_FDCWD, follow
from tracer.events import DONE, NO_RETURN, NR_PROCESS, join
from tracer.syscalls import ArgKind, by_name

FDS = range(3, 9)
CALLS = ("openat", "open", "close", "read", "dup2", "dup3", "dup", "fcntl", "cloexec", "pipe2",
         "socket", "chdir", "fchdir", "close_range", "newfstatat", "ioctl")  # fmt: skip


def random_event(rng: random.Random) -> Event:
    """A call as some program might make it; results need not make sense."""
    fd, other = rng.choice(FDS), rng.choice(FDS)
    dirfd = rng.choice([AT_FDCWD, fd])
    path = rng.choice([b"a", b"b/c", b"/x", b"../up", b"/y//z"])
    cloexec = rng.choice([0, O_CLOEXEC])
    name = rng.choice(CALLS)
    failed = rng.random() < 0.1
    made = {
        "openat": lambda: Event("openat", (dirfd, 0, cloexec), ret=other, path=path),
        "open": lambda: Event("open", (0, cloexec), ret=other, path=path),
        "dup2": lambda: Event("dup2", (fd, other), ret=other),
        "dup3": lambda: Event("dup3", (fd, other, cloexec), ret=other),
        "dup": lambda: Event("dup", (fd,), ret=other),
        "fcntl": lambda: Event("fcntl", (fd, rng.choice([0, 1030, 3]), 3), ret=other),
        "cloexec": lambda: Event("fcntl", (fd, 2, rng.choice([0, 1]))),
        "ioctl": lambda: Event("ioctl", (fd, rng.choice([0x5450, 0x5451, 0x5401]))),
        "pipe2": lambda: Event("pipe2", (0, cloexec), out=struct.pack("<ii", fd, other)),
        "socket": lambda: Event("socket", (1, 1 | cloexec), ret=other),
        "chdir": lambda: Event("chdir", path=path),
        "fchdir": lambda: Event("fchdir", (fd,)),
        "close_range": lambda: Event("close_range", (fd, other, rng.choice([0, 4]))),
        "newfstatat": lambda: Event("newfstatat", (dirfd,), path=path),
    }
    event = made[name]() if name in made else Event(name, (fd,))
    if failed:
        event.ret = -9
    event.dur = rng.randrange(90)
    return event


def joined(base: bytes | None, path: bytes) -> bytes | None:
    """As the kernel would, links aside."""
    if base is None and not path.startswith(b"/"):
        return None
    return posixpath.normpath(os.path.join(base or b"", path))


class Plain:
    """One process's descriptors: the path of each, and whether exec closes it."""

    def __init__(self, table: dict[int, tuple[object, bool]]) -> None:
        self.table = table

    def apply(self, event: Event) -> None:
        """Change the table as the call did."""
        arg = (*event.args, 0, 0, 0)
        table, ret, name = self.table, event.ret, event.nr
        if ret < 0:
            return
        if name in ("openat", "open"):
            dirfd, flags = (arg[0], arg[2]) if name == "openat" else (AT_FDCWD, arg[1])
            base = table.get(dirfd, (None, False))[0]
            assert base is None or isinstance(base, bytes)
            table[ret] = joined(base, event.path), bool(flags & O_CLOEXEC)
        elif name == "socket":
            table[ret] = None, bool(arg[1] & O_CLOEXEC)
        elif name == "pipe2":
            for fd in struct.unpack("<ii", event.out):
                table[fd] = None, bool(arg[1] & O_CLOEXEC)
        elif name == "close":
            table.pop(arg[0], None)
        elif name in ("dup", "dup2", "dup3") and (name != "dup2" or arg[0] != ret):
            self.copy(arg[0], ret, name == "dup3" and bool(arg[2] & O_CLOEXEC))
        elif name == "fcntl" and arg[1] in (0, 1030):
            self.copy(arg[0], ret, arg[1] == 1030)
        elif name == "fcntl" and arg[1] == 2:
            self.copy(arg[0], arg[0], bool(arg[2]))
        elif name == "ioctl" and arg[1] in (0x5450, 0x5451):
            self.copy(arg[0], arg[0], arg[1] == 0x5451)
        elif name == "fchdir":
            self.copy(arg[0], AT_FDCWD, False)
        elif name == "chdir":
            base = table.get(AT_FDCWD, (None, False))[0]
            assert base is None or isinstance(base, bytes)
            table[AT_FDCWD] = joined(base, event.path), False
        elif name == "close_range":
            for fd in [fd for fd in table if arg[0] <= fd <= arg[1]]:
                if arg[2]:
                    self.copy(fd, fd, True)
                else:
                    del table[fd]

    def copy(self, old: int, new: int, cloexec: bool) -> None:
        """Make `new` what `old` is."""
        if old in self.table:
            self.table[new] = self.table[old][0], cloexec
        else:
            self.table.pop(new, None)

    def exec(self) -> None:
        """Close what is marked."""
        self.table = {fd: what for fd, what in self.table.items() if not what[1]}


def wanted(plain: Plain, event: Event) -> object:
    """The path of the first descriptor argument."""
    kinds = by_name()[str(event.nr)].args[:1]
    if event.nr == "close_range" or not set(kinds) & {ArgKind.FD, ArgKind.DIRFD}:
        return None
    return plain.table.get(event.args[0], (None, False))[0]


@pytest.mark.parametrize("seed", range(20))
def test_as_one_call_at_a_time(tmp_path: Path, seed: int) -> None:
    # Three processes, each made by the one before; each execs halfway. No two calls overlap.
    rng = random.Random(seed)
    images: list[RawBuilder] = []
    expected: list[object] = []
    plain = Plain({})
    clock = 1000
    for pid in (10, 11, 12):
        plain.table.setdefault(AT_FDCWD, (b"/home", False))  # as each process says when it starts
        for last in (executed(b"/bin/y"), Event("clone", (0,), flags=DONE | NO_RETURN)):
            events = [process(b"/bin/x", b"x"), *[random_event(rng) for _ in range(60)], last]
            images.append(RawBuilder(pid=pid, tid=pid, ppid=pid - 1, start_tsc=clock))
            images[-1].flushed = [events[:20], events[20:]]
            for event in events:
                event.tsc = clock
                clock += 100
                if event.nr == NR_PROCESS:
                    continue
                expected.append(wanted(plain, event))
                if event is not last:
                    plain.apply(event)
                elif event.nr == "execve":
                    plain.exec()
    raw = trace(tmp_path, *images)
    found = follow(raw)
    assert found.paths() == expected
    assert len(set(expected)) > 4
    again = follow(raw, size=1)
    assert again.of_call.tolist() == found.of_call.tolist()
    assert list(again.objects.paths) == list(found.objects.paths)


def test_in_pieces_as_in_one(tmp_path: Path) -> None:
    # Threads whose calls overlap, in blocks that overlap in time.
    rng = random.Random(1)
    files = []
    for tid in (10, 11, 12):
        events = [random_event(rng) for _ in range(300)]
        for event in events:
            event.tsc, event.dur = rng.randrange(2000, 9000), rng.randrange(500)
        events.sort(key=lambda event: event.tsc or 0)
        blocks = [events[at : at + 10] for at in range(0, len(events), 10)]
        files.append(RawBuilder(pid=10, tid=tid, start_tsc=1000 + tid, flushed=blocks))
    files[0].flushed.insert(0, [process(b"/bin/x", b"x")])
    files[0].flushed[0][0].tsc = 1005
    raw = trace(tmp_path, *files)
    whole, pieces = (join(list(raw.chunks(size))) for size in (10**6, 1))
    assert len(whole) == 900
    assert (np.diff(whole.tsc.astype(np.int64)) >= 0).all()
    for one, other in ((whole.words, pieces.words), (whole.thread, pieces.thread)):
        assert (one == other).all()
    assert whole.texts() == pieces.texts()
    one, other = (follow(raw, size=size) for size in (10**6, 1))
    assert one.paths() == other.paths()
    assert list(one.objects.paths) == list(other.objects.paths)
    assert one.kinds() == other.kinds()
