# SPDX-License-Identifier: MIT
"""Loops are found whole, with their statistics, and nothing else is taken for one."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from miner import annotate, events, loops, masks, motifs, pieces, sequences
from miner.motifs import ArgKind
from miner.render import body_line
from tests.unit.trace_builder import (
    AT_FDCWD,
    DIR,
    LNK,
    REG,
    Program,
    TraceBuilder,
    Tree,
    count,
    random_tree,
    run,
)


def entry_loops(builder: TraceBuilder, path: Path) -> tuple[loops.EntryLoops, events.Events]:
    trace = pieces.read(builder.write(path / "t.cosytrace"))
    return loops.entry_loops(annotate.annotate(trace)), trace


def only_motif(builder: TraceBuilder, path: Path) -> motifs.Motif:
    found, trace = entry_loops(builder, path)
    assert len(found.loops) == 1
    return found.loops[0].to_motif("m", int(trace.dur_ns.sum()))


Walk = Callable[[Program, Tree], Iterator[None]]
WALKS: dict[str, tuple[Walk, list[str]]] = {
    "du": (
        lambda p, t: p.du(AT_FDCWD, "top", t),
        ["newfstatat(D, e.name, AT_SYMLINK_NOFOLLOW)"],
    ),
    "tar": (
        lambda p, t: p.tar(AT_FDCWD, "top", t),
        ["newfstatat(D, e.name, AT_SYMLINK_NOFOLLOW)", "readlinkat(D, e.name, r0.st_size+1)"],
    ),
    "ls": (
        lambda p, t: p.ls("top", t),
        [
            "statx(AT_FDCWD, D/e.name, AT_SYMLINK_NOFOLLOW|AT_NO_AUTOMOUNT, 0x25e)",
            'lgetxattr(D/e.name, "security.selinux")',
            'getxattr(D/e.name, "system.posix_acl_access")',
            'getxattr(D/e.name, "system.posix_acl_default")',
            "readlink(D/e.name, r0.st_size+1)",
        ],
    ),
    "grep": (
        lambda p, t: p.grep(AT_FDCWD, "top", t),
        [
            "openat(D, e.name, O_RDONLY|O_NOCTTY|O_NONBLOCK|O_NOFOLLOW)",
            "newfstatat(D, e.name, AT_SYMLINK_NOFOLLOW)",
            'newfstatat(r0, "", AT_EMPTY_PATH)',
            "read(r0)",
            "close(r0)",
        ],
    ),
}


@pytest.mark.parametrize("name", WALKS)
def test_the_loop_of_each_program(name: str, tmp_path: Path) -> None:
    walk, expected = WALKS[name]
    # Link sizes differ, so that readlink's size is no constant.
    tree: Tree = {"f": None, "l": "f", "sub": {"g": None, "ll": "g", "e": {}}, "z": None}
    builder = TraceBuilder()
    program = builder.program(f"/usr/bin/{name}")
    run(walk(program, tree))
    sizes = iter([4, 9])
    for row in builder.rows:
        if row["st_mode"] is not None and row["st_mode"] >> 12 == 0o12:
            row["st_size"] = size = next(sizes)
        if row["nr"] in (89, 267):
            row["a2" if row["nr"] == 89 else "a3"] = size + 1
    motif = only_motif(builder, tmp_path)
    assert sorted(body_line(c) for c in motif.calls) == sorted(expected)
    assert motif.calls[0].share == max(c.share for c in motif.calls)
    assert motif.instances_by_program == {f"/usr/bin/{name}": 2}
    assert motif.loop is not None
    assert (motif.loop.scanned, motif.loop.untouched) == (3, 1)


def test_numbers_of_ls(tmp_path: Path) -> None:
    tree = random_tree(random.Random(11), 4)
    builder = TraceBuilder()
    run(builder.program("/usr/bin/ls").ls("top", tree))
    motif = only_motif(builder, tmp_path)
    files, links, dirs = (count(tree, k) for k in (REG, LNK, DIR))
    total = files + links + dirs
    calls = {(c.syscall, c.xattrs[0].name if c.xattrs else ""): c for c in motif.calls}
    statx = calls["statx", ""]
    assert (statx.count, statx.share, statx.optional) == (total, 1.0, False)
    assert statx.time_ns == total * 1000
    assert statx.types == {"file": files, "link": links, "dir": dirs}
    assert [(s.value, s.count) for s in statx.flags] == [(0x900, total)]
    assert [(s.value, s.count) for s in statx.mask] == [(0x25E, total)]
    default = calls["getxattr", "system.posix_acl_default"]
    assert (default.count, default.optional, default.types) == (dirs, True, {"dir": dirs})
    assert default.xattrs[0].missing == default.count == default.errors
    assert default.error_names == {"ENODATA": dirs}
    assert default.args[2].kind is ArgKind.CONST  # NULL
    assert calls["lgetxattr", "security.selinux"].args[2] == motifs.Arg(ArgKind.OUT, value=255)
    assert (
        motif.crossings == sum(c.count for c in motif.calls) == 2 * total + files + 2 * dirs + links
    )
    assert motif.loop is not None
    assert motif.loop.depth is not None
    assert (motif.loop.iterations, motif.loop.entries_total) == (total, total)
    assert motif.loop.in_order == 1.0
    assert (motif.loop.depth.descends, motif.loop.depth.interleaved) == (1.0, 0.0)
    assert sum(motif.loop.depth.histogram) == dirs + 1 == motif.loop.scanned


def test_recursion_in_the_middle_does_not_break_the_loop(tmp_path: Path) -> None:
    tree = {"a": None, "sub": {"b": None, "c": None}, "d": None, "e": None}
    builder = TraceBuilder()
    run(builder.program("/usr/bin/du").du(AT_FDCWD, "top", tree))
    motif = only_motif(builder, tmp_path)
    assert motif.loop is not None
    assert motif.loop.depth is not None
    assert motif.loop.instances == 2
    assert motif.loop.depth.interleaved == 1.0


def test_find_name_asks_for_no_file(tmp_path: Path) -> None:
    tree = random_tree(random.Random(2), 4)
    builder = TraceBuilder()
    run(builder.program("/usr/bin/find").du(AT_FDCWD, "top", tree, stat_files=False))
    motif = only_motif(builder, tmp_path)
    assert motif.only_directories
    assert motif.loop is not None
    assert motif.loop.coverage == {"dir": 1.0, "file": 0.0, "link": 0.0}
    assert motif.loop.untouched > 0
    assert [row for row in motif.continuation_files if row.n > 0] == []


def brute_continuation(sequence: list[list[str]], sizes: list[int], n: int) -> list[int]:
    """reached, continued, remaining, children, entries of n, by definition."""
    out = [0] * 5
    for calls, size in zip(sequence, sizes, strict=True):
        if len(calls) < n:
            continue
        rest = calls[n:]
        here = [1, bool(rest), len(rest), len(set(rest)), size]
        out = [a + b for a, b in zip(out, here, strict=True)]
    return out


def test_continuation_is_as_defined(tmp_path: Path) -> None:
    rng = random.Random(4)
    builder = TraceBuilder()
    program = builder.program("/usr/bin/x")
    asked: list[list[str]] = []
    files: list[list[str]] = []
    sizes = []
    for i in range(60):
        tree: Tree = {f"n{j}": {} if rng.random() < 0.3 else None for j in range(rng.randrange(20))}
        fd = program.open(AT_FDCWD, f"d{i}")
        program.getdents(fd, tree)
        calls = [rng.choice(list(tree)) for _ in range(rng.randrange(12))] if tree else []
        for name in calls:
            program.stat(fd, name, DIR if tree[name] == {} else REG)
        program.close(fd)
        asked.append(calls)
        files.append([name for name in calls if tree[name] is None])
        sizes.append(len(tree))
    motif = only_motif(builder, tmp_path)
    for n in (0, 1, 2, 4, 8):
        rows = [r for r in motif.continuation if r.n == n]
        sums = [
            sum(getattr(r, k) for r in rows)
            for k in ("reached", "continued", "remaining", "children", "entries")
        ]
        assert sums == brute_continuation(asked, sizes, n)
        for row in rows:
            assert row.min_entries <= row.max_entries < 2 * max(row.min_entries, 1)
            assert row.reached * row.min_entries <= row.entries <= row.reached * row.max_entries
    for n in (1, 2, 4):
        reached = sum(r.reached for r in motif.continuation_files if r.n == n)
        assert reached == sum(len(f) >= n for f in files)


def planted(seed: int) -> tuple[TraceBuilder, set[int]]:
    """Four walks in threads of two processes, interleaved with noise; rows of the loops' calls."""
    rng = random.Random(seed)
    builder = TraceBuilder()
    one, two = builder.program("/usr/bin/one"), builder.program("/usr/bin/two")
    threads = [one, one.thread(5001), one.thread(5002), two]
    parts = []
    for i, program in enumerate(threads):
        tree = random_tree(rng, 3)
        walk = program.du if i % 2 else program.tar
        parts += [walk(AT_FDCWD, f"tree{i}", tree), program.noise(rng, 150)]
    run(*parts, rng=rng)
    truth = {
        i
        for i, row in enumerate(builder.rows)
        if row["nr"] in (262, 267) and row["path"] and row["a0"] != AT_FDCWD
    }
    return builder, truth


