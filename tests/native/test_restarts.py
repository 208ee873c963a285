# SPDX-License-Identifier: MIT
"""Calls that signals interrupt: the shim tells of them what ptrace sees."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pyarrow.compute as pc
import pytest

from tests.conftest import Compiler
from tests.native.tracing import Tracer, environment
from tracer.dataset import Dataset
from tracer.summary import summarize
from tracer.syscalls import name_of

EINTR, ERESTARTSYS = -4, -512
Found = list[tuple[str, int, int, int]]


@pytest.fixture
def tracer(native_dir: Path, tmp_path: Path) -> Tracer:
    return Tracer(environment(native_dir), tmp_path)


def after_sigaction(data: Dataset) -> Found:
    """Name, result, begin and end of the first process's calls, from when the handler is there."""
    events = data.events(["t_ns", "dur_ns", "pid", "nr", "ret"])
    rows = events.filter(pc.equal(events["pid"], events["pid"][0])).to_pylist()
    calls = [
        (name_of(row["nr"]), row["ret"], row["t_ns"], row["t_ns"] + row["dur_ns"]) for row in rows
    ]
    begin = max(i for i, call in enumerate(calls) if call[0] == "rt_sigaction")
    return [call for call in calls[begin:] if call[0] in ("read", "write", "getppid")]


def test_each_beginning_of_a_restarted_call_is_seen(tracer: Tracer, compiled: Compiler) -> None:
    program = compiled("interrupted.c")
    told = {}
    for backend in ("shim", "ptrace"):
        done, data = tracer.trace("--backend", backend, program, "3")
        assert done.returncode == 0, done.stderr
        calls = after_sigaction(data)
        told[backend] = [
            (name, ret if name == "read" else None) for name, ret, _begin, _end in calls
        ]
        assert all(a[3] <= b[2] + 1 for a, b in pairwise(calls)), backend
        assert summarize(data).restarted == 3
    again = [("read", ERESTARTSYS), ("getppid", None), ("write", None)]
    assert told["shim"] == told["ptrace"] == [*again * 3, ("read", 1)]


def test_an_interrupted_call_ends_before_the_handler(tracer: Tracer, compiled: Compiler) -> None:
    done, data = tracer.trace("--backend", "shim", compiled("interrupted.c"), "2", "once")
    assert done.returncode == 0, done.stderr
    calls = after_sigaction(data)
    again = [("read", EINTR), ("getppid",), ("write", 1)]
    assert [call[: 1 + (call[0] != "getppid")] for call in calls] == [*again * 2, ("read", 1)]
    assert all(a[3] <= b[2] + 1 for a, b in pairwise(calls))
    found = summarize(data)
    assert (found.interrupted, found.restarted) == (2, 0)


def test_programs_get_their_own_handlers_back(tracer: Tracer) -> None:
    program = """
import os, signal, subprocess
def first(*_): print("first")
signal.signal(signal.SIGUSR1, first)
signal.signal(signal.SIGUSR2, signal.SIG_IGN)
os.kill(os.getpid(), signal.SIGUSR1)
assert signal.signal(signal.SIGUSR1, signal.SIG_DFL) is first
child = subprocess.run(["grep", "-E", "Sig(Ign|Cgt)", "/proc/self/status"], capture_output=True)
print(child.stdout.decode())
"""
    command = ["python3", "-c", program]
    done = tracer.trace("--backend", "shim", *command)[0]
    assert done.stdout == tracer.native(*command).stdout
