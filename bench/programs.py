# SPDX-License-Identifier: MIT
"""The programs of datasets/, servers apart, run as they were recorded.

The folder is as it was then: made anew before each run of a program that changes anything in it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import signal
import string
import subprocess
import tempfile
import threading
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from synth.shipped import DATASETS

DEADLINE_S = 300
# Natively, too, no two outputs are the same: times, orders, random content.
UNSTABLE = frozenset({"redis", "sqlite-select", "xz-threads"})


@dataclass(frozen=True)
class Run:
    """One run: times in seconds, processor time of children included."""

    wall_s: float
    cpu_s: float
    digest: str  # of standard output and exit code
    report: str  # standard error


@dataclass
class Programs:
    """Those of datasets/programs.toml that can be run here."""

    record: ModuleType = field(default_factory=lambda: _recorder())
    table: dict[str, Any] = field(
        default_factory=lambda: tomllib.loads((DATASETS / "programs.toml").read_text())
    )

    def __post_init__(self) -> None:
        self.record.WORK.mkdir(exist_ok=True)
        self.env: dict[str, str] = self.record.environment()
        self.unchanged: dict[str, bool] = {}  # by program: its folder, by its first run
        if not (self.record.WORK / "corpus").is_dir():
            self.record.prepare("corpus", self.table["corpus"]["setup"], self.env)

    def program(self, name: str) -> str:
        """The first word of its command; "" for a trace of no such program."""
        command: list[str] = self.table["programs"].get(name, {}).get("command", [""])
        return command[0]

    def names(self, only: str = "") -> Iterator[str]:
        """Those whose name holds this word; says which cannot be run here."""
        for name, program in self.table["programs"].items():
            if "drive" in program or name in UNSTABLE or only not in name:
                continue
            if shutil.which(self.program(name), path=self.env["PATH"]):
                yield name
            else:
                packages = program["packages"]
                print(f"{name:20} left out, no {self.program(name)}: apt-get install {packages[0]}")

    def run(self, name: str, prefix: Sequence[str] = ()) -> Run:
        """Once, with these words in front of it; raises subprocess.TimeoutExpired."""
        program = self.table["programs"][name]
        folder: Path = self.record.WORK / name
        if not self.unchanged.get(name):
            self.record.prepare(name, program.get("setup", ""), self.env)
        if name not in self.unchanged:
            before = _snapshot(folder)
            self.unchanged[name] = True
            self.run(name, prefix)
            self.unchanged[name] = _snapshot(folder) == before
            return self.run(name, prefix)
        words = [string.Template(word).safe_substitute(self.env) for word in program["command"]]
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            start = time.monotonic()
            process = subprocess.Popen(
                [*prefix, *words],
                cwd=folder,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
            alarm = threading.Timer(DEADLINE_S, os.kill, (process.pid, signal.SIGKILL))
            alarm.start()
            _, status, usage = os.wait4(process.pid, 0)
            wall = time.monotonic() - start
            alarm.cancel()
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode == -signal.SIGKILL:
                raise subprocess.TimeoutExpired(words, DEADLINE_S)
            out.seek(0)
            err.seek(0)
            digest = f"{hashlib.file_digest(out, 'sha256').hexdigest()} {process.returncode}"
            report = err.read().decode(errors="replace")
        return Run(wall, usage.ru_utime + usage.ru_stime, digest, report)


def _snapshot(folder: Path) -> dict[str, tuple[int, ...]]:
    """What is in a folder and when it was changed last."""
    found: dict[str, tuple[int, ...]] = {}
    for path in (folder, *folder.rglob("*")):
        st = path.lstat()
        found[str(path)] = (st.st_ino, st.st_size, st.st_mode, st.st_ctime_ns)
    return found


def _recorder() -> ModuleType:
    """datasets/record.py, which prepares folders and environment."""
    spec = importlib.util.spec_from_file_location("record", DATASETS / "record.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def served(report: str) -> int:
    """Answers of all compounds, as --stats reports them."""
    rows = re.findall(r"^  [a-z0-9-]+ +[\d,]+ +[\d,]+ +([\d,]+)$", report, re.M)
    return sum(int(number.replace(",", "")) for number in rows)