@pytest.mark.parametrize("seed", range(6))
def test_planted_loops_are_found_in_noise(seed: int, tmp_path: Path) -> None:
    builder, truth = planted(seed)
    found, _ = entry_loops(builder, tmp_path)
    covered = set(np.flatnonzero(found.covered).tolist())
    assert truth
    recall = len(covered & truth) / len(truth)
    precision = len(covered & truth) / len(covered)
    assert (precision, recall) == (1.0, 1.0)
    assert sum(sum(c.count for c in loop.calls.values()) for loop in found.loops) == len(truth)


def test_two_loops_of_one_program_stay_apart(tmp_path: Path) -> None:
    rng = random.Random(9)
    builder = TraceBuilder()
    program = builder.program("/usr/bin/python3")
    for i in range(20):
        fd = program.open(AT_FDCWD, f"d{i}")
        tree: Tree = {f"f{j}": None for j in range(rng.randrange(1, 9))}
        program.getdents(fd, tree)
        for name in tree:
            if i % 2:
                program.stat(fd, name, REG)
            else:
                program.call("unlinkat", fd, 0, 0, path=name)
    found, _ = entry_loops(builder, tmp_path)
    bodies = [{stats.name for stats in loop.calls.values()} for loop in found.loops]
    assert sorted(bodies, key=str) == [{"newfstatat"}, {"unlinkat"}]


