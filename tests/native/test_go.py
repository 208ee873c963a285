# SPDX-License-Identifier: MIT
"""Go, in programs and libraries that use the C library as well: its calls are its own.

Stands in for it: a program with a system call instruction and the note that Go's linker leaves.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from bench.never_slower import adversary
from tests.conftest import DEADLINE_S, Compiler, built, plain_environment

REASON = r"^  ran native +1 makes system calls of its own \(Go\)$"
TRUTH, STALE = "20 20000\n", "20 20\n"


@pytest.fixture(scope="module")
def library(compiled: Compiler) -> Path:
    return compiled("go_library.c", "-shared", "-fPIC", name="libgolib.so")


def report(program: Path, executor: Path, folder: Path) -> tuple[str, str]:
    """Output, and what --stats says."""
    assert executor.exists()
    files = folder / "files"
    files.mkdir()
    done = subprocess.run(
        [
            *(built("build", "shim/launcher/cosy-auto"), "--stats", "--max-age", "60000"),
            *("--profile", adversary(folder), program, files),
        ],
        env={**plain_environment(), "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
    )
    return done.stdout, done.stderr


def test_without_a_note_nobody_knows(compiled: Compiler, executor: Path, tmp_path: Path) -> None:
    """The documented limit; were this the truth, the tests below would prove nothing."""
    said, statistics = report(compiled("go_calls.c"), executor, tmp_path)
    assert said == STALE
    assert "ran native" not in statistics


@pytest.mark.parametrize("place", ["-pie", "-no-pie"])
def test_a_program(compiled: Compiler, executor: Path, tmp_path: Path, place: str) -> None:
    flags = ["-fPIE", "-pie"] if place == "-pie" else ["-fno-pie", "-no-pie"]
    program = compiled("go_calls.c", "-DNOTE", *flags, name=f"go{place}")
    said, statistics = report(program, executor, tmp_path)
    assert said == TRUTH
    assert re.search(REASON, statistics, re.M)


def test_a_library(compiled: Compiler, executor: Path, library: Path, tmp_path: Path) -> None:
    where = f"-Wl,-rpath,{library.parent}"
    program = compiled("go_calls.c", "-DLIBRARY", str(library), where, name="with-go")
    said, statistics = report(program, executor, tmp_path)
    assert said == TRUTH
    assert re.search(REASON, statistics, re.M)
