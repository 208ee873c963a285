# SPDX-License-Identifier: MIT
"""Ctrl-C in a command that does not record: it dies by SIGINT, and leaves nothing half-written."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tracer.interrupt import promised, uninterrupted

STRACE = '7 1.1 openat(AT_FDCWD, "/x", O_RDONLY) = 3 <0.1>\n7 1.3 close(3) = 0 <0.1>\n'
COSTLY = "du-large.cosytrace"  # a dataset whose motifs give compounds


@dataclass(frozen=True)
class Case:
    """A command, and the files that it writes."""

    module: str
    words: tuple[str, ...]
    outputs: tuple[str, ...] = ()


CASES = {
    "cosy-trace import": Case(
        "tracer.cli", ("import", "strace.txt", "-o", "out.cosytrace"), ("out.cosytrace",)
    ),
    "cosy-trace export": Case(
        "tracer.cli", ("export", "--format", "csv", "-o", "out.csv", COSTLY), ("out.csv",)
    ),
    "cosy-trace show": Case("tracer.cli", ("show", COSTLY)),
    "cosy-mine": Case("miner.cli", ("-o", "out.json", COSTLY), ("out.json",)),
    "cosy-report": Case("miner.report_cli", ("--html", "out.html", "du.json"), ("out.html",)),
    "cosy-synth": Case("synth.cli", ("-o", "out", "du.json"), ("out.cosy", "out.img")),
    "cosy-doctor": Case("synth.doctor", ()),
}
SHARES = (0.02, 0.5, 0.8, 0.93, 0.995)  # of a command's calls of Python functions
# Interrupts itself at the nth call of a function, which no machine's pace can change, and all in
# its process group, as a terminal does.
PROGRAM = """
import os, signal, sys
nth, told, name, module, *words = sys.argv[1:]
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
sys.argv = [name, *words]
calls = 0
def count(frame, event, argument):
    global calls
    calls += event == "call"
    if calls == int(nth) and event == "call":
        sys.setprofile(None)
        os.kill(0, signal.SIGINT)
from tracer.start import begin
sys.setprofile(count)
try:
    begin(module)
except SystemExit:
    sys.setprofile(None)
    os.write(int(told), str(calls).encode())
    raise
"""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the commands read."""
    from miner import cost, mine, motifs

    folder = tmp_path_factory.mktemp("inputs")
    shutil.copytree(ROOT / "datasets" / COSTLY, folder / COSTLY)
    (folder / "strace.txt").write_text(STRACE)
    motifs.save(mine.mine([folder / COSTLY], cost.Calibration()), folder / "du.json")
    return folder


def interrupted(name: str, nth: int, folder: Path) -> tuple[int, str, int]:
    """Exit code, stderr, and how many calls it made if it ended by itself."""
    case = CASES[name]
    (folder / "tmp").mkdir(exist_ok=True)
    read, write = os.pipe()
    words = [str(nth), str(write), name.split()[0], case.module, *case.words]
    try:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *words],
            cwd=folder,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "HOME": str(folder),
                "TMPDIR": str(folder / "tmp"),
            },
            capture_output=True,
            text=True,
            check=False,
            pass_fds=(write,),
            start_new_session=True,
        )
    finally:
        os.close(write)
    with os.fdopen(read) as told:
        return done.returncode, done.stderr, int(told.read() or 0)


def content(path: Path) -> list[str] | bytes:
    return sorted(os.listdir(path)) if path.is_dir() else path.read_bytes()


@pytest.mark.parametrize("name", CASES)
def test_interrupts(name: str, inputs: Path, tmp_path: Path) -> None:
    outputs = CASES[name].outputs
    whole = tmp_path / "whole"
    shutil.copytree(inputs, whole)
    code, complaint, calls = interrupted(name, 0, whole)
    assert code in (0, 1), complaint
    there = {path.name for path in whole.iterdir()} - set(outputs)

    said = 0
    for share in SHARES:
        folder = tmp_path / str(share)
        shutil.copytree(inputs, folder)
        code, complaint, _ = interrupted(name, round(share * calls), folder)
        assert code == -signal.SIGINT, (share, complaint)
        found = {path.name for path in folder.iterdir()}
        assert found <= there | set(outputs), share
        assert not list((folder / "tmp").iterdir()), share
        for output in found & set(outputs):
            assert content(folder / output) == content(whole / output), share
        assert found.isdisjoint(outputs) or found.issuperset(outputs), share
        if complaint:
            state = "is" if found & set(outputs) else "not"
            expected = ", ".join(f"{output} {state} written" for output in outputs)
            # What it had to say before is no concern here.
            assert complaint.splitlines()[-1] == f"{name}: interrupted: {expected}"
            said += 1
    assert bool(said) == bool(outputs)


def test_a_loop_of_a_script_ends(inputs: Path) -> None:
    """A shell goes on after a command that exits, and ends with one that SIGINT has ended."""
    program = inputs / "program.py"
    program.write_text(PROGRAM)
    show = f'"{sys.executable}" {program} 5000 2 cosy-trace tracer.cli show {COSTLY}'
    script = f"for i in 1 2; do {show}; echo goes on; done"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=inputs,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C is not ignored, where the tests run in the background either."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_what_became_of_a_promise(tmp_path: Path) -> None:
    old, new, kept = (tmp_path / name for name in ("old", "new", "kept"))
    for path in (old, kept):
        path.write_text("old")

    def work() -> None:
        with promised(old, new, kept, None, otherwise="!"):
            for path in (old, new):
                (tmp_path / "scratch").write_text("new")
                (tmp_path / "scratch").replace(path)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as caught:
        work()
    notes = [f"{old} is written", f"{new} is written", f"{kept} not written", "!"]
    assert caught.value.__notes__ == notes


@pytest.mark.usefixtures("interruptible")
def test_a_device_is_cut_short() -> None:
    with pytest.raises(KeyboardInterrupt) as caught, promised(Path("/dev/null")):
        signal.raise_signal(signal.SIGINT)
    assert caught.value.__notes__ == ["/dev/null cut short"]


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_waits() -> None:
    done = []
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])

    def work() -> None:
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            done.append(1)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == mask
