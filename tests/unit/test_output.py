# SPDX-License-Identifier: MIT
"""Where commands write: only regular files are replaced, by every command."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tracer.output import OutputError, check, written

DATASET = ROOT / "datasets" / "gcc.cosytrace"
EXPORT = ("tracer.export", "--format", "folded", "-o", "OUT", str(DATASET))
COMMANDS = {
    "export": EXPORT,
    "mine": ("miner.cli", "-o", "OUT", str(DATASET)),
    "report": ("miner.report_cli", "--html", "OUT", str(DATASET)),
}


@pytest.fixture(params=COMMANDS)
def command(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return COMMANDS[request.param]


def run(command: tuple[str, ...], target: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Run a command whose output goes to `target`."""
    module, *words = (str(target) if word == "OUT" else word for word in command)
    code = f"from {module} import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *more, *words], cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def test_a_device_stays_one(command: tuple[str, ...], tmp_path: Path) -> None:
    device = tmp_path / "null"
    try:
        os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("making a device needs root")
    for more in ([], ["--force"]):
        done = run(command, device, *more)
        assert done.returncode == 0, done.stderr
        assert stat.S_ISCHR(device.stat().st_mode)
    assert [path.name for path in tmp_path.iterdir()] == ["null"]


def test_a_fifo_gets_the_output(command: tuple[str, ...], tmp_path: Path) -> None:
    fifo, plain = tmp_path / "fifo", tmp_path / "plain"
    os.mkfifo(fifo)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(fifo.read_bytes()), daemon=True)
    reader.start()
    assert run(command, fifo, "--force").returncode == 0
    reader.join(20)
    assert run(command, plain).returncode == 0
    assert fifo.is_fifo()
    assert read
    # Some say when they were made.
    assert len(read[0]) == plain.stat().st_size > 100


def test_a_link_stays_one(command: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link, place = tmp_path / "link", tmp_path / "elsewhere" / "file"
    link.symlink_to(place)
    assert run(command, link).returncode == 0, "it points to nothing"
    assert link.is_symlink()
    whole = place.read_bytes()
    place.write_bytes(b"old")
    place.chmod(0o600)
    assert run(command, link).returncode == 1
    assert place.read_bytes() == b"old"
    assert run(command, link, "--force").returncode == 0
    assert link.is_symlink()
    assert len(place.read_bytes()) == len(whole)
    assert place.stat().st_mode & 0o777 == 0o600


def test_a_link_to_a_dataset_stays_one(tmp_path: Path) -> None:
    from tracer.dataset import Dataset, Writer

    data = Dataset(shutil.copytree(DATASET, tmp_path / "data"))
    (tmp_path / "link").symlink_to("data")
    with Writer(tmp_path / "link", force=True) as writer:
        writer.finish(data.processes(), data.objects(), {**data.meta, "command": ["new"]})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "link"]
    assert (tmp_path / "link").is_symlink()
    assert Dataset(tmp_path / "data").meta["command"] == ["new"]


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    def half() -> None:
        with written(tmp_path / "x") as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    assert list(tmp_path.iterdir()) == []
    for wrong in (tmp_path, tmp_path / "no" / "such", tmp_path / ("x" * 300)):
        with pytest.raises(OutputError):
            check(wrong, force=True)
