# SPDX-License-Identifier: MIT
"""The replay of descriptor tables: which object every descriptor argument means."""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass
from os import O_CLOEXEC, O_DIRECTORY
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tests.unit.raw_builder import Event, RawBuilder, executed, process, trace
from tracer import processes
from tracer.descriptors import KINDS, Object, inherited, kind_of_mode
from tracer.events import DONE, NO_RETURN
from tracer.objects import Objects
from tracer.timeline import RawTrace

AT_FDCWD = -100
CLONE_THREAD = 0x10000


def opened(path: bytes, fd: int, flags: int = 0, dirfd: int = AT_FDCWD, **more: int) -> Event:
    return Event("openat", (dirfd, 0, flags), ret=fd, path=path, **more)


def fork(tsc: int, flags: int = 0) -> Event:
    return Event("clone", (flags,), flags=DONE | NO_RETURN, tsc=tsc)


@dataclass
class Found:
    """What a replay found."""

    objects: Objects
    of_call: npt.NDArray[np.int32]
    """By row of the trace."""

    def paths(self) -> list[bytes | None]:
        """Call by call, the path of its descriptor's object."""
        return [self.objects.paths[i] if i >= 0 else None for i in self.of_call.tolist()]

    def kinds(self) -> list[str]:
        """Of all objects."""
        return [KINDS[kind] for kind in self.objects.found().kind.tolist()]


def follow(raw: RawTrace, before: dict[int, Object] | None = None, size: int = 1000) -> Found:
    objects = Objects(processes.find(raw), before)
    found = [objects.of_chunk(chunk) for chunk in raw.chunks(size)]
    objects.finish()
    return Found(objects, np.concatenate(found))


def replay(
    folder: Path, *files: RawBuilder, before: dict[int, Object] | None = None
) -> tuple[Found, list[bytes | None]]:
    """Replay; also return, call by call, the path of its descriptor's object."""
    found = follow(trace(folder, *files), before)
    return found, found.paths()


def one(
    folder: Path, *events: Event, before: dict[int, Object] | None = None
) -> list[bytes | None]:
    builder = RawBuilder(flushed=[[process(b"/bin/x", b"x")], list(events)])
    return replay(folder, builder, before=before)[1]


def test_open_use_close_reuse(tmp_path: Path) -> None:
    assert one(
        tmp_path,
        opened(b"/a", 3),
        Event("read", (3,)),
        Event("close", (3,)),
        Event("read", (3,), ret=-9),
        opened(b"/b", 3),
        Event("read", (3,)),
    ) == [b"/home", b"/a", b"/a", None, b"/home", b"/b"]


def test_paths_are_joined(tmp_path: Path) -> None:
    assert one(
        tmp_path,
        opened(b"dir", 3, O_DIRECTORY),
        opened(b"file", 4, dirfd=3),
        Event("fstat", (4,)),
        opened(b"../up", 5, dirfd=3),
        Event("fstat", (5,)),
        opened(b"/abs", 6, dirfd=3),
        Event("fstat", (6,)),
    )[2::2] == [b"/home/dir/file", b"/home/up", b"/abs"]


def test_dup_shares_the_object(tmp_path: Path) -> None:
    paths = one(
        tmp_path,
        opened(b"/a", 3),
        Event("fcntl", (3, 1030, 0), ret=4),
        Event("dup2", (4, 7), ret=7),
        Event("close", (3,)),
        Event("read", (4,)),
        Event("read", (7,)),
        Event("dup2", (7, 7), ret=7),
        Event("read", (7,)),
    )
    assert paths[4:] == [b"/a"] * 4


def test_pipes_and_socket_pairs(tmp_path: Path) -> None:
    builder = RawBuilder(
        live=[
            process(b"/bin/x", b"x"),
            Event("pipe2", (0, O_CLOEXEC), out=struct.pack("<ii", 3, 4)),
            Event("socketpair", (1, 1), out=struct.pack("<ii", 5, 6)),
            *[Event("read", (fd,)) for fd in (3, 4, 5, 6)],
        ]
    )
    found, _ = replay(tmp_path, builder)
    assert len(set(found.of_call[2:].tolist())) == 4
    kinds = [found.kinds()[i] for i in found.of_call[2:]]
    assert kinds == ["pipe", "pipe", "socket", "socket"]


