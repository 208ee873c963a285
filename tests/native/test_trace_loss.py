# SPDX-License-Identifier: MIT
"""Nothing is lost without a word: loss is forced wherever it can happen, and reported."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import tracer.drain as tracer_drain
from tests.conftest import DEADLINE_S, Compiler
from tests.native.tracing import COSY_TRACE, Done, Tracer, counts
from tracer import native
from tracer.backends import bcc, shim
from tracer.dataset import Dataset
from tracer.drain import Drain
from tracer.syscalls import by_name

N = 20_000
# Less room than a full block takes, in pages of 4096 bytes: a program with --block waits now.
UNTIL_FULL = "until [ $(stat -f -c %a $TMPDIR) -lt 10 ]; do sleep 0.05; done; sleep 0.2"


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
    filler = "head -c 4500000 /dev/zero > $TMPDIR/filler; "
    filler += f"({UNTIL_FULL}; touch {tracer.folder}/full; rm $TMPDIR/filler) & "
    done = in_small_tmpfs(tracer, "6m", filler, "--block", "-o", str(out), *dd(N))
    assert done.returncode == 0, done.stderr
    data = Dataset(out)
    assert data.meta["lost_events"] == 0
    assert counts(data)["read"] >= N
    assert (tracer.folder / "full").exists(), "it had to wait"


def test_without_block_it_does_not_wait(tracer: Tracer) -> None:
    out = tracer.folder / "out"
    filler = "head -c 4500000 /dev/zero > $TMPDIR/filler; "
    done = in_small_tmpfs(tracer, "6m", filler, "-o", str(out), *dd(N))
    assert done.returncode == 0, done.stderr
    assert Dataset(out).meta["lost_events"] > 0


def test_blocked_programs_go_on_when_the_tracer_is_killed(tracer: Tracer) -> None:
    script = "head -c 4500000 /dev/zero > $TMPDIR/filler; "
    after = tracer.folder / "done"
    inner = f"{shlex.join(dd(N))}; echo $? > {after}"
    trace = shlex.join([*COSY_TRACE, "--block", "sh", "-c", inner])
    script += f"{trace} 2>/dev/null & {UNTIL_FULL}; test ! -e {after} || exit 98; kill -KILL $!; "
    script += f"for i in $(seq 200); do test -e {after} && exit 0; sleep 0.05; done; exit 97; : "
    done = in_small_tmpfs(tracer, "6m", script)
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


# cosy-trace whose time is up once the program has made the file `begun`; then it makes `ended`.
TIMED = """
import time
from pathlib import Path
from tracer import run
plain = run._next_signal
def next_signal(watched, until_ns):
    if until_ns is None:
        Path("ended").touch()
        return plain(watched, None)
    while not Path("begun").exists():
        if came := plain(watched, time.monotonic_ns() + 10_000_000):
            return came
    return plain(watched, until_ns)
run._next_signal = next_signal
from tracer.cli import main; main()
"""


@pytest.mark.parametrize("backend", ["shim", "ptrace", *([] if bcc.why_not() else ["bcc"])])
def test_recording_ends_and_the_program_goes_on(backend: str, tracer: Tracer) -> None:
    script = ": > begun; until [ -e ended ]; do sleep 0.01; done; : > after; echo end"
    words = ["--backend", backend, "--duration", "0.1", "-o", "out", "sh", "-c", script]
    done = subprocess.run(
        [COSY_TRACE[0], "-c", TIMED, *words],
        env=tracer.env,
        cwd=tracer.folder,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b"end\n"), done.stderr
    data = Dataset(tracer.folder / "out")
    paths = data.events(["path"])["path"].to_pylist()
    assert "begun" in paths
    assert "after" not in paths
    meta = json.loads((data.path / "meta.json").read_text())
    assert meta["lost_events"] == 0


# run() with a watcher whose stop() the program can see; it waits for any child, so not in here.
WATCHED = """
import os, time
from pathlib import Path
from tracer.run import run
class Watcher:
    signal = None
    def hold(self, pid): pass
    def changed(self, pid, status): return status
    def stop(self): Path("stopped").touch()
