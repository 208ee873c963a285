# SPDX-License-Identifier: MIT
"""Nothing is lost without a word: loss is forced wherever it can happen, and reported."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.native.tracing import COSY_TRACE, Done, Tracer, counts, environment
from tracer.backends import bcc
from tracer.dataset import Dataset

N = 20_000
# Less room than a full block takes, in pages of 4096 bytes: a program with --block waits now.
UNTIL_FULL = "until [ $(stat -f -c %a $TMPDIR) -lt 36 ]; do sleep 0.05; done; sleep 0.2"


@pytest.fixture
def tracer(native_dir: Path, tmp_path: Path) -> Tracer:
    return Tracer(environment(native_dir), tmp_path)


def dd(count: int) -> list[str]:
    return ["dd", "if=/dev/zero", "of=/dev/null", "bs=1", f"count={count}", "status=none"]


def in_small_tmpfs(tracer: Tracer, size: str, script: str, *words: str) -> Done:
    """cosy-trace with its raw files in a tmpfs of this size; `script` runs before it."""
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    raw = tracer.folder / "raw"
    raw.mkdir()
    command = shlex.join([*COSY_TRACE, *words])
    return tracer.native(
        *("unshare", "-m", "sh", "-c"),
        f"mount -t tmpfs -o size={size} none {raw} || exit 99; export TMPDIR={raw}; {script}"
        f"{command}",
    )


def test_a_full_disk_is_counted(tracer: Tracer) -> None:
    out = tracer.folder / "out"
    done = in_small_tmpfs(tracer, "2m", "", "-o", str(out), *dd(N))
    assert done.returncode == 0, done.stderr
    data = Dataset(out)
    lost = data.meta["lost_events"]
    assert lost > N
    whole = counts(Dataset(tracer.trace(*dd(N))[1].path)).total()
    assert counts(data).total() + lost == whole
    assert f"lost events: {lost:,}" in done.stderr.decode()


def test_with_block_the_program_waits_for_room(tracer: Tracer) -> None:
    out = tracer.folder / "out"
    filler = "head -c 2500000 /dev/zero > $TMPDIR/filler; "
    filler += f"({UNTIL_FULL}; touch {tracer.folder}/full; rm $TMPDIR/filler) & "
    done = in_small_tmpfs(tracer, "4m", filler, "--block", "-o", str(out), *dd(N))
    assert done.returncode == 0, done.stderr
    data = Dataset(out)
    assert data.meta["lost_events"] == 0
    assert counts(data)["read"] >= N
    assert (tracer.folder / "full").exists(), "it had to wait"


def test_without_block_it_does_not_wait(tracer: Tracer) -> None:
    out = tracer.folder / "out"
    filler = "head -c 2500000 /dev/zero > $TMPDIR/filler; "
    done = in_small_tmpfs(tracer, "4m", filler, "-o", str(out), *dd(N))
    assert done.returncode == 0, done.stderr
    assert Dataset(out).meta["lost_events"] > 0


def test_blocked_programs_go_on_when_the_tracer_is_killed(tracer: Tracer) -> None:
    script = "head -c 2500000 /dev/zero > $TMPDIR/filler; "
    after = tracer.folder / "done"
    inner = f"{shlex.join(dd(N))}; echo $? > {after}"
    trace = shlex.join([*COSY_TRACE, "--block", "sh", "-c", inner])
    script += f"{trace} 2>/dev/null & {UNTIL_FULL}; test ! -e {after} || exit 98; kill -KILL $!; "
    script += f"for i in $(seq 200); do test -e {after} && exit 0; sleep 0.05; done; exit 97; : "
    done = in_small_tmpfs(tracer, "4m", script)
    assert done.returncode == 0, done.stderr
    assert after.read_text() == "0\n"


def test_a_full_ring_is_counted(tracer: Tracer) -> None:
    lacks = bcc.why_not()
    if lacks:
        pytest.skip(f"no bcc here: {lacks}")
    words = ["--backend", "bcc", "--ring-size"]
    _, whole = tracer.trace(*words, "64M", *dd(N))
    done, part = tracer.trace(*words, "64K", *dd(N))
    assert whole.meta["lost_events"] == 0
    assert part.meta["lost_events"] > 0
    # Announcements of processes and of their words are events, too, and may be among them.
    missing = len(whole) - len(part)
    assert 0 <= part.meta["lost_events"] - missing <= 3
    assert f"lost events: {part.meta['lost_events']:,}" in done.stderr.decode()


def test_sizes_of_the_ring(tracer: Tracer) -> None:
    for size in ("0", "x", "1K", "8G", "-1"):
        done = tracer.run("--ring-size", size, "true")
        assert done.returncode == 2


def test_recording_ends_and_the_program_goes_on(tracer: Tracer) -> None:
    script = "i=0; while [ $i -lt 40 ]; do i=$((i + 1)); : > /dev/null; sleep 0.05; done; echo end"
    for backend in ("shim", "ptrace", *([] if bcc.why_not() else ["bcc"])):
        done, data = tracer.trace("--backend", backend, "--duration", "0.7", "sh", "-c", script)
        assert (done.returncode, done.stdout) == (0, b"end\n"), done.stderr
        opened = data.events(["path"])["path"].to_pylist().count("/dev/null")
        assert 1 <= opened < 40, backend
        assert json.loads((data.path / "meta.json").read_text())["lost_events"] == 0


def test_interrupting_the_writing_keeps_the_recording(tracer: Tracer) -> None:
    # SIGINT while the dataset is written: by a Python that interrupts itself at that point.
    raw = tracer.folder / "raw"
    raw.mkdir()
    program = (
        "import os, signal, tracer.convert as c\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored in the background
        "plain = c.write_dataset\n"
        "def interrupted(*a, **k):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    return plain(*a, **k)\n"
        "c.write_dataset = interrupted\n"
        "from tracer.cli import main; main()\n"
    )
    env = {**tracer.env, "TMPDIR": str(raw)}
    command = [COSY_TRACE[0], "-c", program, "-o", "out", "ls", "/"]
    done = subprocess.run(command, env=env, cwd=tracer.folder, capture_output=True, check=False)
    (folder,) = raw.glob("cosy-trace-*")
    assert f"cosy-trace import {folder} -o out" in done.stderr.decode()
    assert not (tracer.folder / "out").exists()
    assert tracer.run("import", folder, "-o", "out").returncode == 0
    assert counts(Dataset(tracer.folder / "out"))["getdents64"] == 2