def test_close_range(tmp_path: Path) -> None:
    paths = one(
        tmp_path,
        *[opened(b"/%d" % fd, fd) for fd in (3, 4, 5)],
        Event("close_range", (4, 0xFFFFFFFF, 0)),
        *[Event("read", (fd,)) for fd in (3, 4, 5)],
    )
    assert paths[3:] == [None, b"/3", None, None]


def test_failures_change_nothing(tmp_path: Path) -> None:
    assert (
        one(
            tmp_path,
            opened(b"/a", 3),
            Event("close", (3,), ret=-4),
            opened(b"/b", -2),
            Event("dup2", (3, 4), ret=-9),
            Event("read", (3,)),
        )[-1]
        == b"/a"
    )


def test_working_directory(tmp_path: Path) -> None:
    paths = one(
        tmp_path,
        Event("chdir", path=b"sub"),
        opened(b"x", 3),
        Event("read", (3,)),
        opened(b"/d", 4),
        Event("fchdir", (4,)),
        Event("newfstatat", (AT_FDCWD,), path=b"y"),
    )
    assert (paths[1], paths[2], paths[5]) == (b"/home/sub", b"/home/sub/x", b"/d")


def test_descriptors_that_were_there_before(tmp_path: Path) -> None:
    before = {0: Object("tty", b"/dev/pts/1"), 1: Object("pipe")}
    assert one(tmp_path, Event("read", (0,)), Event("write", (1,)), before=before) == [
        b"/dev/pts/1",
        None,
    ]


def test_fork_copies_at_the_time_of_the_call(tmp_path: Path) -> None:
    # The parent closes and reuses the descriptor before the child makes its first call.
    parent = RawBuilder(
        pid=10,
        tid=10,
        flushed=[[process(b"/bin/x", b"x")]],
        live=[
            opened(b"/a", 3, tsc=2000),
            fork(tsc=3000),
            Event("close", (3,), tsc=3100),
            opened(b"/b", 3, tsc=3200),
            Event("read", (3,), tsc=6000),
        ],
    )
    child = RawBuilder(pid=11, tid=11, ppid=10, start_tsc=4000)
    child.live = [process(b"/bin/x", b"x"), Event("read", (3,), tsc=5000)]
    assert replay(tmp_path, parent, child)[1][-2:] == [b"/a", b"/b"]


def test_two_children_in_order(tmp_path: Path) -> None:
    parent = RawBuilder(
        pid=10,
        tid=10,
        flushed=[[process(b"/bin/x", b"x")]],
        live=[
            opened(b"/a", 3, tsc=2000),
            fork(tsc=3000),
            Event("close", (3,), tsc=3100),
            opened(b"/b", 3, tsc=3200),
            fork(tsc=3300),
            Event("close", (3,), tsc=3400),
        ],
    )
    first = RawBuilder(pid=11, tid=11, ppid=10, start_tsc=4000)
    first.live = [process(b"/bin/x", b"x"), Event("read", (3,), tsc=5000)]
    second = RawBuilder(pid=12, tid=12, ppid=10, start_tsc=4100)
    second.live = [process(b"/bin/x", b"x"), Event("read", (3,), tsc=5100)]
    assert replay(tmp_path, parent, first, second)[1][-2:] == [b"/a", b"/b"]


