# SPDX-License-Identifier: MIT
"""Running cosy-trace and strace side by side."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import DEADLINE_S, ROOT, plain_environment
from tracer.backends import bcc
from tracer.dataset import Dataset
from tracer.syscalls import name_of

OUTSIDE = ["ptrace", "bcc"]  # the backends that watch from outside
COSY_TRACE = [sys.executable, "-c", "from tracer.cli import main; main()"]
Done = subprocess.CompletedProcess[bytes]


@dataclass(frozen=True)
class Tracer:
    """Runs cosy-trace with the built library, and programs without it."""

    env: dict[str, str]
    folder: Path

    def run(self, *words: str | Path, stdin: bytes = b"") -> Done:
        """cosy-trace, with these words behind it."""
        return self._run([*COSY_TRACE, *map(str, words)], stdin)

    def native(self, *command: str | Path, stdin: bytes = b"") -> Done:
        """The command alone."""
        return self._run([str(word) for word in command], stdin)

    def trace(self, *command: str | Path, stdin: bytes = b"") -> tuple[Done, Dataset]:
        """Record a command; its dataset as well."""
        path = self.folder / f"{len(list(self.folder.iterdir()))}.cosytrace"
        done = self.run("-o", path, *command, stdin=stdin)
        return done, Dataset(path)

    def _run(self, command: Sequence[str], stdin: bytes) -> Done:
        return subprocess.run(
            command,
            env=self.env,
            cwd=self.folder,
            input=stdin,
            capture_output=True,
            timeout=DEADLINE_S,
            check=False,
        )


def environment(native_dir: Path) -> dict[str, str]:
    """What cosy-trace needs to run from a source tree."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    return {**plain_environment(), "PYTHONPATH": path, "COSY_NATIVE_DIR": str(native_dir)}


def counts(data: Dataset) -> Counter[str]:
    """How often each call was recorded."""
    return Counter(name_of(nr) for nr in data.events(["nr"])["nr"].to_pylist())


@dataclass(frozen=True)
class Strace:
    """What strace counted."""

    own: Counter[str]
    """Calls of the programs, from the end of the loader's work on."""
    all: Counter[str]


def strace(tracer: Tracer, *command: str | Path) -> Strace:
    """Count the calls of a command, apart from what the loader does after each exec.

    The loader's last call is the munmap of /etc/ld.so.cache. rt_sigreturn belongs to the
    kernel's way of delivering signals and never goes through the shim.
    """
    if not shutil.which("strace"):
        pytest.skip("strace is not installed: apt-get install strace")
    log = tracer.folder / "strace.log"
    done = tracer.native("strace", "-f", "-o", log, *command)
    text = log.read_text(errors="replace")
    log.unlink()
    if "PTRACE" in done.stderr.decode() or not text:
        pytest.skip(f"strace does not work here: {done.stderr.decode().strip()[:200]}")
    own: Counter[str] = Counter()
    every: Counter[str] = Counter()
    loading: set[str] = set()
    for line in text.splitlines():
        found = re.match(r"(\d+)\s+(\w+)\(", line)
        resumed = re.match(r"(\d+)\s+<\.\.\. execve resumed>.*= 0$", line)
        if resumed:
            loading.add(resumed[1])
        if not found or found[2] == "rt_sigreturn":
            continue
        pid, name = found.groups()
        every[name] += 1
        if pid not in loading:
            own[name] += 1
        if name == "execve" and line.endswith("= 0"):
            loading.add(pid)
        elif name == "munmap":
            loading.discard(pid)
    own["execve"] -= 1  # of the command itself: strace's own child did that
    every["execve"] -= 1
    return Strace(+own, +every)


def usable(name: str) -> str:
    """A backend's name, or a skip that says what it lacks."""
    lacks = bcc.why_not() if name == "bcc" else None
    if lacks:
        pytest.skip(f"no bcc here: {lacks}")
    return name


def exes(data: Dataset) -> list[str]:
    """The programs of a trace, an image after the other."""
    return [exe or "" for exe in data.processes()["exe"].to_pylist()]
