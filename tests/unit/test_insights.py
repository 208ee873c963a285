# SPDX-License-Identifier: MIT
"""What a summary says besides its table."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.unit.trace_builder import REG, TraceBuilder, run
from tracer import insights, summary
from tracer.dataset import Dataset, Writer
from tracer.summary import render, summarize
from tracer.symbols import Symbols


def test_own_time_is_what_no_call_covers() -> None:
    tid = np.array([1, 1, 2, 1, 2])
    start = np.array([0, 10, 10, 12, 50])
    duration = np.array([5, 10, 10, 3, 10])  # the third of thread 1 lies within its second
    assert insights.own_ns(tid, start, duration) == 5 + 30
    assert insights.own_ns(tid[:0], start[:0], duration[:0]) == 0


def test_processes_are_listed_behind_their_parents(tmp_path: Path) -> None:
    builder = TraceBuilder()
    for pid, ppid, argv in (
        (10, 1, ["/bin/sh"]),
        (11, 10, ["/bin/sh"]),
        (12, 10, ["/bin/wc", "-l"]),
        (13, 11, ["/bin/sh"]),
    ):
        program = builder.program(argv[0], pid=pid)
        builder.processes[-1] |= {"ppid": ppid, "argv": argv}
        builder.add(program, "getpid", (), 1, dur_ns=pid)
    builder.program("/bin/ls", pid=13)
    builder.processes[-1] |= {"ppid": 11, "argv": ["ls"]}
    found = summarize(Dataset(builder.write(tmp_path / "t"))).processes_by_start
    assert [(p.pid, p.depth, p.programs) for p in found] == [
        (10, 0, ["sh"]),
        (11, 1, ["sh"]),
        (13, 2, ["ls"]),
        (12, 1, ["wc -l"]),
    ]
    assert [(p.calls, p.time_ns) for p in found] == [(1, 10), (1, 11), (1, 13), (1, 12)]


def test_files_are_summed_over_names_and_descriptors(tmp_path: Path) -> None:
    builder = TraceBuilder()
    program = builder.program("/bin/x")
    folder = builder.new_object("directory", "/d")
    file = builder.new_object("file", "/d/f")
    at = {"dur_ns": 5000}
    builder.add(program, "newfstatat", (3,), 0, path="f", object_id=folder, bytes_out=144, **at)
    builder.add(program, "read", (4,), 7, object_id=file, bytes_out=7, **at)
    builder.add(program, "stat", (), -2, path="/none", **at)
    builder.add(program, "getpid", (), 1)
    found = summarize(Dataset(builder.write(tmp_path / "t"))).files
    assert [(f.path, f.calls, f.errors, f.time_ns) for f in found] == [
        ("/d/f", 2, 0, 10000),
        ("/none", 1, 1, 5000),
    ]
    assert found[0].bytes == 144 + 7 + 1


def test_only_harmless_calls_can_be_removed(tmp_path: Path) -> None:
    assert insights.harmless(["openat", "newfstatat+", "write", "fork"]) == 2
    builder = TraceBuilder()
    program = builder.program("/bin/x")
    for _ in range(50):
        for name in ("openat", "fstat", "write", "close"):
            builder.add(program, name, (3,), 3)
    boundary = summarize(Dataset(builder.write(tmp_path / "t"))).boundary
    assert boundary.removable_calls == 150 - 50
    assert boundary.removable_ns == 100 * boundary.crossing_ns > 0


def test_a_summary_does_without_pandas() -> None:
    """It takes longer to load than all the rest of a short recording."""
    code = """import sys
from tracer.dataset import Dataset
from tracer.show import text_of
for name in ("gcc", "sqlite-insert"):
    text_of(Dataset(f"datasets/{name}.cosytrace"), False)
sys.exit("pandas" in sys.modules)"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_interruptions_and_restarts(tmp_path: Path) -> None:
    builder = TraceBuilder()
    program = builder.program("/bin/x")
    for ret in (-4, -512, -516, -2, 0):
        builder.add(program, "read", (3,), ret)
    found = summarize(Dataset(builder.write(tmp_path / "t")))
    assert (found.interrupted, found.restarted) == (1, 2)
    assert "1 calls interrupted, 2 restarted" in render(found)


