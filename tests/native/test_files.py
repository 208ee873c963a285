# SPDX-License-Identifier: MIT
"""Files that are answered without a descriptor: no program can tell.

The library for tests reads them ahead by plain calls where there is no kernel module, so that all
of the shim's part runs here at full speed. A program opens file after file and does something else
with each descriptor in between; what it prints must be what it prints without us.
"""

from __future__ import annotations

import os
import shutil
import struct
import time
from pathlib import Path

import pytest

from synth.compile import compile_profile
from synth.parser import parse
from tests.conftest import Compiler, Runner

FILES = 40
HOUR_NS = 3600 * 10**9
NEVER_MS = "1000000"
STATS_BYTES = 16384
STATS_MAGIC = b"COSYSTA\x04"
CALLS_AT, RECORDS_AT = 16, 40  # offsets in struct cosy_stats

PROFILE = """
compound folder
  on       openat(D, name, flags within O_NONBLOCK|O_NOFOLLOW|O_CLOEXEC|O_NOCTTY)
  where    scanned(D) and child(D, name)
  when     nth 2, entries 4
  each e in entries(D)
    call   openat(D, e.name, O_CLOEXEC)
    call   fstat(result(0))
    until  read(result(0))
    call   close(result(0))
  serve    fstat, newfstatat(flags within AT_EMPTY_PATH), read
  executor module

compound list
  on       openat(D, name, flags within O_CLOEXEC)
  once
    call   openat(trigger(0), trigger(1), O_CLOEXEC)
    call   fstat(result(0))
    until  read(result(0))
    call   close(result(0))
  serve    fstat, newfstatat(flags within AT_EMPTY_PATH), read
  executor module
"""

# What comes in between: how many calls are answered at least, over all files.
GOES_ON = {
    "none": 4 * 30,
    **dict.fromkeys(("dup", "dup2", "fcntl", "fcntl-dup", "mmap", "back", "end", "pread"), 20),
    **dict.fromkeys(("readv", "stat", "twice", "another", "list", "pipe", "bad", "edge"), 20),
    **dict.fromkeys(("create", "copy", "refused", "chmod", "unlink", "replace", "append"), 20),
    **dict.fromkeys(("fork", "exec", "signal", "signal-reads", "range", "ioctl", "poll"), 20),
    **dict.fromkeys(("epoll", "send", "pass", "lock", "dirs", "limit", "path", "closes"), 20),
    **dict.fromkeys(("over", "posix-lock", "vfork", "thread", "swap", "gone"), 20),
    **dict.fromkeys(("across", "across-odd"), 20),
}


class Slurping:
    """Runs programs over fresh folders, natively and under the shim, from one place."""

    def __init__(self, runner: Runner, home: Path) -> None:
        self.runner, self.home = runner, home
        self.image = home / "files.img"
        self.image.write_bytes(compile_profile(parse(PROFILE), "test"))
        self.image.chmod(0o600)
        self.stats = home / "stats"

    def fresh(self, files: int = FILES) -> Path:
        """A folder of files whose access times no reading moves."""
        top = self.home / "folder"
        shutil.rmtree(top, ignore_errors=True)
        top.mkdir()
        for i in range(files):
            path = top / f"file{i}"
            path.write_bytes(bytes((i * k) % 251 for k in range(i % 50 * 97)))
            os.utime(path, ns=(time.time_ns() + HOUR_NS, time.time_ns() - HOUR_NS))
        return top

    def only(self, name: str) -> Path:
        """An image with one of the compounds."""
        kept = PROFILE[PROFILE.index(f"compound {name}") :]
        image = self.home / f"{name}.img"
        image.write_bytes(compile_profile(parse(kept), "test"))
        image.chmod(0o600)
        return image

    def native(self, *command: str | Path) -> tuple[bytes, bytes, int]:
        """Output, errors and exit code."""
        done = self.runner.native(command, cwd=self.home)
        return done.stdout, done.stderr, done.returncode

    def cosy(self, *command: str | Path, **orders: str) -> tuple[bytes, bytes, int]:
        """The same under the shim; `answered` then knows how many calls were."""
        self.stats.write_bytes(STATS_MAGIC + bytes(STATS_BYTES))
        orders = {
            "image": str(self.image),
            "executors": "module",
            "max_age_ms": NEVER_MS,
            "stats": str(self.stats),
            **orders,
        }
        done = self.runner.cosy(command, mode="exec", orders=orders, cwd=self.home)
        return done.stdout, done.stderr, done.returncode

    def _counted(self, at: int) -> int:
        (count,) = struct.unpack_from("<Q", self.stats.read_bytes(), at)
        return int(count)

    @property
    def answered(self) -> int:
        """Calls that the execution mode answered or counted in the last run."""
        return self._counted(CALLS_AT)

    @property
    def read_ahead(self) -> int:
        """Files that were read ahead in the last run."""
        return self._counted(RECORDS_AT)


