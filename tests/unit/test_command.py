# SPDX-License-Identifier: MIT
"""Standard output that is full, closed or has no reader: one line, and the code of GNU tools."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

DEFAULT = ROOT / "synth" / "profiles" / "default.cosy"
COMMANDS = {
    "cosy-synth": ("synth.cli", "show", str(DEFAULT)),
    "cosy-doctor": ("synth.doctor",),
    "cosy-mine": ("miner.cli", "--help"),
    "cosy-report": ("miner.report_cli", "--help"),
    "cosy-trace": ("tracer.cli", "--help"),
    "cosy-trace show": ("tracer.cli", "show", "--help"),
    "cosy-trace export": ("tracer.cli", "export", "--help"),
    "cosy-trace import": ("tracer.cli", "import", "--help"),
}


def run(
    name: str, redirect: str, home: Path, pass_fds: tuple[int, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """The command as its script starts it, with standard output as the shell is told."""
    module, *words = COMMANDS[name]
    code = f"import sys; sys.argv[0] = {name.split()[0]!r}; from {module} import main; main()"
    return subprocess.run(
        ["bash", "-c", f'"$@" {redirect}', "bash", sys.executable, "-c", code, *words],
        env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
        pass_fds=pass_fds,
    )


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(
    ("redirect", "why"),
    [(">/dev/full", "No space left on device"), (">&-", "Bad file descriptor")],
    ids=["full", "closed"],
)
def test_output_that_cannot_be_written(name: str, redirect: str, why: str, tmp_path: Path) -> None:
    done = run(name, redirect, tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line == f"{name}: cannot write to standard output: {why}"


@pytest.mark.parametrize("name", COMMANDS)
def test_output_that_nobody_reads(name: str, tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = run(name, f">&{write}", tmp_path, pass_fds=(write,))
    finally:
        os.close(write)
    assert done.returncode == 128 + signal.SIGPIPE
    assert done.stderr == ""


def test_both_closed_is_no_traceback_either(tmp_path: Path) -> None:
    done = run("cosy-synth", ">/dev/full 2>/dev/full", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
