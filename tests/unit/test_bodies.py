# SPDX-License-Identifier: MIT
"""Loops over files, paths, requests and copied blocks are found with their data flow."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from miner import cost, mine, motifs
from miner.motifs import ArgKind, Motif, Over
from miner.render import body_line
from tests.unit.trace_builder import AT_FDCWD, REG, Program, TraceBuilder, run

ENOENT = 2


def mined(builder: TraceBuilder, path: Path) -> dict[str, Motif]:
    found = mine.mine([builder.write(path / "t.cosytrace")], cost.Calibration())
    return {m.name: m for m in found.motifs}


def slurp(program: Program, path: str, size: int, reads: int = 1) -> Iterator[None]:
    fd = program.open(AT_FDCWD, path, 0o2000000, "file")
    out = {"st_mode": 0o100644, "st_size": size, "st_ino": 1, "bytes_out": 144}
    program.call("fstat", fd, 0x7000, **out)
    for _ in range(reads):
        yield
        program.call("read", fd, 0x8000, 4096, ret=size // reads, bytes_out=size // reads)
    program.call("read", fd, 0x8000, 4096, ret=0)
    yield
    program.close(fd)


def made(program: Program, path: str, *after: str, removed: str | None = None) -> Iterator[None]:
    """A file is made, closed, and then named again by the calls `after`."""
    fd = program.open(AT_FDCWD, path, 0o302, "file")
    yield
    program.close(fd)
    yield
    for name in after:
        program.call(name, path=removed or path)
        yield


def test_what_becomes_of_a_made_file_is_part_of_its_loop(tmp_path: Path) -> None:
    """By data flow: other calls, other files and other processes lie between."""
    builder = TraceBuilder()
    program, other = builder.program("/usr/bin/app"), builder.program("/usr/bin/other")
    run(
        *(made(program, f"/tmp/{i}.s", "unlink") for i in range(20)),
        *(made(other, f"/tmp/{i}.o", "unlink", removed=f"/tmp/{i}.s") for i in range(20)),
        program.noise(random.Random(1), 50),
    )
    found = mined(builder, tmp_path)
    temporary = found["temporary-file"]
    assert [(c.syscall, c.count) for c in temporary.calls] == [
        ("openat", 20),
        ("close", 20),
        ("unlink", 20),
    ]
    assert temporary.calls[2].args[0].kind == "item"
    # Who removes files that others made has no loop over files.
    assert [(c.syscall, c.count) for c in found["create-file"].calls] == [
        ("openat", 20),
        ("close", 20),
    ]


def test_a_file_that_is_linked_into_place_is_a_written_one(tmp_path: Path) -> None:
    builder = TraceBuilder()
    program = builder.program("/usr/bin/app")
    run(*(made(program, f"/objects/tmp{i}", "link", "unlink") for i in range(20)))
    motif = mined(builder, tmp_path)["write-file"]
    assert [c.syscall for c in motif.calls] == ["openat", "close", "link", "unlink"]


def test_slurps_of_two_threads_among_noise(tmp_path: Path) -> None:
    builder = TraceBuilder()
    program = builder.program("/usr/bin/app")
    threads = [program, program.thread(77)]
    parts = [
        slurp(t, f"/data/{n}-{i}", 100, 1 + i % 2) for n, t in enumerate(threads) for i in range(20)
    ]
    run(*parts, program.noise(random.Random(1), 200), rng=random.Random(2))
    motif = mined(builder, tmp_path)["slurp"]
    loop = motif.loop
    assert loop is not None
    assert (loop.over, loop.iterations, loop.instances) == (Over.FILES, 40, 2)
    assert [body_line(c) for c in motif.calls] == [
        "openat(AT_FDCWD, p, O_RDONLY|O_CLOEXEC)",
        "fstat(r0)",
        "read(r0)",
        "close(r0)",
    ]
    read = motif.calls[2]
    assert (read.count, read.per_iteration, read.to_end) == (100, 2.5, 1.0)
    assert read.repeats["max"] == 3
    assert (loop.whole, loop.distinct, loop.known) == (1.0, 40, 0.0)
    assert loop.sources == {"other": 40}
    assert loop.paths[0].path.startswith("/data/")
    # After open, fstat, read every file was closed.
    last = next(p for p in motif.prefixes if p.calls == [0, 1, 2])
    assert (last.reached, last.next) == (40, [motifs.Next(3, 40)])
    assert [(c.n, c.reached, c.continued) for c in motif.continuation][:3] == [
        (0, 2, 2),
        (1, 2, 2),
        (2, 2, 2),
    ]
    assert motif.own_ns == motif.time_ns


def test_what_is_asked_about_a_path_before_it_is_opened_belongs_to_the_file(tmp_path: Path) -> None:
    """Of the same path, in the same thread, with no other path between."""
    builder = TraceBuilder()
    program = builder.program("/usr/bin/file")
    other = program.thread(program.pid + 1)
    for i in range(40):
        program.stat(AT_FDCWD, f"/etc/{i}", REG)
        other.call("getuid")
        run(slurp(program, f"/etc/{i}", 10))
        if i % 4 == 0:  # about another path, and from another thread
            program.stat(AT_FDCWD, f"/usr/{i}", REG)
            other.call("access", 0, 4, path=f"/usr/x{i}")
            run(slurp(program, f"/usr/x{i}", 10))
    motif = mined(builder, tmp_path)["slurp"]
    assert [(c.syscall, c.count) for c in motif.calls] == [
        ("newfstatat", 40),
        ("openat", 50),
        ("fstat", 50),
        ("read", 100),
        ("close", 50),
    ]
    assert body_line(motif.calls[0]) == "newfstatat(AT_FDCWD, p, AT_SYMLINK_NOFOLLOW)"
    assert body_line(motif.calls[3]) == "read(r1)"


def test_a_link_that_was_asked_about_does_not_tell_the_length_of_its_file(tmp_path: Path) -> None:
    """What was read is more than the link is long, and less than the file."""
    builder = TraceBuilder()
    program = builder.program("/usr/bin/app")
    for i in range(40):
        size = {"st_mode": 0o120777, "st_size": 4, "st_ino": 1, "bytes_out": 144}
        program.call("newfstatat", AT_FDCWD, 0, 0x7000, 0x100, path=f"/etc/{i}", **size)
        fd = program.open(AT_FDCWD, f"/etc/{i}", 0, "file")
        program.call("read", fd, 0x8000, 16, ret=16, bytes_out=16)
        program.close(fd)
    (motif,) = (m for m in mined(builder, tmp_path).values() if len(m.calls) == 4)
    assert motif.loop is not None
    assert motif.loop.whole == 0.0


def test_files_opened_again_are_known(tmp_path: Path) -> None:
    builder = TraceBuilder()
    for _ in range(3):
        program = builder.program("/usr/bin/app")
        run(*(slurp(program, f"/lib/{i}", 50) for i in range(5)))
    loop = mined(builder, tmp_path)["slurp"].loop
    assert loop is not None
    assert (loop.iterations, loop.distinct, loop.instances) == (15, 5, 3)
    assert loop.known == round(10 / 15, 6)


def copy(program: Program, source: int, target: int, blocks: int, buffer: int) -> Iterator[None]:
    for _ in range(blocks):
        program.call("read", source, buffer, 4096, ret=4096, bytes_out=4096)
        yield
        program.call("write", target, buffer, 4096, ret=4096, bytes_in=4096)
    program.call("read", source, buffer, 4096, ret=0)


def test_a_copy_is_not_any_read_and_write(tmp_path: Path) -> None:
    builder = TraceBuilder()
    program = builder.program("/usr/bin/cp")
    source = program.open(AT_FDCWD, "/a", 0, "file")
    target = program.open(AT_FDCWD, "/b", 0o101, "file")
    run(copy(program, source, target, 30, 0x8000))
    # The same lengths from another buffer, and the same buffer with another length.
    for i in range(10):
        program.call("read", source, 0xA000, 4096, ret=4096)
        program.call("write", target, 0xB000, 4096, ret=4096)
        program.call("read", source, 0xA000, 4096, ret=4096)
        program.call("write", target, 0xA000, 100 + i, ret=100 + i)
    motif = mined(builder, tmp_path)["copy-loop"]
    assert motif.loop is not None
    assert (motif.loop.iterations, motif.loop.instances) == (30, 1)
    assert [body_line(c) for c in motif.calls] == ["read(F)", "write(G, r0.arg1, r0)"]
    assert motif.calls[1].args[1].kind is ArgKind.SAME
    assert motif.bytes == 30 * 2 * 4096


def test_data_that_is_written_is_what_was_read_there(tmp_path: Path) -> None:
    """Outside of copies: of other data, and of as much as came, of less, from elsewhere."""
    builder = TraceBuilder()
    program = builder.program("/usr/sbin/app")
    program.fds = {6: builder.new_object("file", "/data")}
    for i in range(40):
        program.call("getrandom", 0x8000, 4096, 0, ret=100 + i, bytes_out=100 + i)
        program.call("getuid")
        program.call("pwrite64", 6, 0x8000, 100 + i, 0, ret=100 + i, bytes_in=100 + i)
        program.call("getpid")
        program.call("pwrite64", 6, 0x8000, 4 + i % 3, 0, ret=4 + i % 3, bytes_in=4 + i % 3)
        program.call("gettid")
        program.call("pwrite64", 6, 0x9000 + 64 * i, 100 + i, 0, ret=100 + i, bytes_in=100 + i)
        program.call("sched_yield")
    bodies = [body_line(c) for m in mined(builder, tmp_path).values() for c in m.calls]
    assert sorted(line.partition(", ")[2] for line in bodies if line.startswith("pwrite64")) == [
        "?, ?, 0)",
        "r0.arg0, ?, 0)",
        "r0.arg0, r0, 0)",
    ]


def test_a_search_path_is_a_probe_list(tmp_path: Path) -> None:
    builder = TraceBuilder()
    for _ in range(4):
        program = builder.program("/usr/bin/python3")
        for folder in ("/home/lib", "/opt/lib", "/usr/local/lib"):
            path = f"{folder}/mod.py"
            program.call("newfstatat", AT_FDCWD, 0, 0x7000, 0, path=path, ret=-ENOENT)
        run(slurp(program, "/usr/lib/mod.py", 10))
    motif = mined(builder, tmp_path)["probe-list"]
    loop = motif.loop
    assert loop is not None
    assert (loop.over, loop.iterations, loop.instances, loop.distinct) == (Over.PATHS, 12, 4, 3)
    assert loop.known == 0.75
    assert loop.paths == [
        motifs.PathSeen(f"{d}/mod.py", 4, 4) for d in ("/home/lib", "/opt/lib", "/usr/local/lib")
    ]
    assert [body_line(c) for c in motif.calls] == ["newfstatat(AT_FDCWD, p, 0)"]
    assert loop.per_instance["p50"] == 3


def test_the_files_of_an_index(tmp_path: Path) -> None:
    builder = TraceBuilder()
    program = builder.program("/usr/bin/git")
    for i in range(50):
        program.stat(AT_FDCWD, f"src/{i % 7}/file{i}", REG)
        program.getxattr("lgetxattr", f"src/{i % 7}/file{i}", "security.selinux", 255)
    motif = mined(builder, tmp_path)["list-stat-xattr"]
    assert motif.loop is not None
    assert (motif.loop.iterations, motif.loop.instances) == (50, 1)
    assert motif.pure
    assert [p.calls for p in motif.prefixes] == [[], [0], [0, 1]]


def test_requests_of_a_server(tmp_path: Path) -> None:
    builder = TraceBuilder()
    program = builder.program("/usr/sbin/httpd")
    listener = program.call("socket", 2, 1, 0, ret=program.free_fd())
    program.fds[listener] = builder.new_object("socket", "")
    for connection in range(3):
        fd = program.call("accept4", listener, 0, 0, 0, ret=program.free_fd())
        program.fds[fd] = builder.new_object("socket", "", len(builder.rows) - 1)
        for request in range(4):
            program.call("epoll_wait", 9, 0, 512, 1000, ret=1, object_id=None)
            program.call("recvfrom", fd, 0x8000, 1024, 0, 0, 0, ret=300)
            file = program.open(AT_FDCWD, f"/www/{connection}-{request}", 0, "file")
            program.call("fstat", file, 0x7000, st_size=5000, st_mode=0o100644)
            program.call("sendfile", fd, file, 0, 5000, ret=5000)
            program.close(file)
            program.call("write", 2, 0x9000, 60, ret=60)
        program.close(fd)
    found = mined(builder, tmp_path)
    motif = next(m for m in found.values() if m.loop and m.loop.over is Over.REQUESTS)
    assert motif.name.startswith("serve-recv-open-copy")
    assert motif.loop is not None
    assert (motif.loop.iterations, motif.loop.instances) == (12, 3)
    lines = [body_line(c) for c in motif.calls]
    assert lines[0].startswith("recvfrom(F")
    assert "openat(AT_FDCWD, ?, O_RDONLY)" in lines or "openat(?, ?, O_RDONLY)" in lines
    assert "fstat(r1)" in lines


@pytest.mark.parametrize("copied", [True, False])
def test_a_mode_that_is_that_of_the_source(tmp_path: Path, copied: bool) -> None:
    """fstat of one file, fchmod of another: as gzip does, among threads that ask meanwhile."""
    builder = TraceBuilder()
    program = builder.program("/usr/bin/gzip")
    other = program.thread(program.pid + 1)
    modes = [0o100600 + 8 * (i % 7) for i in range(60)]
    for i, mode in enumerate(modes):
        fd = program.open(AT_FDCWD, f"/in/{i}", 0, "file")
        program.call("fstat", fd, 0x7000, st_mode=mode, st_size=100, bytes_out=144)
        new = program.open(AT_FDCWD, f"/out/{i}", 0o301, "file")
        other.call("newfstatat", AT_FDCWD, 0, 0, 0, path="/x", st_mode=0o100777, st_size=1)
        program.call("read", fd, 0x8000, 4096, ret=100, bytes_out=100)
        program.call("write", new, 0x9000, 50, ret=50, bytes_in=50)
        program.call("fchmod", new, mode & 0o7777 if copied else 0o600 + i % 5)
        program.close(new)
        program.close(fd)
    found = mine.mine([builder.write(tmp_path / "t.cosytrace")], cost.Calibration())
    chmods = [c for m in found.motifs for c in m.calls if c.syscall == "fchmod"]
    assert chmods
    for call in chmods:
        kind = call.args[1].kind
        assert (kind is ArgKind.STAT and call.args[1].field == "st_mode") == copied, kind
        assert ("s.st_mode" in body_line(call)) == copied
    motifs.save(found, tmp_path / "m.json")
    assert motifs.load(tmp_path / "m.json") == found


def test_second_paths_are_named_as_such(tmp_path: Path) -> None:
    builder = TraceBuilder()
    program = builder.program("/usr/bin/mv")
    for i in range(60):
        program.call("rename", 0, 0, path=f"/a/{i}", path2=f"/b/{i}")
    found = mine.mine([builder.write(tmp_path / "t.cosytrace")], cost.Calibration())
    lines = [body_line(c) for m in found.motifs for c in m.calls if c.syscall == "rename"]
    assert lines
    assert all(line.endswith(", p2)") for line in lines)


def test_a_file_that_nothing_is_written_to_is_made_only(tmp_path: Path) -> None:
    """As touch does: made, its times set, closed."""
    builder = TraceBuilder()
    program = builder.program("/usr/bin/touch")
    for i in range(60):
        fd = program.open(AT_FDCWD, f"/new/{i}", 0o4501, "file")
        program.call("utimensat", fd, 0, 0, 0)
        program.close(fd)
    assert "create-file" in mined(builder, tmp_path)
