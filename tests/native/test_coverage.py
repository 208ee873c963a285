# SPDX-License-Identifier: MIT
"""Next to nothing that strace sees passes by the shim.

What a program does before the shim's constructor is fixed (30 to 60 calls), so the same program on
an empty directory is subtracted from both sides: what remains is its real work.
"""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from bench.coverage import counted_by_strace, seen_by_shim
from bench.harness import Job

ENTRIES = 1500
AT_LEAST = 0.999


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tree of some size, and an empty one."""
    empty, full = tmp_path_factory.mktemp("empty"), tmp_path_factory.mktemp("full")
    for i in range(ENTRIES):
        folder = full / f"folder{i % 30}"
        folder.mkdir(exist_ok=True)
        (folder / f"file{i}").write_bytes(b"some words\n" * (i % 7))
    return empty, full


@pytest.mark.usefixtures("native_dir")
@pytest.mark.parametrize(
    "command",
    [
        ("du", "-s"),
        ("ls", "-lR"),
        ("find", "-size", "+100M"),
        ("grep", "-r", "no such words"),
        ("tar", "cf", "/dev/null"),
    ],
    ids=lambda command: command[0],
)
def test_calls_pass_through_the_shim(
    trees: tuple[Path, Path], tmp_path: Path, command: tuple[str, ...]
) -> None:
    for program in ("strace", command[0]):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    there, seen = Counter[str](), Counter[str]()
    for sign, tree in zip((-1, 1), trees, strict=True):
        # find wants the directory in front of its tests.
        words = (*command[:1], str(tree), *command[1:]) if command[0] == "find" else None
        job = Job(words or (*command, str(tree)))
        folder = tmp_path / str(sign)
        folder.mkdir()
        for name, n in counted_by_strace(job, folder).items():
            there[name] += sign * n
        for name, n in seen_by_shim(job, folder).items():
            seen[name] += sign * n
    total = sum(there.values())
    assert total > ENTRIES
    assert sum((there & seen).values()) >= AT_LEAST * total, (there - seen).most_common(5)