def test_threads_are_no_children(tmp_path: Path) -> None:
    main = RawBuilder(
        pid=10,
        tid=10,
        flushed=[[process(b"/bin/x", b"x")]],
        live=[
            fork(2000, CLONE_THREAD),
            opened(b"/a", 3, tsc=2100),
            fork(tsc=3000),
        ],
    )
    thread = RawBuilder(pid=10, tid=11, start_tsc=2050)
    thread.live = [Event("read", (3,), tsc=2500)]
    child = RawBuilder(pid=12, tid=12, ppid=10, start_tsc=4000)
    child.live = [process(b"/bin/x", b"x"), Event("read", (3,), tsc=5000)]
    paths = replay(tmp_path, main, thread, child)[1]
    assert [paths[2], paths[-1]] == [b"/a", b"/a"]


def test_exec_closes_what_is_marked(tmp_path: Path) -> None:
    before = RawBuilder(pid=10, tid=10)
    before.live = [
        process(b"/bin/sh", b"sh"),
        opened(b"/keep", 3),
        opened(b"/drop", 4, O_CLOEXEC),
        opened(b"/late", 5),
        Event("fcntl", (5, 2, 1)),
        executed(b"/bin/x"),
    ]
    after = RawBuilder(pid=10, tid=10, start_tsc=9000)
    after.live = [process(b"/bin/x", b"x"), *[Event("read", (fd,)) for fd in (3, 4, 5)]]
    raw = trace(tmp_path, before, after)
    who = processes.find(raw)
    assert [image.exe for image in who.images] == [b"/bin/sh", b"/bin/x"]
    assert who.images[0].table == who.images[1].table
    assert follow(raw).paths()[-3:] == [b"/keep", None, None]


def test_an_exec_into_the_unknown_is_named(tmp_path: Path) -> None:
    builder = RawBuilder(live=[process(b"/bin/sh", b"sh"), executed(b"/bin/static")])
    image = processes.find(trace(tmp_path, builder)).images[0]
    assert (image.unseen, image.exit) == (b"/bin/static", None)


def test_a_close_that_races_with_an_open(tmp_path: Path) -> None:
    # Descriptor 3 is closed while the open that gets it is already on its way.
    opener = RawBuilder(
        pid=10,
        tid=10,
        flushed=[[process(b"/bin/x", b"x")]],
        live=[
            opened(b"/old", 3, tsc=2000),
            opened(b"/new", 3, tsc=3000, dur=500),
            Event("read", (3,), tsc=4000),
        ],
    )
    closer = RawBuilder(pid=10, tid=11, start_tsc=2500)
    closer.live = [Event("close", (3,), tsc=3200)]
    assert replay(tmp_path, opener, closer)[1][2:] == [b"/old", b"/new"]


def test_what_stat_and_getdents_say(tmp_path: Path) -> None:
    out = struct.pack("<QQQII", 8, 77, 4096, stat.S_IFREG | 0o644, 1)
    builder = RawBuilder(
        live=[
            process(b"/bin/x", b"x"),
            opened(b"/f", 3),
            Event("newfstatat", (3,), out=out),
            opened(b"/d", 4),
            Event("getdents64", (4,), ret=0),
            Event("socket", (1, 1), ret=5),
            Event("write", (5,)),
        ]
    )
    found, _ = replay(tmp_path, builder)
    what = found.of_call[[1, 3, 5]].tolist()
    assert [found.kinds()[i] for i in what] == ["file", "directory", "socket"]
    every = found.objects.found()
    assert np.flatnonzero(every.known).tolist() == [what[0]]
    assert (every.dev[what[0]], every.ino[what[0]], every.event[what[0]]) == (8, 77, 0)


def test_our_own_descriptors(tmp_path: Path) -> None:
    with open(tmp_path / "f", "w") as file:
        assert file.fileno() not in inherited()
        os.set_inheritable(file.fileno(), True)
        what = inherited()[file.fileno()]
        assert what.path == os.fsencode(tmp_path / "f")
        assert what.kind == "file"
        assert what.ino == os.stat(tmp_path / "f").st_ino


def test_kinds() -> None:
    assert kind_of_mode(os.stat("/dev/null").st_mode, b"/dev/null") == "device"
    assert kind_of_mode(stat.S_IFCHR, b"/dev/pts/0") == "tty"
    assert kind_of_mode(os.stat("/").st_mode) == "directory"
