# SPDX-License-Identifier: MIT
"""Paths through /proc/PID/fd/N and its kind: what they mean changes without a change of names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.never_slower import adversary
from tests.conftest import Compiler, Runner

NEVER_MS = "1000000"
WAYS = [
    "self",
    "self-closed",
    "self-file",
    "pid",
    "thread-self",
    "dev",
    "stdin",
    "own-link",
    "link-to-all",
    "from-proc",
    "from-fds",
    "below-descriptor",
    "cwd",
    "root",
    "plain",
]


@pytest.fixture(scope="module")
def image(executor: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A profile that fires at the first call."""
    assert executor.exists()
    return adversary(tmp_path_factory.mktemp("eager"))


@pytest.mark.parametrize("by", ["bpf", "reference"])
@pytest.mark.parametrize("way", WAYS)
def test_a_path_means_what_it_means_now(
    runner: Runner, compiled: Compiler, image: Path, tmp_path: Path, way: str, by: str
) -> None:
    if way == "root" and os.geteuid() != 0:
        pytest.skip("needs root to change the root directory")
    program = compiled("magic.c")
    orders = {"image": str(image), "executors": by, "max_age_ms": NEVER_MS}
    folders = [tmp_path / name for name in ("native", "cosy")]
    for folder in folders:
        folder.mkdir()
    native = runner.native([program, way, folders[0]])
    assert (native.returncode, native.stderr) == (0, b"")
    under = runner.cosy([program, way, folders[1]], mode="exec", orders=orders)
    assert (under.stdout, under.stderr) == (native.stdout, b"")


OPENS = """
import fcntl, os, resource, shutil, sys
def attempt(path, flags, **options):
    try:
        fd = os.open(path, flags, **options)
    except OSError as error:
        return error.errno
    said = fcntl.fcntl(fd, fcntl.F_GETFL), fcntl.fcntl(fd, fcntl.F_GETFD), os.fstat(fd).st_mode
    os.close(fd)
    return said
# What is created or cut is below here, and begins anew.
here = sys.argv[1]
shutil.rmtree(here, ignore_errors=True)
os.makedirs(here + "/folder")
os.chdir(here)
with open("file", "w") as file:
    file.write("content")
top = os.open(here, os.O_RDONLY)
paths = [here, here + "/folder/", "folder", here + "/absent", "file", here + "/file", "file/x", ""]
paths += ["/proc/self/cwd", "/proc/self/fd", "/proc/self/fd/77", f"/dev/fd/{top}"]
paths += [f"/dev/fd/{top}/folder", "/"]
more = [0, os.O_NOFOLLOW, os.O_PATH, os.O_NOATIME, os.O_RDWR, os.O_CREAT, os.O_TRUNC, 1 << 30]
for path in paths:
    for flags in more:
        print(path, attempt(path, os.O_DIRECTORY | flags), attempt(path, flags, dir_fd=top))
resource.setrlimit(resource.RLIMIT_NOFILE, (top + 1, top + 1))
print(attempt("/", os.O_DIRECTORY))
"""


def test_an_open_ends_as_it_does(runner: Runner, image: Path, tmp_path: Path) -> None:
    """Descriptor flags, file flags and errors."""
    command = ["python3", "-c", OPENS, str(tmp_path / "here")]
    native = runner.native(command)
    under = runner.cosy(command, mode="exec", orders={"image": str(image)})
    assert native.stderr == b""
    assert under.stdout == native.stdout
