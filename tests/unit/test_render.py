# SPDX-License-Identifier: MIT
"""Calls as text, and mining that survives whatever a trace holds."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from miner import cost, mine, motifs, pieces, report
from miner.render import body_line, call_line, flag_names
from tests.unit.test_motifs import example_file
from tests.unit.trace_builder import AT_FDCWD, REG, TraceBuilder, fnv
from tracer import syscalls
from tracer.syscalls import ArgKind


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (ArgKind.AT_FLAGS, 0, "0"),
        (ArgKind.AT_FLAGS, 0x1100, "AT_SYMLINK_NOFOLLOW|AT_EMPTY_PATH"),
        (ArgKind.AT_FLAGS, 0x80000100, "AT_SYMLINK_NOFOLLOW|0x80000000"),
        (ArgKind.OPEN_FLAGS, 0, "O_RDONLY"),
        (ArgKind.OPEN_FLAGS, 0o2000101, "O_WRONLY|O_CREAT|O_CLOEXEC"),
        (ArgKind.OPEN_FLAGS, 3, "0x3"),
    ],
)
def test_flag_names(kind: ArgKind, value: int, text: str) -> None:
    assert flag_names(kind, value) == text


def test_call_lines(tmp_path: Path) -> None:
    builder = TraceBuilder()
    program = builder.program("/bin/x")
    program.stat(AT_FDCWD, "a b", REG)
    program.getxattr("getxattr", "f", "user.x", 0)
    program.call("exit_group", 3)
    builder.rows[-1]["ret"] = None
    builder.rows[-1]["nr"] = 999
    trace = pieces.read(builder.write(tmp_path / "t.cosytrace"))
    assert [call_line(trace, i) for i in range(3)] == [
        'newfstatat(AT_FDCWD, "a b", ..., AT_SYMLINK_NOFOLLOW) = 0',
        'getxattr("f", "user.x", NULL, 0) = -1 ENODATA',
        "syscall_999() = ?",
    ]


def test_body_lines_leave_buffers_out() -> None:
    call = example_file().motifs[0].calls[0]
    assert body_line(call) == "newfstatat(D, e.name, AT_SYMLINK_NOFOLLOW)"
    call.args[3] = motifs.Arg(motifs.ArgKind.UNKNOWN)
    assert body_line(call) == "newfstatat(D, e.name, ?)"
    call.flags = [motifs.Seen(0, 30), motifs.Seen(256, 10), motifs.Seen(512, 0)]
    assert body_line(call) == "newfstatat(D, e.name, 0 or AT_SYMLINK_NOFOLLOW)"


@pytest.mark.parametrize(
    ("value", "text"),
    [(7, "7 ns"), (1500, "1.5 µs"), (2.5e6, "2.5 ms"), (1e9, "1 s"), (9.9e12, "9,900 s")],
)
def test_times(value: float, text: str) -> None:
    assert report.nanoseconds(value) == text


def test_predictions_name_the_executor_that_gains() -> None:
    slow = example_file().motifs[0]
    slow.calls[0].time_ns = 100_000 * slow.calls[0].count
    assert cost.predict(slow, cost.Calibration())["ahead"] == int(4_000_000 * 0.65)
    fast = example_file().motifs[0]
    assert "ahead" not in cost.predict(fast, cost.Calibration())
    costs = cost.Calibration(inline_ns=10)
    assert cost.predict(fast, costs, known_ends=5, known_ends_ns=1050)["inline"] == 1000


@pytest.mark.parametrize("seed", range(8))
def test_any_trace_can_be_mined(seed: int, tmp_path: Path) -> None:
    """Calls, arguments, results and paths at random: nothing may break, and the table fits."""
    rng = random.Random(seed)
    builder = TraceBuilder()
    programs = [builder.program(f"/bin/p{i}", cwd=rng.choice(["/", "/a", ""])) for i in range(3)]
    names = [*syscalls.by_name(), *(["newfstatat", "openat", "getdents64", "close"] * 60)]
    words = ["", ".", "..", "/", "a", "b", "a/b", "/a", "//a/./b/", "a/../b", "%FF", "x" * 300]
    for _ in range(1500):
        program = rng.choice(programs)
        name = rng.choice(names)
        args = [rng.choice([0, 1, 3, 4, AT_FDCWD, 2**63, rng.getrandbits(64)]) for _ in range(6)]
        more: dict[str, Any] = {
            "path": rng.choice([None, *words]),
            "path2": rng.choice([None, None, "user.x"]),
        }
        ret = rng.choice([0, 0, 3, 4, 100, -2, -61, -4095, -5000, 2**40])
        if name == "getdents64":
            entries = [fnv(w, rng.randrange(16)) for w in rng.sample(words, rng.randrange(9))]
            more["names"] = rng.choice([entries, entries, None])
        if name == "openat" and ret in (3, 4):
            path = f"/{more['path']}" if more["path"] else ""
            row = len(builder.rows)
            program.fds[ret] = builder.new_object("directory", path, rng.choice([row, None]))
        program.call(name, *args, ret=ret, **more)
        row_now = builder.rows[-1]
        row_now["ret"] = rng.choice([ret, ret, ret, None])
        row_now["nr"] = rng.choice([row_now["nr"]] * 20 + [-1, 999, 32767])
        row_now["tid"] += rng.randrange(2)
        row_now["st_mode"] = rng.choice([None, None, 0o100644, 0o40755, 0])
    trace = builder.write(tmp_path / "t.cosytrace")
    again = shutil.copytree(trace, tmp_path / "again.cosytrace")
    found = mine.mine([trace, again], cost.Calibration())
    motifs.save(found, tmp_path / "m.json")
    assert motifs.load(tmp_path / "m.json") == found
    assert max(len(line) for line in report.lines(found, 1000)) <= 400
