# SPDX-License-Identifier: MIT
"""cosy-mine as a user sees it."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from miner import motifs
from tests.unit.trace_builder import AT_FDCWD, TraceBuilder, random_tree, run

ROOT = Path(__file__).resolve().parents[2]


def cosy_mine(*args: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_DATA_HOME": "/proc/nowhere"}
    command = [sys.executable, "-m", "miner.cli", *map(str, args)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def make_trace(path: Path, lost: int = 0, program: str = "ls", **meta: object) -> Path:
    builder = TraceBuilder()
    builder.lost_events = lost
    tree = random_tree(random.Random(5), 3, 12)
    who = builder.program(f"/usr/bin/{program}")
    run(who.ls("top", tree) if program == "ls" else who.du(AT_FDCWD, "top", tree))
    return builder.write(path, **meta)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return make_trace(tmp_path / "ls.cosytrace")


@pytest.mark.usefixtures("trace")
def test_table(tmp_path: Path) -> None:
    done = cosy_mine("ls.cosytrace", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    text = done.stdout
    assert "  1. dirscan-stat-xattr" in text
    assert "each e in entries(D)" in text
    assert 'lgetxattr(D/e.name, "security.selinux")  [100% ENODATA]' in text
    assert "of time" in text
    assert "would save" in text
    assert lines[-1] == "next: cosy-synth ls.motifs.json"
    found = motifs.load(tmp_path / "ls.motifs.json")
    assert found.motifs[0].name == "dirscan-stat-xattr"
    assert found.traces[0].path == "ls.cosytrace"
    assert "LOSSY" not in text


@pytest.mark.usefixtures("trace")
def test_existing_files_are_kept(tmp_path: Path) -> None:
    target = tmp_path / "ls.motifs.json"
    target.write_text("precious")
    done = cosy_mine("ls.cosytrace", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("cosy-mine: exists already: ls.motifs.json: use --force")
    assert target.read_text() == "precious"
    assert cosy_mine("ls.cosytrace", "--force", cwd=tmp_path).returncode == 0
    assert motifs.load(target).motifs


def test_json_to_stdout_writes_nothing(trace: Path, tmp_path: Path) -> None:
    done = cosy_mine("--json", trace, cwd=tmp_path)
    assert done.returncode == 0
    assert motifs.from_json(json.loads(done.stdout)).motifs
    assert [p.name for p in tmp_path.iterdir()] == ["ls.cosytrace"]
    assert cosy_mine("--json", trace, "-o", "x.json", cwd=tmp_path).returncode == 0
    assert motifs.to_json(motifs.load(tmp_path / "x.json")) == json.loads(done.stdout)


def test_top(trace: Path, tmp_path: Path) -> None:
    done = cosy_mine(trace, "--top", "1", cwd=tmp_path)
    assert "  2. " not in done.stdout
    more = len(motifs.load(tmp_path / "ls.motifs.json").motifs)
    assert f"{more - 1} more: see them with --top {more}" in done.stdout


@pytest.mark.usefixtures("trace")
def test_lossy_traces_are_named(tmp_path: Path) -> None:
    make_trace(tmp_path / "du.cosytrace", lost=1234, program="du")
    done = cosy_mine("ls.cosytrace", "du.cosytrace", "-o", "both.json", cwd=tmp_path)
    assert "LOSSY: du.cosytrace lacks 1,234 events" in done.stdout
    assert "LOSSY: ls.cosytrace" not in done.stdout
    assert motifs.load(tmp_path / "both.json").lost_events == 1234
    assert done.stdout.startswith("2 traces, ")


def test_traces_that_lack_calls_are_named(tmp_path: Path) -> None:
    """Those that were filtered, and those of a text of which some lines were not understood."""
    some = make_trace(tmp_path / "some.cosytrace", filter="trace=openat,getdents64")
    text = make_trace(tmp_path / "text.cosytrace", program="du", unread_lines=390)
    done = cosy_mine("some.cosytrace", "text.cosytrace", "-o", "m.json", cwd=tmp_path)
    words = " ".join(done.stdout.split())
    assert "FILTERED: some.cosytrace has some of the calls only" in words
    assert "LOSSY: text.cosytrace, lines not understood: 390" in words
    assert max(map(len, done.stdout.splitlines())) <= 80
    saved = motifs.load(tmp_path / "m.json").traces
    assert [(t.filtered, t.unread_lines) for t in saved] == [(True, 0), (False, 390)]
    assert all(path.exists() for path in (some, text))


@pytest.mark.usefixtures("trace")
def test_a_trace_counts_once(tmp_path: Path) -> None:
    for again in ("ls.cosytrace", "ls.cosytrace/", "./ls.cosytrace", "other"):
        if again == "other":
            (tmp_path / again).symlink_to("ls.cosytrace")
        done = cosy_mine("ls.cosytrace", again, "--json", cwd=tmp_path)
        assert done.returncode == 1
        assert done.stderr.startswith(f"cosy-mine: given twice: {again}: ")


def test_json_shows_what_is_asked_for(trace: Path, tmp_path: Path) -> None:
    def names(*options: str) -> list[str]:
        done = cosy_mine("--json", trace, *options, "--force", cwd=tmp_path)
        assert done.returncode == 0
        return [m.name for m in motifs.from_json(json.loads(done.stdout)).motifs]

    every = names()
    assert len(every) > 2
    assert names("--top", "2") == every[:2]
    assert names("--min-saving", "1000s") == []
    savers = names("--min-saving", "1ns")
    assert savers == every[: len(savers)] != every
    assert names("--top", "1", "-o", "x.json") == every[:1]
    assert [m.name for m in motifs.load(tmp_path / "x.json").motifs] == every


def test_several_traces_are_not_mined_to_be_refused(trace: Path, tmp_path: Path) -> None:
    done = cosy_mine(trace, tmp_path / "absent", "--validate", "--rerun", cwd=tmp_path)
    assert done.returncode == 2
    assert "one trace" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["ls.cosytrace"]


def test_options_that_belong_together(trace: Path, tmp_path: Path) -> None:
    for alone in (["--rerun"], ["--runs", "5"], ["--validate", "--runs", "5"]):
        done = cosy_mine(trace, *alone, cwd=tmp_path)
        assert (done.returncode, "belongs to --validate" in done.stderr) == (2, True)


def test_without_runs_on_record_it_says_what_to_do(
    trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    done = cosy_mine(trace, "--validate", cwd=tmp_path)
    assert "nothing measured: run the traced programs under cosy-auto" in done.stdout


@pytest.mark.parametrize("delay_s", [0.5, 1.0, 1.5, 2.0, 3.0])
def test_an_interrupt_is_no_traceback(delay_s: float, tmp_path: Path) -> None:
    """Whenever it comes: to all processes that mine, as from a terminal."""
    script = tmp_path / "mine.py"
    script.write_text(
        "try:\n"
        "    from miner import execution\n"
        "    execution._POOL_ROWS = 1\n"
        "    from miner.cli import main\n"
        "except KeyboardInterrupt:\n"
        "    raise SystemExit(1)\n"
        "main()\n"
    )
    traces = [ROOT / "datasets" / f"{name}.cosytrace" for name in ("du-large", "cp", "rsync", "rm")]
    command = [sys.executable, script, *traces, "--json", "--workers", "2"]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as child:
        time.sleep(delay_s)
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGINT)
        _, complaint = child.communicate(timeout=60)
    assert "Traceback" not in complaint


def test_trace_without_motifs(tmp_path: Path) -> None:
    builder = TraceBuilder()
    builder.program("/bin/true").call("getpid", ret=7)
    builder.write(tmp_path / "true.cosytrace")
    done = cosy_mine("true.cosytrace", cwd=tmp_path)
    assert done.returncode == 0
    assert "no motifs" in done.stdout
    assert motifs.load(tmp_path / "true.motifs.json").motifs == []


@pytest.mark.parametrize("damage", ["absent", "no events", "cut", "meta", "schema", "file"])
def test_bad_traces(damage: str, trace: Path, tmp_path: Path) -> None:
    if damage == "absent":
        shutil.rmtree(trace)
    elif damage == "no events":
        (trace / "events.parquet").unlink()
    elif damage == "cut":
        data = (trace / "events.parquet").read_bytes()
        (trace / "events.parquet").write_bytes(data[: len(data) // 2])
    elif damage == "meta":
        (trace / "meta.json").write_text("{")
    elif damage == "schema":
        (trace / "meta.json").write_text('{"schema": 99}')
    else:
        shutil.rmtree(trace)
        trace.write_text("strace output")
    done = cosy_mine("ls.cosytrace", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("cosy-mine: ")
    assert len(done.stderr.splitlines()) == 1
    assert "ls.cosytrace" in done.stderr
    assert done.stdout == ""
    assert not list(tmp_path.glob("*.json*"))


@pytest.mark.parametrize(
    ("args", "code"),
    [([], 2), (["--top", "0", "x"], 2), (["--nonsense", "x"], 2), (["-o", "no/such/x", "x"], 1)],
)
def test_wrong_usage(args: list[str], code: int, tmp_path: Path) -> None:
    done = cosy_mine(*args, cwd=tmp_path)
    assert done.returncode == code
    assert done.stderr
    assert "Traceback" not in done.stderr


def test_calibration_changes_the_prediction(trace: Path, tmp_path: Path) -> None:
    (tmp_path / "slow.json").write_text('{"bpf_child_ns": 1e9, "bpf_run_ns": 1e9}')
    done = cosy_mine(trace, "--calibration", "slow.json", cwd=tmp_path)
    assert done.returncode == 0
    found = motifs.load(tmp_path / "ls.motifs.json")
    assert all("bpf" not in m.predicted for m in found.motifs)
    assert found.calibration["bpf_run_ns"] == 1e9
    bad = cosy_mine(trace, "--force", "--calibration", "absent.json", cwd=tmp_path)
    assert bad.returncode == 1
    assert "absent.json" in bad.stderr


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['cosy-mine', '--help']\n"
        "from miner.cli import main\n"
        "try: main()\n"
        "finally:\n"
        "    heavy = {'numpy', 'pandas', 'pyarrow', 'scipy', 'sklearn'} & set(sys.modules)\n"
        "    assert not heavy, heavy\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_DATA_HOME": "/proc/nowhere"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert b"cosy-synth" in done.stdout


def test_a_missing_library_is_one_line(
    trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COSY_NATIVE_DIR", str(tmp_path))
    done = cosy_mine(trace, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("cosy-mine: no libcosy-mine.so in ")
    assert done.stderr.count("\n") == 1


def test_a_cut_file_is_one_line(trace: Path, tmp_path: Path) -> None:
    events = trace / "events.parquet"
    events.write_bytes(events.read_bytes()[:-100])
    done = cosy_mine(trace, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("cosy-mine: cannot read: ")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.glob("*.motifs.json"))


def test_min_saving_hides_and_says_so(trace: Path, tmp_path: Path) -> None:
    done = cosy_mine(trace, "--min-saving", "1000s", cwd=tmp_path)
    assert "no motif would save 1,000 s" in done.stdout
    bad = cosy_mine(trace, "--min-saving", "2 weeks", cwd=tmp_path)
    assert bad.returncode == 2
    assert "is no time: write 500us, 2ms or 1s" in bad.stderr