@pytest.fixture
def slurping(fence_runner: Runner, tmp_path: Path) -> Slurping:
    return Slurping(fence_runner, tmp_path)


@pytest.fixture(scope="module")
def slurps(compiled: Compiler) -> Path:
    """The program with everything in between."""
    return compiled("slurps.c", "-pthread")


@pytest.mark.parametrize("kind", GOES_ON)
def test_nobody_can_tell(slurping: Slurping, slurps: Path, kind: str) -> None:
    truth = slurping.native(slurps, slurping.fresh(), kind)
    assert truth[2] == 0
    assert slurping.cosy(slurps, slurping.fresh(), kind) == truth
    assert slurping.answered >= GOES_ON[kind]


@pytest.mark.parametrize("seed", range(12))
def test_nobody_can_tell_at_random(slurping: Slurping, slurps: Path, seed: int) -> None:
    truth = slurping.native(slurps, slurping.fresh(), "random", str(seed))
    assert slurping.cosy(slurps, slurping.fresh(), "random", str(seed)) == truth
    assert slurping.answered >= 20


@pytest.mark.parametrize(
    ("command", "least"),
    [
        (("cat",), 4 * 80),
        (("wc", "-l"), 4 * 80),
        (("md5sum",), 4 * 80),
        (("grep", "-c", "a"), 4 * 80),
        (("head", "-c", "20"), 2 * 80),
        (("grep", "-rc", "a", "folder"), 4 * 80),
        (("tar", "cf", "-", "folder"), 0),
        (("diff", "-r", "folder", "folder"), 0),
    ],
)
def test_real_programs(slurping: Slurping, command: tuple[str, ...], least: int) -> None:
    """Over a list of files, which are their arguments, or over a folder."""
    files = [f"folder/file{i}" for i in range(100)] if command[-1] != "folder" else []
    slurping.fresh(100)
    truth = slurping.native(*command, *files)
    assert slurping.cosy(*command, *files) == truth
    assert slurping.answered >= least


def test_a_copy_that_is_refused(slurping: Slurping, slurps: Path) -> None:
    """That the kernel copies nothing to another file system is known from its first answer on."""
    truth = slurping.native(slurps, slurping.fresh(), "across")
    if b" across=-18 at=" not in truth[0]:
        pytest.skip("this kernel copies from one file system to another")
    assert slurping.cosy(slurps, slurping.fresh(), "across") == truth
    assert slurping.answered >= 5 * 30


def test_waste_is_bounded(slurping: Slurping, slurps: Path) -> None:
    """A program that soon passes over nine files of ten is left alone before most were read."""
    truth = slurping.native(slurps, slurping.fresh(500), "sparse")
    assert slurping.cosy(slurps, slurping.fresh(500), "sparse") == truth
    assert 10 <= slurping.read_ahead <= 150


def test_without_the_compounds_nothing_is_read_ahead(slurping: Slurping, slurps: Path) -> None:
    """What may run is the image's to say, and the executors' that may be used."""
    truth = slurping.native(slurps, slurping.fresh(), "none")
    for orders in ({"executors": "bpf"}, {"image": str(slurping.only("list"))}):
        assert slurping.cosy(slurps, slurping.fresh(), "none", **orders) == truth
        assert slurping.read_ahead == 0


def test_strict_answers_nothing(slurping: Slurping, slurps: Path) -> None:
    truth = slurping.native(slurps, slurping.fresh(), "none")
    assert slurping.cosy(slurps, slurping.fresh(), "none", strict="1") == truth
    assert slurping.answered <= FILES  # seen, perhaps