def test_what_the_shim_cannot_see_is_not_called_none(tmp_path: Path) -> None:
    builder = TraceBuilder()
    builder.add(builder.program("/bin/x"), "read", (3,), -4)
    data = Dataset(builder.write(tmp_path / "t"))
    data.meta["backend"] = "shim"
    assert summarize(data).restarted is None
    assert "1 calls interrupted, restarts are not seen" in render(summarize(data))
    data.meta["restarts"] = "after handlers"
    assert summarize(data).restarted == 0
    assert "1 calls interrupted, 0 restarted (after handlers only)" in render(summarize(data))
    del data.meta["restarts"]
    data.meta["backend"] = "bcc"
    assert summarize(data).restarted == 0


def test_lines_fit_a_terminal(tmp_path: Path) -> None:
    builder = TraceBuilder()
    program = builder.program("/bin/" + "long" * 30)
    builder.program("/bin/" + "other" * 30)
    deep = {"folder " * 20 + str(i): None for i in range(3)}
    run(program.grep(-100, "/x" * 60, deep))
    builder.add(program, "stat", (), 0, path="/p" * 200, st_mode=REG)
    text = render(summarize(Dataset(builder.write(tmp_path / "t"))))
    assert max(len(line) for line in text.splitlines()) <= 80


def test_symbols_of_a_stripped_library(tmp_path: Path) -> None:
    if not shutil.which("cc") or not shutil.which("strip"):
        pytest.skip("cc is not installed")
    source = b"int shown(int n) { return n + 1; }\nstatic int hidden(int n) { return n * 2; }\n"
    source += b"int (*keep)(int) = hidden;\n"
    library = tmp_path / "lib.so"
    command = ["cc", "-O0", "-shared", "-fPIC", "-x", "c", "-o", str(library), "-"]
    subprocess.run(command, input=source, check=True)
    listing = subprocess.run(["nm", library], capture_output=True, text=True, check=True).stdout
    at = {line.split()[2]: int(line.split()[0], 16) for line in listing.splitlines() if
          len(line.split()) == 3}  # fmt: skip
    assert Symbols(str(library)).name(at["hidden"] + 2) == "hidden+0x2"
    subprocess.run(["strip", library], check=True)
    stripped = Symbols(str(library))
    assert stripped.name(at["shown"] + 1) == "shown+0x1"
    assert stripped.name(at["hidden"] + 2) is None
    assert stripped.name(0) is None


@pytest.mark.parametrize("data", [b"", b"\x7fELF\x02", b"\x7fELF\x02" + b"\xff" * 200])
def test_symbols_of_a_broken_file(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x").write_bytes(data)
    assert Symbols(str(tmp_path / "x")).name(16) is None
    assert Symbols(str(tmp_path / "none")).name(16) is None


@pytest.mark.parametrize("batch", [1, 7, 100])
def test_a_summary_of_many_parts_is_that_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    builder = TraceBuilder()
    one, two = builder.program("/bin/x"), builder.program("/bin/y")
    run(one.grep(-100, "/a", {"f": None, "g": {"h": None}}), two.grep(-100, "/b", {"f": None}))
    builder.add(one, "read", (3,), -4, dur_ns=77)
    data = Dataset(builder.write(tmp_path / "t"))
    # Row groups and parts end in the midst of everything.
    with Writer(tmp_path / "small", row_group=5) as writer:
        writer.write_events(data.events())
        writer.finish(data.processes(), data.objects(), {**data.meta, "crossing_ns": 90})
    small = Dataset(tmp_path / "small")
    whole = summarize(small)
    monkeypatch.setattr(summary, "BATCH", batch)
    monkeypatch.setattr(insights, "MAX_ROWS", 3)
    assert len(data) > 30
    assert summarize(small) == whole
    assert len(whole.files) > 3
