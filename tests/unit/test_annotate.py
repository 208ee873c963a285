# SPDX-License-Identifier: MIT
"""Which entry of which directory each call is about."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from miner import annotate as an
from miner import joins, paths, pieces
from tests.unit.trace_builder import (
    AT_FDCWD,
    DIR,
    LNK,
    REG,
    Program,
    TraceBuilder,
    count,
    fnv,
    random_tree,
    run,
)
from tracer.target import DatasetError

TREE = {"a": None, "sub": {"b": None, "deep": {"c": "b"}}, "l": "a"}


def annotated(builder: TraceBuilder, tmp_path: Path) -> an.Annotated:
    return an.annotate(pieces.read(builder.write(tmp_path / "t.cosytrace")))


def child_names(found: an.Annotated, via: an.Via) -> list[str]:
    rows = np.flatnonzero(found.via == via)
    return [found.arguments.names[int(i)].as_py() for i in found.arguments.name[rows]]


def test_names_are_hashed_as_the_kernel_side_does() -> None:
    names = ["", "a", "file.txt", "x" * 255, "ä ö", "%FF%25"]
    raw = [b"", b"a", b"file.txt", b"x" * 255, "ä ö".encode(), b"\xff%"]
    expected = []
    for name in raw:
        value = 2166136261
        for octet in name:
            value = ((value ^ octet) * 16777619) % 2**32
        expected.append(value & ~15)
    assert an.fnv_hashes(pa.array(names)).tolist() == expected
    assert an.fnv_hashes(pa.array([], pa.string())).tolist() == []


def test_last_before_is_a_merge_asof() -> None:
    rng = np.random.default_rng(7)
    for _ in range(50):
        key, time = rng.integers(0, 4, 12), rng.integers(0, 20, 12)
        use_key, use_time = rng.integers(0, 5, 30), np.sort(rng.integers(0, 20, 30))
        found = joins.last_before(key, time, use_key, use_time)
        for i in range(30):
            good = [
                t for k, t in zip(key, time, strict=True) if k == use_key[i] and t <= use_time[i]
            ]
            assert (found[i] >= 0) == bool(good)
            if good:
                assert key[found[i]] == use_key[i]
                assert time[found[i]] == max(good)
    nothing = np.zeros(0, dtype=np.int64)
    assert joins.last_before(nothing, nothing, key, time).tolist() == [-1] * 12


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", "/"),
        ("//", "/"),
        ("/a/./b/", "/a/b"),
        ("./a", "a"),
        ("a//b/.", "a/b"),
        ("/a/../b", "/a/../b"),
        ("/a/.hidden", "/a/.hidden"),
    ],
)
def test_normal_paths(path: str, expected: str) -> None:
    assert paths.normal(path) == expected


def test_descriptor_relative_names(tmp_path: Path) -> None:
    builder = TraceBuilder()
    run(builder.program("/usr/bin/du").du(AT_FDCWD, "top", TREE))
    found = annotated(builder, tmp_path)
    assert len(found.scans) == 3
    assert sorted(set(child_names(found, an.Via.NAME))) == ["a", "b", "c", "deep", "l", "sub"]
    assert not (found.via == an.Via.PATH).any()
    # The two sub-directories were opened from entries of their parents.
    assert found.scans.parent.tolist() == [-1, 0, 1]
    assert int(found.descends.sum()) == 2


def test_joined_paths(tmp_path: Path) -> None:
    builder = TraceBuilder()
    run(builder.program("/usr/bin/ls").ls("top", TREE))
    found = annotated(builder, tmp_path)
    assert set(child_names(found, an.Via.PATH)) == {"a", "b", "c", "deep", "l", "sub"}
    assert found.scans.parent.tolist() == [-1, 0, 1]
    assert {found.directories[f] for f in found.scans.folder} == {
        "/home/user/top",
        "/home/user/top/sub",
        "/home/user/top/sub/deep",
    }


def test_types_come_from_the_entries(tmp_path: Path) -> None:
    builder = TraceBuilder()
    run(builder.program("/usr/bin/du").du(AT_FDCWD, "top", TREE))
    scans = annotated(builder, tmp_path).scans
    kinds = [an.TYPE_NAMES[k] for k in scans.entry_type]
    assert sorted(kinds) == ["dir", "dir", "file", "file", "link", "link"]


def test_unknown_types_are_learnt_from_attributes(tmp_path: Path) -> None:
    builder = TraceBuilder()
    program = builder.program("/usr/bin/x")
    fd = program.open(AT_FDCWD, "top")
    program.call("getdents64", fd, 0, 4096, ret=72, names=[fnv("d", 0), fnv("f", 0), fnv("?", 0)])
    program.stat(fd, "d", DIR)
    program.stat(fd, "f", REG)
    kinds = annotated(builder, tmp_path).scans.entry_type
    assert [an.TYPE_NAMES[k] for k in kinds] == ["dir", "file", "unknown"]


def test_names_that_are_no_entries_do_not_match(tmp_path: Path) -> None:
    builder = TraceBuilder()
    program = builder.program("/usr/bin/x")
    fd = program.open(AT_FDCWD, "top")
    program.getdents(fd, {"here": None})
    program.stat(fd, "here", REG)
    program.stat(fd, "elsewhere", REG)
    program.stat(AT_FDCWD, "here", REG)  # of the working directory
    program.stat(AT_FDCWD, "top/here", REG)
    program.stat(AT_FDCWD, "/home/user/top/./here", REG)
    program.stat(AT_FDCWD, "/other/top/here", REG)
    found = annotated(builder, tmp_path)
    assert found.via.tolist() == [-1, -1, 0, -1, -1, 1, 1, -1]


def test_calls_before_the_scan_do_not_match(tmp_path: Path) -> None:
    builder = TraceBuilder()
    program = builder.program("/usr/bin/x")
    fd = program.open(AT_FDCWD, "top")
    program.stat(fd, "here", REG)
    program.getdents(fd, {"here": None})
    assert annotated(builder, tmp_path).scan.tolist() == [-1, -1, -1]


def test_another_process_has_not_scanned(tmp_path: Path) -> None:
    builder = TraceBuilder()
    one, two = builder.program("/usr/bin/x"), builder.program("/usr/bin/y")
    fd = one.open(AT_FDCWD, "top")
    one.getdents(fd, {"here": None})
    two.stat(AT_FDCWD, "top/here", REG)
    one.stat(AT_FDCWD, "top/here", REG)
    assert annotated(builder, tmp_path).scan.tolist() == [-1, -1, -1, 0]


def test_working_directory_is_followed(tmp_path: Path) -> None:
    builder = TraceBuilder()
    program = builder.program("/usr/bin/x")
    fd = program.open(AT_FDCWD, "top")
    program.getdents(fd, {"here": None})
    program.call("chdir", 0, path="top")
    program.call("lstat", 0, 0, path="here")
    program.call("chdir", 0, path="/")
    program.call("lstat", 0, 0, path="here")
    program.call("fchdir", fd)
    program.call("lstat", 0, 0, path="here")
    found = annotated(builder, tmp_path)
    assert np.flatnonzero(found.via == an.Via.CWD).tolist() == [3, 7]


def test_work_on_an_opened_entry_belongs_to_it(tmp_path: Path) -> None:
    builder = TraceBuilder()
    run(builder.program("/usr/bin/grep").grep(AT_FDCWD, "top", {"f": None, "g": None}))
    found = annotated(builder, tmp_path)
    assert int((found.via == an.Via.RESULT).sum()) == 8  # fstat, read, read, close of two files
    for entry in (0, 1):
        mine = np.flatnonzero(found.entry == entry)
        assert len(mine) == 5
        assert (np.diff(mine) == 1).all()


def test_a_rewound_directory_is_another_scan(tmp_path: Path) -> None:
    builder = TraceBuilder()
    program = builder.program("/usr/bin/x")
    fd = program.open(AT_FDCWD, "top")
    for _ in range(2):
        program.getdents(fd, {"f": None})
        program.end_of_dir(fd)
        program.stat(fd, "f", REG)
    assert annotated(builder, tmp_path).scan.tolist() == [-1, -1, -1, 0, -1, -1, 1]


def test_every_child_call_of_random_walks_is_found(tmp_path: Path) -> None:
    rng = random.Random(3)
    for i in range(5):
        tree = random_tree(rng, 4)
        builder = TraceBuilder()
        run(builder.program("/usr/bin/tar").tar(AT_FDCWD, "t", tree))
        found = annotated(builder, tmp_path / str(i))
        files, links, dirs = (count(tree, k) for k in (REG, LNK, DIR))
        # Files are asked for twice, links for two things, directories once before their open.
        expected = 2 * files + 2 * links + 2 * dirs
        assert int((found.via == an.Via.NAME).sum()) == expected


def test_empty_trace(tmp_path: Path) -> None:
    builder = TraceBuilder()
    builder.program("/usr/bin/true")
    assert len(annotated(builder, tmp_path).scans) == 0


def test_threads_share_descriptors(tmp_path: Path) -> None:
    builder = TraceBuilder()
    main = builder.program("/usr/bin/x")
    fd = main.open(AT_FDCWD, "top")
    main.getdents(fd, {"f": None})
    helper: Program = main.thread(77)
    helper.stat(fd, "f", REG)
    assert annotated(builder, tmp_path).via.tolist() == [-1, -1, 0]


def test_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no trace dataset: .*absent"):
        pieces.read(tmp_path / "absent")


def test_a_walk_that_changes_directory_and_goes_back_up(tmp_path: Path) -> None:
    """perl's File::Find: chdir down, `chdir ../..` up, and names of the working directory."""
    builder = TraceBuilder()
    program = builder.program("/usr/bin/perl", "/top")
    for move, folder in (("a", "/top/a"), ("../b", "/top/b"), ("..", "/top")):
        program.call("chdir", 0, path=move)
        program.cwd = builder.new_object("directory", folder, len(builder.rows) - 1)
        fd = program.open(AT_FDCWD, ".")
        program.fds[fd] = builder.new_object("directory", folder, len(builder.rows) - 1)
        program.getdents(fd, {"x": None, "y": None})
        program.end_of_dir(fd)
        program.close(fd)
        for name in ("x", "y"):
            program.stat(AT_FDCWD, name, REG)
    found = annotated(builder, tmp_path)
    assert int((found.via == an.Via.CWD).sum()) == 6
