# SPDX-License-Identifier: MIT
"""Folders of raw files: those of killed recordings are found, those of living ones are not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tracer import rawfolder

CODE = """import time
from tracer import rawfolder
folder = rawfolder.make()
lock = rawfolder.note(folder, "{}")
print(folder, flush=True)
time.sleep(600)"""


def test_folders_of_killed_recordings_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    fresh = rawfolder.make()
    words = [sys.executable, "-c", CODE]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        folder = Path(process.stdout.readline().strip())
        assert folder.parent == tmp_path
        assert folder not in rawfolder.left_behind()
        os.kill(process.pid, signal.SIGKILL)
    assert folder in rawfolder.left_behind()
    assert fresh not in rawfolder.left_behind(), "one that has no note yet is being made"
    monkeypatch.setattr(tempfile, "tempdir", None)
