# SPDX-License-Identifier: MIT
"""Real programs, recorded by cosy-trace and mined: their loops are what they are."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from miner import cost, mine, motifs
from miner.motifs import ArgKind, Motif, MotifFile
from tracer import native

ROOT = Path(__file__).resolve().parents[2]
DIRECTORIES, FILES = 12, 25  # files in each directory
NOFOLLOW = 0x100


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nested directories of files, named so that no order is by chance."""
    top = tmp_path_factory.mktemp("mine") / "tree"
    for i in range(DIRECTORIES + 1):
        folder = top / "/".join(f"d{j}" for j in range(i % 4)) / f"dir{i}" if i else top
        folder.mkdir(parents=True, exist_ok=True)
    made = [top, *sorted(p for p in top.rglob("*") if p.is_dir())]
    for folder in made:
        for i in range(FILES):
            (folder / f"f{i * 7919 % 1000}-{i}").write_text("x" * i)
    (top / "link").symlink_to("f0-0")
    return top


def entries(tree: Path) -> tuple[int, int]:
    """Everything below the tree, and the directories of it."""
    below = list(tree.rglob("*"))
    return len(below), sum(p.is_dir() and not p.is_symlink() for p in below)


def mined(tmp_path: Path, *command: str | Path) -> MotifFile:
    """Record a command and mine the trace; skips where there is nothing to record with."""
    if not shutil.which(str(command[0])):
        pytest.skip(f"no {command[0]} on this machine: apt-get install it")
    try:
        native.library()
    except native.NativeFileError as error:
        pytest.skip(str(error))
    trace = tmp_path / "t.cosytrace"
    record = [sys.executable, "-c", "from tracer.cli import main; main()", "-o", str(trace)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*record, *map(str, command)], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert trace.is_dir(), done.stderr
    found = mine.mine([trace], cost.Calibration())
    assert found.lost_events == 0
    motifs.save(found, tmp_path / "t.motifs.json")
    assert motifs.load(tmp_path / "t.motifs.json") == found
    return found


def entry_loop(found: MotifFile) -> Motif:
    """The heaviest loop over entries."""
    loops = [m for m in found.motifs if m.loop and m.loop.over is motifs.Over.ENTRIES]
    assert loops, [m.name for m in found.motifs]
    return max(loops, key=lambda m: m.crossings)


STAT_WALKS = {
    "du": ["du", "-s"],
    "find-size": ["find", "TREE", "-size", "+100M"],
    "tar": ["tar", "cf", "/dev/null"],
}


@pytest.mark.parametrize("name", STAT_WALKS)
def test_descriptor_relative_stat_loops(name: str, tree: Path, tmp_path: Path) -> None:
    words = STAT_WALKS[name]
    command = [tree if w == "TREE" else w for w in words]
    if "TREE" not in words:
        command.append(tree)
    motif = entry_loop(mined(tmp_path, *command))
    total, directories = entries(tree)
    assert motif.name == "dirscan-stat"
    assert motif.loop is not None
    assert (motif.loop.iterations, motif.loop.entries_total) == (total, total)
    assert motif.loop.scanned == directories + 1
    stat = motif.calls[0]
    assert stat.syscall == "newfstatat"
    assert [a.kind for a in stat.args[:4]] == [
        ArgKind.DIR,
        ArgKind.NAME,
        ArgKind.OUT,
        ArgKind.CONST,
    ]
    assert [s.value for s in stat.flags] == [NOFOLLOW]
    assert (stat.share, stat.optional) == (1.0, False)
    assert stat.count >= total
    assert stat.types["dir"] >= directories
    assert motif.time_ns > 0
    assert 0 < motif.share <= 1
    assert motif.pure
    assert motif.predicted["bpf"] > 0
    assert motif.loop.depth is not None
    assert motif.loop.depth.descends == 1.0


def test_ls_joins_paths(tree: Path, tmp_path: Path) -> None:
    motif = entry_loop(mined(tmp_path, "ls", "-lR", tree))
    total, directories = entries(tree)
    assert motif.name.startswith("dirscan-stat")
    statx = next(c for c in motif.calls if c.syscall == "statx")
    assert [a.kind for a in statx.args[:2]] == [ArgKind.CONST, ArgKind.PATH]
    assert (statx.count, statx.share, statx.optional) == (total, 1.0, False)
    readlink = next(c for c in motif.calls if c.syscall in ("readlink", "readlinkat"))
    assert (readlink.count, readlink.optional, readlink.types) == (1, True, {"link": 1})
    for call in motif.calls:
        for seen in call.xattrs:
            assert seen.missing + seen.unsupported == call.count
            assert call.args[0].kind is ArgKind.PATH
    assert motif.loop is not None
    assert motif.loop.depth is not None
    # A whole directory first, then its sub-directories.
    assert (motif.loop.depth.descends, motif.loop.depth.interleaved) == (1.0, 0.0)
    assert motif.loop.scanned == directories + 1


def test_find_name_is_a_walk_without_per_entry_calls(tree: Path, tmp_path: Path) -> None:
    found = mined(tmp_path, "find", tree, "-name", "zzz")
    motif = entry_loop(found)
    assert motif.only_directories
    assert motif.loop is not None
    assert motif.loop.coverage["file"] == 0.0
    assert not {"bpf", "module"} & set(motif.predicted)
    for other in found.motifs:
        if other.loop and other.loop.over is motifs.Over.ENTRIES:
            assert not any("file" in call.types for call in other.calls)
    assert any(m.name == "getdents-until-eof" for m in found.motifs)


def test_grep_reads_each_file(tree: Path, tmp_path: Path) -> None:
    motif = entry_loop(mined(tmp_path, "grep", "-r", "x", tree))
    names = {call.syscall: i for i, call in enumerate(motif.calls)}
    assert {"openat", "read", "close"} <= set(names)
    assert not motif.pure
    read = motif.calls[names["read"]]
    assert (read.args[0].kind, read.args[0].call) == (ArgKind.RESULT, names["openat"])
    total, directories = entries(tree)
    assert motif.calls[names["openat"]].types["file"] == total - directories - 1


def test_rights_that_are_copied_as_attributes_have_their_names(tree: Path, tmp_path: Path) -> None:
    """`cp -p` gives a file its rights by fsetxattr, a directory by setxattr and removexattr."""
    found = mined(tmp_path, "cp", "-pr", tree, tmp_path / "copy")
    calls = [call for motif in found.motifs for call in motif.calls if "xattr" in call.syscall]
    if not any(call.syscall == "fsetxattr" for call in calls):
        pytest.skip("this cp, or the file system, gives rights in another way")
    for call in calls:
        (name,) = (arg.text for arg in call.args if arg.kind is ArgKind.STRING and arg.text)
        assert [seen.name for seen in call.xattrs] == [name]
        if call.syscall in ("fgetxattr", "fsetxattr"):
            assert name == "system.posix_acl_access"
