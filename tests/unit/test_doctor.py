# SPDX-License-Identifier: MIT
"""cosy-doctor: a line for each part, a reason for each `no`, nothing heavy loaded."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from miner import cost
from synth import calibrate, doctor

ROOT = Path(__file__).resolve().parents[2]


def test_pins_are_those_of_the_header() -> None:
    text = (ROOT / "kmod" / "uapi" / "cosy_bpf.h").read_text()
    folder = re.search(r'COSY_BPF_PIN_DIR "(.*)"', text)
    assert folder is not None
    assert folder[1] == str(doctor.PINS)
    assert re.findall(r'COSY_BPF_PIN_DIR "/(\w+)"', text) == list(doctor.PIN_NAMES)


def test_nothing_built_is_said_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COSY_NATIVE_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    result = CliRunner().invoke(doctor.main)
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert next(line for line in lines if "shim" in line).startswith("no ")
    assert any("to change it: make setup" in line for line in lines)
    assert all(line.startswith(("yes ", "no  ", " ")) for line in lines)
    # Every part has its line, and no part has two.
    heads = [line[4:21].strip() for line in lines if not line.startswith(" ")]
    assert len(heads) == len(set(heads)) == len(doctor.CHECKS)


def test_a_cache_that_others_may_write_to_is_no_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert doctor.cache().ok
    (tmp_path / "cosy" / "text").chmod(0o777)
    finding = doctor.cache()
    assert not finding.ok
    assert "others may write" in finding.detail
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    assert not doctor.cache().ok


def test_costs_of_another_kernel_are_no_costs_of_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert "not measured here" in doctor.costs().detail
    path = cost.stored_path()
    assert path is not None
    cost.save_calibration(cost.Calibration(machine=calibrate.machine()), path)
    assert doctor.costs().ok
    isolated = calibrate.isolation()
    monkeypatch.setattr(calibrate, "isolation", lambda: not isolated)
    finding = doctor.costs()
    assert (finding.ok, finding.command) == (False, "cosy-doctor --calibrate")
    path.write_text("{")
    assert "cannot read calibration" in doctor.costs().detail


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, synth.cli, synth.doctor;"
        "print(sorted({'numpy', 'pandas', 'pyarrow', 'scipy', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
