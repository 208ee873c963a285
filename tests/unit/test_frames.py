# SPDX-License-Identifier: MIT
"""The Python API: the example of its page runs, and the tables agree with the motif file."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import miner
from miner import motifs

ROOT = Path(__file__).resolve().parents[2]


def test_the_example_of_the_documentation_runs() -> None:
    text = (ROOT / "docs" / "miner-api.md").read_text()
    found = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert found is not None
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_DATA_HOME": "/proc/nowhere"}
    done = subprocess.run(
        [sys.executable, "-c", found[1]], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "dirscan-stat" in done.stdout
    assert "newfstatat(D, e.name, AT_SYMLINK_NOFOLLOW)" in done.stdout


def test_tables_agree_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    found = miner.load(ROOT / "datasets" / "md5sum.cosytrace", workers=1)
    motifs.save(found.file, tmp_path / "x.json")
    again = miner.load(tmp_path / "x.json")
    assert again.file == found.file
    assert list(again.motifs.name) == [m.name for m in found.file.motifs]
    assert len(again.calls) == sum(len(m.calls) for m in found.file.motifs)
    assert int(again.calls["count"].sum()) == sum(m.crossings for m in found.file.motifs)
    # What follows a prefix adds up to all that reached it.
    for _, rows in again.prefixes.groupby(["motif", "prefix"]):
        assert rows["count"].sum() == rows["reached"].iloc[0]
    assert 0.9 < again.coverage() <= 1.0
    slurp = again.paths.query("motif == 'slurp'")
    assert (slurp["count"] >= 1).all()
    assert len(slurp) > 100


def test_calls_of_a_trace_with_their_data_flow() -> None:
    calls = miner.calls(ROOT / "datasets" / "du.cosytrace")
    by_name = calls[calls.via == "name"]
    assert set(by_name.call) >= {"newfstatat"}
    opened = calls[calls.opened_by >= 0]
    assert set(calls.call[opened.opened_by.unique()]) <= {
        "openat",
        "open",
        "socket",
        "pipe2",
        "dup",
    }
    assert by_name.directory.notna().all()
