# SPDX-License-Identifier: MIT
"""Each descriptor argument has the object that its own number meant, or none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from miner import cost, mine, pieces
from miner.annotate import annotate
from miner.motifs import ArgKind, Motif
from miner.render import body_line
from tests.unit.trace_builder import AT_FDCWD, Program, TraceBuilder
from tracer import syscalls

O_WRITE = 0o101


def mined(builder: TraceBuilder, path: Path) -> dict[str, Motif]:
    found = mine.mine([builder.write(path / "t.cosytrace")], cost.Calibration())
    return {m.name: m for m in found.motifs}


def lines(motif: Motif) -> list[str]:
    return [body_line(call) for call in motif.calls]


def opened(program: Program, call: str, path: str, kind: str = "file") -> int:
    """A descriptor that a call of no loop over files gives."""
    args = (AT_FDCWD, 0, 0) if call == "open_tree" else (0, 0)
    fd = program.call(call, *args, path=path, ret=program.free_fd())
    program.fds[fd] = program.builder.new_object(kind, path, len(program.builder.rows) - 1)
    return fd


def two_files(program: Program, i: int = 0) -> tuple[int, int]:
    source = program.open(AT_FDCWD, f"/from/{i}", 0, "file")
    return source, program.open(AT_FDCWD, f"/to/{i}", O_WRITE, "file")


def meanings(builder: TraceBuilder, path: Path, name: str) -> list[str | None]:
    """Path of what the second descriptor of each call `name` means, None: it cannot be told."""
    found = annotate(pieces.read(builder.write(path / "t.cosytrace")))
    calls = [i for i, row in enumerate(builder.rows) if row["nr"] == number(name)]
    objects, _ = found.second.of(np.array(calls))
    known = found.events.objects.path
    return [known[int(i)].as_py() if i >= 0 else None for i in objects]


def number(name: str) -> int:
    return syscalls.by_name()[name].nr


@pytest.mark.parametrize(
    ("name", "after", "line"),
    [
        ("copy_file_range", (0, 0, 4096, 0), "copy_file_range(r0, 0, r1, 0, 4096, 0)"),
        ("splice", (0, 0, 4096, 0), "splice(r0, 0, r1, 0, 4096, 0)"),
        ("tee", (4096, 0), "tee(r0, r1, 4096, 0)"),
        ("sendfile", (0, 4096), "sendfile(r0, r1, 0, 4096)"),
    ],
)
def test_both_ends_of_a_copy(tmp_path: Path, name: str, after: tuple[int, ...], line: str) -> None:
    """Two files, opened by two calls: each end is named after its own."""
    builder = TraceBuilder()
    program = builder.program("/usr/bin/copy")
    for i in range(40):
        source = opened(program, "memfd_create", f"a{i}")
        target = opened(program, "memfd_create", f"b{i}")
        between = (0,) if name in ("copy_file_range", "splice") else ()
        args = (source, *between, target, *after[len(between) :])
        program.call(name, *args, ret=100)
        program.close(target)
        program.close(source)
    bodies = [line for motif in mined(builder, tmp_path).values() for line in lines(motif)]
    assert {body for body in bodies if body.startswith(name)} == {line}


def test_copies_until_the_end_of_a_file_go_to_another_object(tmp_path: Path) -> None:
    builder = TraceBuilder()
    program = builder.program("/usr/bin/cp")
    for i in range(20):
        source, target = two_files(program, i)
        program.call("fstat", target)
        for ret in (4096, 4096, 0):
            program.call("copy_file_range", source, 0, target, 0, 1 << 20, 0, ret=ret)
        program.close(source)
        program.close(target)
    motif = mined(builder, tmp_path)["copy-loop"]
    assert lines(motif) == ["copy_file_range(F, 0, G, 0, 0x100000, 0)"]
    assert motif.calls[0].args[2].kind is ArgKind.FILE


def server(program: Program, listener: int) -> Iterator[None]:
    for _ in range(30):
        connection = program.call("accept4", 4, 0, 0, 0, ret=7)
        program.fds[connection] = program.builder.new_object(
            "socket", "", len(program.builder.rows) - 1
        )
        program.call("epoll_ctl", listener, 1, connection, 0x7000)
        program.call("fsync", connection)
        program.call("epoll_ctl", listener, 2, connection, 0x7000)
        program.close(connection)
        yield


def test_what_an_epoll_watches_is_not_the_epoll(tmp_path: Path) -> None:
    builder = TraceBuilder()
    program = builder.program("/usr/sbin/server")
    program.fds[4] = builder.new_object("socket", "")
    program.fds[5] = builder.new_object("other", "")
    for _ in server(program, 5):
        pass
    (motif,) = (m for m in mined(builder, tmp_path).values() if len(m.calls) == 5)
    assert lines(motif) == [
        "accept4(4, 0, 0, 0)",
        "epoll_ctl(5, 1, r0, ?)",
        "fsync(r0)",
        "epoll_ctl(r1.arg0, 2, r0, ?)",
        "close(r0)",
    ]


@pytest.mark.parametrize(
    ("target", "line", "meant"),
    [
        ("other", "renameat(r0, ?, r1, p2)", "/new"),
        ("same", "renameat(r0, ?, r0, p2)", "/old"),
        ("none", "renameat(r0, ?, AT_FDCWD, p2)", None),
    ],
)
def test_two_directories(tmp_path: Path, target: str, line: str, meant: str | None) -> None:
    """From one directory to another, within one, and to a path of its own."""
    builder = TraceBuilder()
    program = builder.program("/usr/bin/mv")
    for i in range(30):
        old = opened(program, "open_tree", "/old", "directory")
        new = AT_FDCWD if target == "none" else old
        if target == "other":
            new = opened(program, "open_tree", "/new", "directory")
            program.call("fsync", new)
        program.call("renameat", old, 0, new, 0, path=f"{i}", path2=f"{i}.new")
        for fd in sorted(program.fds):
            program.close(fd)
    bodies = {line for motif in mined(builder, tmp_path / "a").values() for line in lines(motif)}
    assert {body for body in bodies if body.startswith("renameat")} == {line}
    assert meanings(builder, tmp_path / "b", "renameat") == [meant] * 30


def test_the_number_that_dup2_takes_is_no_object(tmp_path: Path) -> None:
    builder = TraceBuilder()
    program = builder.program("/bin/sh")
    for i in range(30):
        fd = program.open(AT_FDCWD, f"/f{i}", 0, "file")
        program.call("dup2", fd, 1, ret=1)
        program.close(fd)
    bodies = {line for motif in mined(builder, tmp_path).values() for line in lines(motif)}
    assert "dup2(r0, 1)" in bodies


def no_change(program: Program) -> None:
    del program


def closed(program: Program) -> None:
    program.call("close", 9)


def closed_by_range(program: Program) -> None:
    program.call("close_range", 3, 0xFFFFFFFF, 0, object_id=None)


def given_anew(program: Program) -> None:
    program.call("dup2", 8, 9, ret=9)


def opened_anew(program: Program) -> None:
    closed(program)
    program.fds.pop(9)
    row = len(program.builder.rows)
    program.call("openat", AT_FDCWD, 0, 0, path="/third", ret=9)
    program.fds[9] = program.builder.new_object("file", "/third", row)
    program.call("fstat", 9)


def failed(program: Program) -> None:
    program.call("dup2", 8, 9, ret=-4)


@pytest.mark.parametrize(
    ("change", "meant"),
    [
        (no_change, "/second"),
        (closed, None),
        (closed_by_range, None),
        (given_anew, "/first"),
        (opened_anew, "/third"),
        (failed, "/second"),
    ],
)
def test_a_number_means_what_it_was_given_last(tmp_path: Path, change: Any, meant: str) -> None:
    builder = TraceBuilder()
    program = builder.program("/usr/bin/app")
    program.fds[8] = builder.new_object("file", "/first")
    program.fds[9] = builder.new_object("file", "/second")
    program.call("fstat", 8)
    program.call("fstat", 9)
    change(program)
    program.call("sendfile", 8, 9, 0, 100, ret=100)
    assert meanings(builder, tmp_path, "sendfile") == [meant]


def test_other_processes_and_other_programs_have_other_numbers(tmp_path: Path) -> None:
    builder = TraceBuilder()
    for _ in range(2):
        program = builder.program("/usr/bin/app")
        program.fds = {8: builder.new_object("file", "/first"), 9: builder.new_object("file", "/b")}
        program.call("fstat", 9)
    program.fds.clear()
    other = builder.program("/usr/bin/app")
    other.fds[8] = builder.new_object("file", "/first")
    other.call("sendfile", 8, 9, 0, 100, ret=100)
    assert meanings(builder, tmp_path, "sendfile") == [None]


@pytest.mark.parametrize(
    "missing", [{"lost_events": 3}, {"filter": "trace=read"}, {"unread_lines": 1}]
)
def test_where_calls_are_missing_nothing_is_told(tmp_path: Path, missing: dict[str, Any]) -> None:
    """A close may be among them."""
    builder = TraceBuilder()
    program = builder.program("/usr/bin/app")
    program.fds = {8: builder.new_object("file", "/a"), 9: builder.new_object("file", "/b")}
    program.call("fstat", 9)
    program.call("sendfile", 8, 9, 0, 100, ret=100)
    found = annotate(pieces.read(builder.write(tmp_path / "t.cosytrace", **missing)))
    objects, roots = found.second.of(np.array([1]))
    assert objects.tolist() == roots.tolist() == [-1]


def test_two_descriptors_of_one_call_are_not_its_result(tmp_path: Path) -> None:
    """pipe2 returns 0, and its descriptors through a pointer."""
    builder = TraceBuilder()
    program = builder.program("/bin/sh")
    for _ in range(30):
        row = len(builder.rows)
        program.call("pipe2", 0x7000, 0)
        program.fds = {
            3: builder.new_object("pipe", "", row),
            4: builder.new_object("pipe", "", row),
        }
        program.call("fcntl", 3, 1, 0)
        program.close(3)
        program.close(4)
    bodies = {line for motif in mined(builder, tmp_path).values() for line in lines(motif)}
    assert {body for body in bodies if "r0" in body} == set()
