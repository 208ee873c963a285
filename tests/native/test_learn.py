# SPDX-License-Identifier: MIT
"""cosy-auto --learn: bounded, one learner at a time, and nothing is left behind."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from synth.compile import load_profile
from tests.conftest import DEADLINE_S, ROOT
from tests.native.test_auto import Auto, auto

__all__ = ["auto"]

pytest.importorskip("pyarrow", reason="reading traces needs pyarrow")


class Learner:
    """cosy-auto --learn with a Python that has what the learner needs, and folders of our own."""

    def __init__(self, auto: Auto) -> None:
        self.auto = auto
        # A build tree has no Python of its own: the learner is the first python3 in PATH.
        path = f"{Path(sys.executable).parent}:{auto.env['PATH']}"
        self.env = {**auto.env, "PATH": path}
        self.cache = auto.home / ".cache" / "cosy"
        self.queue = self.cache / "learn"
        self.log = self.cache / "learn.log"
        self.profiles = auto.home / ".local" / "share" / "cosy" / "profiles"

    def __call__(
        self, *words: str | Path, before: tuple[str, ...] = (), **options: object
    ) -> subprocess.CompletedProcess[str]:
        """A run to its end, with --stats."""
        return subprocess.run(  # type: ignore[call-overload,no-any-return]
            [*before, self.auto.program, "--learn", "--stats", *words],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
            **options,
        )

    def waiting(self, state: str = "") -> list[str]:
        """The recordings in the queue."""
        return sorted(p.name for p in self.queue.glob(f"{state}*") if p.is_dir())

    def said(self) -> str:
        """What the learners wrote."""
        return self.log.read_text() if self.log.exists() else ""

    def until(self, done: Callable[[], bool]) -> None:
        """Wait for it."""
        end = time.monotonic() + DEADLINE_S
        while not done():
            assert time.monotonic() < end, (self.waiting(), self.said())
            time.sleep(0.05)

    def at_work(self) -> list[int]:
        """Learners of this queue: processes that were started, not the children that mine."""
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdecimal():
                try:
                    words = (folder / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if b"synth.learn" in words and os.fsencode(self.queue) in words:
                    found.append(int(folder.name))
        return found

    @contextmanager
    def busy(self) -> Iterator[None]:
        """As if a learner were at work all the time."""
        self.queue.mkdir(parents=True, exist_ok=True)
        self.cache.chmod(0o700)
        with (self.queue / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


@pytest.fixture
def learner(auto: Auto) -> Learner:
    return Learner(auto)


def test_the_log_is_where_it_is_said_to_be(learner: Learner) -> None:
    done = learner("du", "-s", "/usr/share/doc")
    assert done.returncode == 0
    assert f"log {learner.log}\n" in done.stderr
    learner.until(lambda: not learner.waiting())
    assert re.search(r" du-[\d-]+: [\d,]+ calls\n", learner.said())
    assert [path.name for path in learner.cache.rglob("*.log")] == ["learn.log"]


# A file system of 128 MiB, of which a recording may take a quarter: some 350,000 calls.
BOUNDED = """
mount -t tmpfs -o size=128m,mode=700 cache "$1" || exit 99
cd "$1"
"$2" --learn --stats dd if=/dev/zero of=/dev/null bs=1 count=1000000 2> "$1/err" &
while kill -0 $! 2> /dev/null; do
    du -ks "$1/cosy/learn"
done
wait $! || exit 98
for k in $(seq 600); do
    ls "$1"/cosy/learn | grep -q . || break
    sleep 0.1