def test_group_masks() -> None:
    values = np.array([0b0111, 0b0001, 0b0011, 0b1000, 0b1100])
    weight = np.array([10, 1, 5, 3, 1])
    assert masks.group_masks(values, weight).tolist() == [0, 0, 0, 1, 0]


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([1, 1, 1, 1], [(0, 1, 4)]),
        ([5, 1, 2, 1, 2, 1, 2, 6], [(1, 2, 3)]),
        ([1, 2, 1, 2], []),
        ([7, 7, 7, 1, 2, 3, 1, 2, 3, 1, 2, 3], [(0, 1, 3), (3, 3, 3)]),
        ([1, 2, 1, 2, 1, 2, 1], [(0, 2, 3)]),
        ([], []),
        ([3], []),
    ],
)
def test_tandems(tokens: list[int], expected: list[tuple[int, int, int]]) -> None:
    found = loops.tandems(np.array(tokens, dtype=np.int64))
    assert [(t.start, t.period, t.repeats) for t in found] == expected


def test_reads_until_the_end(tmp_path: Path) -> None:
    builder = TraceBuilder()
    program = builder.program("/usr/bin/cat")
    for i in range(5):
        fd = program.open(AT_FDCWD, f"file{i}", 0, "file")
        for _ in range(3):
            program.call("read", fd, 0x8000, 4096, ret=4096, bytes_out=4096)
        program.call("read", fd, 0x8000, 4096, ret=100, bytes_out=100)
        program.call("read", fd, 0x8000, 4096, ret=0, dur_ns=300)
        program.close(fd)
    fd = program.open(AT_FDCWD, "never-ends", 0, "device")
    for _ in range(9):
        program.call("read", fd, 0x8000, 4096, ret=4096, bytes_out=4096)
    trace = pieces.read(builder.write(tmp_path / "t.cosytrace"))
    found = sequences.read_loops(annotate.annotate(trace), np.zeros(len(trace), bool))
    assert len(found) == 1
    motif = found[0].to_motif("m", 1)
    assert motif.loop is not None
    assert (motif.loop.over, motif.loop.instances, motif.loop.iterations) == ("until-eof", 5, 25)
    assert motif.calls[0].args[0].kind is ArgKind.FILE
    assert motif.calls[0].args[2] == motifs.Arg(ArgKind.CONST, value=4096, share=1.0)
    assert motif.bytes == 5 * (3 * 4096 + 100)
    assert (found[0].known_ends, found[0].known_ends_ns) == (5, 1500)


def test_repeats_tell_where_descriptors_come_from(tmp_path: Path) -> None:
    rng = random.Random(1)
    builder = TraceBuilder()
    program = builder.program("/usr/bin/make")
    for i in range(12):
        run(program.noise(rng, rng.randrange(1, 4)))
        fd = program.open(AT_FDCWD, f"/src/f{i}.h", 0, "file")
        program.fstat(fd, REG)
        program.call("pread64", fd, 0x8000, 832, 0, ret=832, bytes_out=832)
        program.close(fd)
    annotated = annotate.annotate(pieces.read(builder.write(tmp_path / "t.cosytrace")))
    found = sequences.sequences(annotated, loops.entry_loops(annotated).covered)
    best = max(found, key=lambda s: s.crossings).to_motif("m", 1)
    assert [body_line(c) for c in best.calls] == [
        "openat(AT_FDCWD, ?, O_RDONLY)",
        'newfstatat(r0, "", AT_EMPTY_PATH)',
        "pread64(r0, 0)",
        "close(r0)",
    ]
    assert [c.count for c in best.calls] == [12] * 4
    assert best.time_ns == 48_000
