# SPDX-License-Identifier: MIT
"""Several files of strace, and compressed ones, are one text."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tracer import import_strace
from tracer.dataset import Dataset

PARENT = """\
1700000001.000000 execve("/bin/x", ["x"], 0x7ff /* 3 vars */) = 0 <0.000100>
1700000001.000200 clone(child_stack=NULL, flags=SIGCHLD) = 8 <0.000300>
1700000001.000700 wait4(-1, NULL, 0, NULL) = 8 <0.000400>
1700000001.001300 +++ exited with 3 +++
"""
CHILD = """\
1700000001.000350 getpid() = 8 <0.000001>
1700000001.000800 getppid() = 7 <0.000001>
1700000001.001000 +++ exited with 0 +++
"""


def run(*words: Path | str) -> Result:
    return CliRunner().invoke(import_strace.main, [str(word) for word in words])


def test_the_files_of_ff_are_merged_by_time(tmp_path: Path) -> None:
    (tmp_path / "s.7").write_text(PARENT)
    (tmp_path / "s.8").write_text(CHILD)
    done = run("-o", tmp_path / "d", tmp_path / "s.8", tmp_path / "s.7")
    assert done.exit_code == 0, done.output
    data = Dataset(tmp_path / "d")
    assert data.events()["tid"].to_pylist() == [7, 8, 7, 8]
    assert data.meta["unread_lines"] == 0
    processes = data.processes().to_pylist()
    assert [(p["pid"], p["ppid"], p["exit"]) for p in processes] == [(7, 0, 768), (8, 7, 0)]


def test_files_that_are_no_set(tmp_path: Path) -> None:
    (tmp_path / "s.7").write_text(PARENT)
    (tmp_path / "s.txt").write_text(CHILD)
    (tmp_path / "s.8").write_text(CHILD.replace("1700000001.", "0."))
    for other in ("s.txt", "s.8", "none.9"):
        done = run("-o", tmp_path / "d", tmp_path / "s.7", tmp_path / other)
        assert done.exit_code == 1
        assert done.output.count("\n") == 1
        assert done.output.startswith("cosy-trace: ")


def test_compressed_text(tmp_path: Path) -> None:
    text = "".join(f"7 {line}\n" for line in PARENT.splitlines()).encode()
    (tmp_path / "s.gz").write_bytes(gzip.compress(text))
    assert run("-o", tmp_path / "d", tmp_path / "s.gz").exit_code == 0
    assert len(Dataset(tmp_path / "d")) == 2
    (tmp_path / "cut.gz").write_bytes(gzip.compress(text)[:-20])
    done = run("-o", tmp_path / "e", tmp_path / "cut.gz")
    assert done.exit_code == 1
    assert "cut.gz" in done.output


@pytest.mark.parametrize("name", ["events", "objects", "processes"])
def test_what_is_wrong_with_a_broken_dataset_is_said(tmp_path: Path, name: str) -> None:
    from tests.conftest import ROOT
    from tracer import export, show

    data = tmp_path / "d"
    data.mkdir()
    for file in (ROOT / "datasets" / "gcc.cosytrace").iterdir():
        content = bytearray(file.read_bytes())
        if file.stem == name:
            content[4 : len(content) // 3] = b"\xa5" * (len(content) // 3 - 4)
        (data / file.name).write_bytes(content)
    for command, *words in (
        (show.main,),
        (export.main, "--format", "strace", "-o", str(tmp_path / "x")),
    ):
        done = CliRunner().invoke(command, [*words, str(data)])
        assert done.exit_code == 1
        last = done.output.splitlines()[-1]
        assert last.startswith(f"cosy-trace: cannot read: {data}/{name}.parquet: ")
    assert not (tmp_path / "x").exists()


def test_a_file_is_no_dataset(tmp_path: Path) -> None:
    from tracer import show

    (tmp_path / "x").write_text("x")
    done = CliRunner().invoke(show.main, [str(tmp_path / "x")])
    assert (
        done.output == f"cosy-trace: no trace dataset: {tmp_path}/x: record one with cosy-trace\n"
    )