done
cat "$1/err" "$1/cosy/learn.log" >&2
"""


def on_a_small_disk(learner: Learner, script: str) -> subprocess.CompletedProcess[str]:
    """A script that mounts its first argument, the cache folder; its second is cosy-auto."""
    enter = ["unshare", "--mount", *(["--map-root-user"] if os.geteuid() else [])]
    if subprocess.run([*enter, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespace to be had: run as root, or allow user namespaces")
    mount = learner.auto.home / "mount"
    mount.mkdir()
    return subprocess.run(
        [*enter, "sh", "-c", script, "sh", mount, learner.auto.program],
        env={**learner.env, "XDG_CACHE_HOME": str(mount)},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def test_a_full_disk_is_said(learner: Learner) -> None:
    script = 'mount -t tmpfs -o size=8m,mode=700 cache "$1" && "$2" --learn --stats echo ran'
    done = on_a_small_disk(learner, script)
    assert (done.returncode, done.stdout) == (0, "ran\n")
    assert "nothing learnt: no room: the disk is full" in done.stderr


def test_recording_is_bounded(learner: Learner) -> None:
    """At the bound it ends; the program goes on, and what there is is learnt from."""
    done = on_a_small_disk(learner, BOUNDED)
    assert done.returncode == 0, done.stderr
    assert "1000000+0 records out" in done.stderr
    sizes = [int(line.split()[0]) for line in done.stdout.splitlines()]
    assert 24 << 10 < max(sizes) < 96 << 10
    assert re.search(r"recorded only until there were \d+ MiB", done.stderr)
    calls = re.search(r" dd-[\d-]+-cut: ([\d,]+) calls, cut: ", done.stderr)
    assert calls
    assert 100_000 < int(calls[1].replace(",", "")) < 1_000_000


def test_who_waits_holds_no_python(learner: Learner) -> None:
    with learner.busy():
        for _ in range(3):
            assert learner("ls", "/").returncode == 0
        assert learner.at_work() == []
        assert len(learner.waiting("due-")) == 3
    assert learner("ls", "/").returncode == 0
    learner.until(lambda: not learner.waiting())
    assert learner.said().count(" ls-") == 4


def test_many_at_once_share_a_learner(learner: Learner) -> None:
    runs = [
        subprocess.Popen(
            [learner.auto.program, "--learn", "ls", "/"],
            env=learner.env,
            stdout=subprocess.DEVNULL,
        )
        for _ in range(5)
    ]
    assert [run.wait(DEADLINE_S) for run in runs] == [0] * 5
    most = 0

    def done() -> bool:
        nonlocal most
        most = max(most, len(learner.at_work()))
        return not learner.waiting()

    learner.until(done)
    learner.until(lambda: not learner.at_work())
    # Counted are the one that works off the queue, and the child that mines.
    assert 1 <= most <= 2
    assert learner.said().count(" ls-") == 5


LIMITS = {
    "soft": ((), "ulimit -S -f 100000; ulimit -S -t 30"),
    "hard": (("setpriv", "--bounding-set=-all"), "ulimit -f 100000"),
}


@pytest.mark.parametrize("kind", LIMITS)
def test_the_learner_does_not_live_under_the_programs_limits(learner: Learner, kind: str) -> None:
    """What can be raised is raised; else the recording waits for one that has room."""
    before, limit = LIMITS[kind]
    if before and os.geteuid():
        before = ()  # then the kernel refuses anyway
    elif before and not shutil.which(before[0]):
        pytest.skip("root raises every limit, and there is no setpriv (util-linux)")
    shell = (*before, "sh", "-c", f'{limit}; exec "$@"', "sh")
    done = learner("ls", "/", before=shell)
    assert done.returncode == 0
    if kind == "hard":
        assert "under these limits" in done.stderr
        assert len(learner.waiting("due-")) == 1
        assert "under these limits" in learner.said()
        assert learner("ls", "/").returncode == 0
    learner.until(lambda: not learner.waiting())
    assert learner.said().count(" ls-") == (2 if kind == "hard" else 1)


def test_a_killed_launcher_leaves_no_endless_recording(learner: Learner) -> None:
    program = "import os, time\nfor _ in range(300): os.stat('/usr'); time.sleep(0.1)"
    run = subprocess.Popen(
        [learner.auto.program, "--learn", sys.executable, "-S", "-c", program],
        env=learner.env,
        start_new_session=True,
    )
    try:
        learner.until(lambda: bool(list(learner.queue.glob("rec-*/*.raw"))))
        run.kill()
        run.wait()
        learner.until(lambda: " python" in learner.said() and not learner.waiting())
    finally:
        with suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)


def test_what_killed_ones_left_is_taken_up_or_removed(learner: Learner) -> None:
    with learner.busy():
        assert learner("ls", "/").returncode == 0
        (due,) = learner.queue.glob("due-*")
        abandoned = due.rename(learner.queue / "rec-abandoned")
        long_ago = time.time() - 3600
        os.utime(abandoned, (long_ago, long_ago))
        (learner.queue / "now-deadly").mkdir()
        (learner.queue / "rec-young").mkdir()
    assert learner("ls", "/").returncode == 0
    learner.until(lambda: learner.waiting() == ["rec-young"])
    assert learner.said().count(" ls-") == 2
    assert "now-deadly: its learner was killed: removed" in learner.said()


def test_recordings_that_wait_are_bounded(learner: Learner) -> None:
    with learner.busy():
        (learner.queue / "due-old").mkdir()
        with (learner.queue / "due-old" / "1.1.0.raw").open("wb") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, 1 << 30)
            except OSError:
                pytest.skip("no GiB free for a queue that is full")
        done = learner("echo", "ran")
        assert (done.returncode, done.stdout) == (0, "ran\n")
        assert "nothing learnt: no room: 1024 MiB of recordings wait" in done.stderr
        assert learner.waiting() == ["due-old"]


@pytest.mark.parametrize(
    "option",
    [
        ("--profile", "x.img"),
        ("--executor", "bpf"),
        ("--strict",),
        ("--max-age=5",),
        ("--explain",),
    ],
    ids=" ".join,
)
def test_options_that_would_be_ignored_are_refused(learner: Learner, option: list[str]) -> None:
    done = learner(*option, "echo", "ran")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    name = option[0].partition("=")[0]
    assert line.startswith(f"cosy-auto: not together with --learn: {name}: ")


def test_a_profile_says_what_was_run(learner: Learner) -> None:
    learner("du", "-s", "/usr/share/doc")
    learner.until(lambda: not learner.waiting())
    (image,) = learner.profiles.glob("*.img")
    assert load_profile(image).compounds
    shown = subprocess.run(
        [sys.executable, "-m", "synth.cli", "show", "du"],
        env=learner.env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert re.search(r"^#.*\bdu -s /usr/share/doc\b", shown, re.MULTILINE), shown