spins = "i=0; while [ $i -lt 100000 ]; do i=$((i + 1)); done"
script = f"until [ -e stopped ]; do :; done; sleep 0.2; {spins}"
before_ns = time.monotonic_ns()
ended = run("/bin/sh", ["sh", "-c", script], os.environb, Watcher(), 0.1)
print(ended.wall_ns, ended.at_ns - before_ns, ended.user_ns + ended.system_ns, sum(ended.own_ns))
"""


def test_times_are_those_of_what_was_watched(tracer: Tracer) -> None:
    done = tracer.native(COSY_TRACE[0], "-c", WATCHED)
    wall_ns, life_ns, cpu_ns, all_cpu_ns = map(int, done.stdout.split())
    assert 100_000_000 <= wall_ns <= life_ns - 200_000_000
    assert cpu_ns < all_cpu_ns


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
    assert done.returncode == -signal.SIGINT
    assert done.stderr.decode() == (
        "cosy-trace: interrupted: out not written, "
        f"to write it: cosy-trace import {folder} -o out\n"
    )
    assert not (tracer.folder / "out").exists()
    assert tracer.run("import", folder, "-o", "out").returncode == 0
    assert counts(Dataset(tracer.folder / "out"))["getdents64"] == 2


N_BUSY = 60_000  # calls: dozens of blocks
BUSY_THEN_KILLED = f"""
import os, signal
for _ in range({N_BUSY}):
    os.getppid()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def raw(native_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COSY_NATIVE_DIR", str(native_dir))
    folder = tmp_path / "raw"
    folder.mkdir()
    return folder


def recorded(folder: Path, taker: bool, program: str) -> tuple[int, int, int]:
    """Calls of getppid and losses of a recording, and the bytes that were taken meanwhile."""
    drain = Drain(folder) if taker else None
    env = shim.with_orders(os.environb, native.library(), folder)
    subprocess.run([sys.executable, "-c", program], env=env, check=False, timeout=DEADLINE_S)
    if drain:
        drain.close()
    found_raw = shim.read(folder)
    wanted = by_name()["getppid"].nr
    found = sum(int((chunk.nr == wanted).sum()) for chunk in found_raw.chunks(1 << 16))
    return found, found_raw.lost_events, sum(file.stat().st_size for file in folder.glob("*.taken"))


@pytest.mark.parametrize("taker", [True, False])
def test_a_busy_program_that_is_killed_loses_nothing(raw: Path, taker: bool) -> None:
    found, lost, taken = recorded(raw, taker, BUSY_THEN_KILLED)
    assert (found, lost) == (N_BUSY, 0)
    assert (taken > 0) == taker


def test_a_taker_that_comes_late_loses_nothing(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # It looks so seldom that the program goes round its blocks several times in between.
    monkeypatch.setattr(tracer_drain, "LOOK_S", 0.02)
    monkeypatch.setattr(tracer_drain, "LOOK_IDLE_S", 0.02)
    found, lost, _ = recorded(raw, True, BUSY_THEN_KILLED)
    assert (found, lost) == (N_BUSY, 0)


def test_a_taker_that_goes_away_does_no_harm(raw: Path) -> None:
    # The reader of the FIFO is there until the program has begun, and then no more.
    drain = Drain(raw)
    env = shim.with_orders(os.environb, native.library(), raw)
    program = f"import os\nprint(1, flush=True)\nfor _ in range({N_BUSY}): os.getppid()"
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline()
        drain.close()
        assert process.wait(DEADLINE_S) == 0
    found = shim.read(raw)
    assert found.lost_events == 0
    assert found.n_calls > N_BUSY


def test_what_has_ended_holds_nothing_of_the_taker(raw: Path) -> None:
    def held() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = held()
    drain = Drain(raw)
    env = shim.with_orders(os.environb, native.library(), raw)
    # Each ends when something was taken from it, however long that takes on a busy machine.
    program = (
        "import glob, os, sys\n"
        "while not glob.glob(f'{sys.argv[1]}/{os.getpid()}.*.taken'): os.getppid()"
    )
    for _ in range(8):
        command = [sys.executable, "-c", program, str(raw)]
        subprocess.run(command, env=env, check=True, timeout=DEADLINE_S)
    assert len(list(raw.glob("*.taken"))) == 8
    # Of the one that ended last, and of one that may have been there when the next began.
    assert held() - before <= 3 + 2 * 2
    drain.close()
    assert held() <= before + 2 * 2


def test_calls_of_signal_handlers_are_not_lost_while_a_block_is_written(
    tracer: Tracer, compiled: Compiler
) -> None:
    program = compiled("handlers.c")
    done, data = tracer.trace(program, str(N_BUSY * 5))
    found = counts(data)
    assert found["getuid"] == N_BUSY * 5
    assert found["getppid"] == int(done.stdout) > 100
    assert data.meta["lost_events"] == 0
