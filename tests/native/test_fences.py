# SPDX-License-Identifier: MIT
"""The consistency contract: a program sees the truth, by whatever way it learnt of a change.

Each kind runs three times on fresh directories: natively (the truth), under the shim (must be the
truth), and under the shim with the fence in question left out. That last run must print what held
before the change, or the test would prove nothing.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Compiler, Runner

OLD_NS = 1_000_000_000 * 1_000_000_000
CHILDREN = 24  # enough to be worth a run of the executor, few enough for its small buffer
FUTURE_NS = 3600 * 1_000_000_000
ATTEMPTS = 5
NEVER_MS = "1000000"  # so that max_age does not hide another fence that is missing

# kind of the victim -> the fence; where two stand behind one call, both must be out before it errs
NEWS = {
    "pipe": "read_sync",
    "pipe-readv": "read_sync",
    "pipe-splice": "process+mutate",
    "eventfd": "read_sync",
    "terminal": "read_sync",
    "inotify": "read_sync",
    "signalfd": "read_sync",
    "timerfd": "read_sync",
    "socket-read": "read_sync",
    "recv": "recv",
    "recvmsg": "recv",
    "recvmmsg": "recv",
    "accept": "recv",
    "poll": "poll",
    "ppoll": "poll",
    "select": "poll",
    "pselect6": "poll",
    "epoll": "poll",
    "epoll-pwait": "poll",
    "epoll-pwait2": "poll",
    "wait4": "wait",
    "waitid": "wait",
    "signal": "signal",
    "sigwait": "signal",
    "sigsuspend": "signal",
    "futex": "futex",
    "condition": "futex",
    "lock": "lock+mutate",
    "try-lock": "lock+mutate",
    "ofd-lock": "lock+mutate",
    "flock": "lock",
    "queue": "recv",
    "posix-queue": "recv",
    "semaphore": "recv",
    "nanosleep": "sleep",
    "clock-nanosleep": "sleep",
    "fifo": "open_fifo",
    "fifo-asked": "open_fifo",
    "fifo-closed": "open_fifo",
    "fifo-replaced": "open_fifo",
    "fifo-and-file": "open_fifo",
    "thread-pipe": "read_sync",
    "asked-before": "served_once",
    "opened": "open_file",
}
OWN = {
    "chmod": "mutate",
    "fchmodat": "mutate",
    "fchmod": "mutate",
    "chown": "mutate",
    "utimes": "mutate",
    "futimens": "mutate",
    "setxattr": "mutate",
    "truncate": "mutate",
    "ftruncate": "mutate",
    "open-truncate": "mutate",
    "creat": "mutate",
    "unlink": "mutate",
    "unlinkat": "mutate",
    "rename-away": "mutate",
    "rename-over": "mutate",
    "exchange": "mutate",
    "link": "mutate",
    "mkdir": "mutate",
    "symlink": "mutate",
    "rmdir": "mutate",
    "mknod": "mutate",
    "removexattr": "mutate",
    "mount": "mutate",
    "bind": "mutate",
    "write": "write_inode",
    "open-write": "write_inode+open_file",
    "pwrite": "write_inode",
    "writev": "write_inode",
    "copy-range": "process+mutate",
    "sendfile": "process+mutate",
    "splice": "process+mutate",
    "fallocate": "mutate",
    "store": "mmap_write",
    "map-and-store": "mmap_write+open_file",
    "protect-and-store": "mmap_write",
    "read": "atime",
    "pread": "atime",
    "open-read": "atime+open_file",
    "map-and-load": "atime+open_file",
    "readlink": "atime",
    "read-folder": "atime",
    "receive": "close_fd+recv",
    "dup2": "dup_fd",
    "dup3": "dup_fd",
    "thread-chmod": "thread_mutate",
    "thread-write": "write_inode",
    "thread-dup2": "dup_fd",
    "fork": "process",
    "become-nobody": "process+mutate",
}
# Two mechanisms stand behind each of these: no single fence's absence shows.
TRUTH_ONLY = [
    "nothing",
    "reopen",
    "reopen-path",
    "close",
    "close-range",
    "dup",
    "vfork",
    "system",
    "chroot",
]
AS_ROOT = {"chown", "become-nobody", "chroot", "mount"}


class Stage:
    """Makes fresh pairs of directories and runs the victim on them."""

    def __init__(
        self, runner: Runner, victim: Path, image: Path, folder: Path, **orders: str
    ) -> None:
        self.runner, self.victim, self.folder = runner, victim, folder
        self.orders = {"image": str(image), "max_age_ms": NEVER_MS, **orders}
        self.numbers: Iterator[int] = itertools.count()

    def fresh(self, kind: str) -> tuple[Path, Path]:
        """Two directories with the same names; files of one size in each."""
        # With relatime, reading moves an access time only when it is older than the last change.
        moves = "atime" in OWN.get(kind, "") or kind == "through-link"
        atime = OLD_NS if moves else time.time_ns() + FUTURE_NS
        number = next(self.numbers)
        pair = self.folder / f"{number}", self.folder / f"{number}-other"
        for size, top in zip((10, 77), pair, strict=True):
            top.mkdir(mode=0o755)
            for name in ["target", *(f"child{i}" for i in range(CHILDREN))]:
                self._file(top / name, size, atime)
            (top / "sub").mkdir()
            (top / "link").symlink_to("nowhere")
            for name in ("sub", "link"):
                os.utime(top / name, ns=(atime, OLD_NS), follow_symlinks=False)
                os.lstat(top / name)
        if kind == "removexattr":
            os.setxattr(pair[0] / "target", "user.cosy", b"1")
            (pair[0] / "target").stat()
        return pair

    @staticmethod
    def _file(path: Path, size: int, atime: int) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        # Blocks allocated now: with delayed allocation the executor would rightly decline.
        os.posix_fallocate(fd, 0, size)
        os.write(fd, bytes(size))
        os.close(fd)
        os.utime(path, ns=(atime, OLD_NS))
        # Asked for once: a change time that nobody saw yet is declined, too (multigrain).
        path.stat()

    def native(self, kind: str) -> str:
        return self._line(self.runner.native([self.victim, kind, *self.fresh(kind)]))

    def cosy(self, kind: str, **orders: str) -> str:
        orders = {**self.orders, **orders}
        return self._line(
            self.runner.cosy([self.victim, kind, *self.fresh(kind)], mode="exec", orders=orders)
        )

    def goes_stale(self, kind: str, stale: str, **orders: str) -> bool:
        """Whether the old answer is seen. On a busy machine a run may be cut by its time limit."""
        return any(self.cosy(kind, **orders) == stale for _ in range(ATTEMPTS))

    @staticmethod
    def _line(done: object) -> str:
        assert done.returncode == 0, done  # type: ignore[attr-defined]
        assert done.stderr == b""  # type: ignore[attr-defined]
        text: str = done.stdout.decode()  # type: ignore[attr-defined]
        return text


def victim(compiled: Compiler) -> Path:
    """The program that scans, lets something happen, and asks."""
    return compiled(
        "victim.c",
        "-Wno-missing-field-initializers",
        "victim_news.c",
        "victim_own.c",
        "-pthread",
        "-lutil",
    )


@pytest.fixture(scope="session")
def stage(
    fence_runner: Runner,
    compiled: Compiler,
    executor: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Stage:
    folder = tmp_path_factory.mktemp("fences")
    folder.chmod(0o755)
    return Stage(fence_runner, victim(compiled), executor, folder)


@pytest.fixture(scope="session")
def before(stage: Stage) -> str:
    """What the target looks like when nothing happens to it."""
    return stage.native("nothing")


def test_results_are_held_at_all(stage: Stage, before: str) -> None:
    # The documented limit: told by nothing but memory, within max_age. Were this the truth, no
    # compound would have fired, and no test here would mean anything.
    assert stage.native("untold") != before
    assert stage.cosy("untold") == before


@pytest.mark.parametrize("kind", ["contents", "contents-read"])
def test_strict_makes_every_read_news(stage: Stage, before: str, kind: str) -> None:
    truth = stage.native(kind)
    assert truth != before
    assert stage.goes_stale(kind, before)
    assert stage.cosy(kind, strict="1") == truth
    assert stage.goes_stale(kind, before, strict="1", nofence="read_sync")


def test_old_results_are_dropped(stage: Stage, before: str) -> None:
    truth = stage.native("untold-long")
    assert stage.cosy("untold-long", max_age_ms="50") == truth
    assert stage.cosy("untold-long", max_age_ms="50", nofence="max_age") == before


@pytest.mark.parametrize(("kind", "fences"), [*NEWS.items(), *OWN.items()])
def test_the_truth_is_seen(stage: Stage, kind: str, fences: str) -> None:
    if kind in AS_ROOT and os.geteuid() != 0:
        pytest.skip("needs root to change who owns a file, or who we are")
    truth = stage.native(kind)
    stale = stage.native(ASKED_FOR.get(kind, "nothing"))
    if truth == stale:
        pytest.skip(f"this file system does not show it: {kind}")
    assert stage.cosy(kind) == truth
    assert stage.goes_stale(kind, stale, nofence=fences)


def test_a_link_that_was_followed(stage: Stage) -> None:
    assert stage.cosy("through-link") == stage.native("through-link")


# Kinds that end with another question than for the target: what it looks like unchanged.
ASKED_FOR = {
    **dict.fromkeys(("mkdir", "rmdir", "mknod", "mount", "bind"), "nothing-sub"),
    "read-folder": "nothing-sub",
    "readlink": "nothing-link",
}


@pytest.mark.parametrize("kind", TRUTH_ONLY)
def test_nothing_is_mistaken(stage: Stage, kind: str) -> None:
    if kind in AS_ROOT and os.geteuid() != 0:
        pytest.skip("needs root to change the root directory")
    assert stage.cosy(kind) == stage.native(kind)
