# SPDX-License-Identifier: MIT
"""Full disks and file size limits: without storage for files of ours a program simply runs."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from bench.harness import script
from tests.conftest import DEADLINE_S, plain_environment
from tests.native.tracing import COSY_TRACE

AUTO = script("cosy-auto")
LIMIT = "ulimit -f 1; "
FULL = "mount -t tmpfs -o size=256k none {0} || exit 99; "
FILL = "dd if=/dev/zero of={0}/fill bs=4k status=none 2>/dev/null; "
TABLE = 16 + 16 * 1024
"""Bytes of the table of programs (shim/leaf_table.h)."""


class Shell:
    """Runs shell scripts in a mount namespace of their own, on a home of their own."""

    def __init__(self, folder: Path) -> None:
        self.tree, self.small, self.cache = (folder / n for n in ("tree", "small", "cache"))
        for path in (self.tree, self.small, self.cache):
            path.mkdir(mode=0o700)
        for name in "abc":
            (self.tree / name).touch()
        self.env = {**plain_environment(), "HOME": str(folder)}
        for name in ("XDG_RUNTIME_DIR", "TMPDIR"):
            self.env.pop(name, None)
        self.env["XDG_CACHE_HOME"] = str(self.cache)

    def __call__(self, text: str, **env: Path) -> subprocess.CompletedProcess[str]:
        """Not traced and not timed: what comes out, and how it ends."""
        apart = ["unshare", "-m"] if os.geteuid() == 0 else []
        return subprocess.run(
            [*apart, "sh", "-c", text],
            env={**self.env, **{key: str(value) for key, value in env.items()}},
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )

    def listing(self, done: subprocess.CompletedProcess[str]) -> str:
        """What else but the program's own output there was."""
        assert (done.returncode, done.stdout) == (0, "a\nb\nc\n"), done
        return done.stderr


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture
def full(shell: Shell) -> str:
    """The start of a script: a file system of which nothing is left."""
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    return FULL.format(shell.small) + FILL.format(shell.small)


def test_a_full_cache(shell: Shell, full: str) -> None:
    done = shell(f"{full} exec {AUTO} ls {shell.tree}", XDG_CACHE_HOME=shell.small)
    assert shell.listing(done) == ""


def test_a_full_cache_with_a_table_of_holes(shell: Shell, full: str) -> None:
    text = shell.small / "cosy" / "text"
    table = text / "leaves"
    made = f"mkdir -m 700 {text.parent} {text}; truncate -s {TABLE} {table}; chmod 600 {table}; "
    before = full.replace("dd ", made + "dd ")
    for command in (f"{AUTO} ls {shell.tree}", f"{AUTO} --stats ls {shell.tree} 2>/dev/null"):
        assert shell.listing(shell(f"{before} exec {command}", XDG_CACHE_HOME=shell.small)) == ""


def test_a_table_of_holes_is_filled_where_there_is_room(shell: Shell) -> None:
    text = shell.cache / "cosy" / "text"
    text.mkdir(parents=True, mode=0o700)
    table = text / "leaves"
    table.touch(mode=0o600)
    os.truncate(table, TABLE)
    before = table.stat().st_blocks
    assert shell.listing(shell(f"exec {AUTO} ls {shell.tree}")) == ""
    assert before * 512 < TABLE <= table.stat().st_blocks * 512


def test_statistics_go_where_there_is_room(shell: Shell, full: str) -> None:
    done = shell(f"{full} exec {AUTO} --stats ls {shell.tree}", TMPDIR=shell.small)
    assert re.search(r"program images +1\n", shell.listing(done))


def test_a_file_size_limit(shell: Shell) -> None:
    assert shell.listing(shell(f"{LIMIT} exec {AUTO} ls {shell.tree}")) == ""


def test_statistics_under_a_file_size_limit(shell: Shell) -> None:
    said = shell.listing(shell(f"{LIMIT} exec {AUTO} --stats ls {shell.tree}"))
    assert said == "cosy-auto: no statistics: no temporary folder takes a file of 16 KiB\n"


def trace(shell: Shell, *command: str) -> str:
    return shlex.join([*COSY_TRACE, "-o", str(shell.tree.parent / "out"), *command])


def test_a_trace_under_a_file_size_limit(shell: Shell) -> None:
    done = shell(f"{LIMIT} {trace(shell, 'ls', str(shell.tree))}")
    assert (done.returncode, done.stdout) == (1, "a\nb\nc\n")
    assert re.fullmatch(r"cosy-trace: not recorded: \S+ could not write to .+\n", done.stderr)


def test_a_traced_program_limits_itself(shell: Shell) -> None:
    """The blocks that are filled in turn need more of the file, once there are many events."""
    busy = f"{LIMIT} i=0; while [ $i -lt 60000 ]; do cd /; i=$((i + 1)); done; echo well"
    done = shell(trace(shell, "sh", "-c", busy))
    assert (done.returncode, done.stdout.splitlines()[:1]) == (0, ["well"])
    assert re.search(r"^lost events: [1-9]", done.stdout + done.stderr, re.M)
