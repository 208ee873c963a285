# SPDX-License-Identifier: MIT
"""Any dataset of the right schema is mined, however little sense it makes: lost events, calls on
descriptors that nobody opened, unknown numbers, calls without an end."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from miner import cost, execution, mine, motifs, pieces
from miner.page import page
from miner.report import lines
from tests.unit.trace_builder import TraceBuilder
from tracer import syscalls

NAMES = [
    *("openat", "read", "write", "close", "newfstatat", "getdents64", "lgetxattr", "readlink"),
    *(
        "chdir",
        "fchdir",
        "accept4",
        "recvfrom",
        "sendfile",
        "epoll_wait",
        "dup2",
        "pread64",
        "mmap",
    ),
    *("execve", "exit_group", "getpid", "copy_file_range", "fcntl", "socketpair"),
]
PATHS = [None, "", ".", "..", "/", "a", "a/b", "/x//y/", "../z", "%FF", "n" * 300, "a\nb", "<&>"]


def nonsense(seed: int, count: int) -> TraceBuilder:
    rng = random.Random(seed)
    builder = TraceBuilder()
    builder.lost_events = rng.randrange(3)
    programs = [builder.program(f"/bin/p{i}", rng.choice(["/", "", "/w"])) for i in range(3)]
    for kind in ("file", "directory", "socket", "pipe", "other", "new kind"):
        event = rng.choice([None, rng.randrange(count + 1)])
        builder.new_object(kind, rng.choice(["/d", "", "rel", "/d/e"]), event)
    for _ in range(count):
        program = rng.choice(programs)
        args = tuple(rng.choice([0, 1, 3, 4096, 2**64 - 100, 2**63, 2**64 - 1]) for _ in range(6))
        more = {
            "path": rng.choice(PATHS),
            "path2": rng.choice([None, None, "user.x", ""]),
            "object_id": rng.choice([None, *range(len(builder.objects))]),
            "names": rng.choice([None, [], [rng.getrandbits(32) for _ in range(3)]]),
            "st_mode": rng.choice([None, 0o40755, 0o100644, 0]),
            "st_size": rng.choice([None, 0, 100, -1]),
        }
        builder.add(program, rng.choice(NAMES), args, 0, rng.randrange(5000), **more)
        builder.rows[-1]["ret"] = rng.choice([None, 0, 1, 3, 4096, -2, -20, -22, -4096, 2**62])
        if rng.random() < 0.1:
            builder.rows[-1]["nr"] = rng.choice([-1, 9999, 600, 32767])
        builder.rows[-1]["tid"] = rng.choice([program.pid, 5, 2**31 - 1])
    return builder


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(0, 10**9), st.sampled_from([0, 1, 2, 7, 150, 700]))
def test_nonsense_is_mined(seed: int, count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = nonsense(seed, count).write(Path(folder) / "t" / "t.cosytrace")
        found = mine.mine([path], cost.Calibration(), workers=1)
        assert found.traces[0].events == count
        total = found.traces[0].time_ns
        assert sum(m.own_ns for m in found.motifs) <= total
        assert motifs.from_json(motifs.to_json(found)) == found
        assert all(len(line) <= 80 for line in lines(found, 5))
        assert page(found, 5).endswith("</html>\n")
        trace, parts = pieces.open_trace(path, 64)
        with execution.local(trace.rows, 1) as run:
            partials = run(list(pieces.tasks(trace, parts)))
        assert sum(p.work_ns for p in partials) == total


def test_every_call_of_the_table_alone(tmp_path: Path) -> None:
    """A trace of each call thrice, of one kind only."""
    builder = TraceBuilder()
    program = builder.program("/bin/all")
    for name in syscalls.by_name():
        for i in range(3):
            builder.add(program, name, (i, 2, 3, 4, 5, 6), 0, path="/p", path2="q")
    found = mine.mine([builder.write(tmp_path / "t.cosytrace")], cost.Calibration(), workers=1)
    assert found.traces[0].events == 3 * len(syscalls.by_name())


@pytest.mark.parametrize("lost", [0, 5])
def test_lost_events_are_carried(lost: int, tmp_path: Path) -> None:
    builder = nonsense(1, 20)
    builder.lost_events = lost
    found = mine.mine([builder.write(tmp_path / "t.cosytrace")], cost.Calibration(), workers=1)
    assert found.lost_events == lost
    assert any("LOSSY" in line for line in lines(found, 1)) == bool(lost)
