# SPDX-License-Identifier: MIT
"""Measures what calls and executors cost on this machine, for `miner/cost.py`.

A probe program (`cosy_probe.c`) walks directories of known sizes, native and under `cosy-auto`. The
counters that `--stats` prints say how often the executor ran, what it returned and what was
answered; the CPU time then is a sum of known counts with unknown costs, solved by least squares.
Every round gives one estimate of each cost: medians are kept, their spread is the error.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from miner.cost import LEAST_ERROR, Calibration
from synth.errors import SynthError
from tracer import native

ROUNDS: Final = 9
CALLS: Final = 200_000
# Entries of a directory: directories. Some 40,000 files: caches are as cold as on real walks.
SIZES: Final = {8: 512, 32: 256, 128: 96, 512: 32}
STEPS: Final = (1, 2, 3)
LARGE: Final = 64 << 10
MELTDOWN: Final = Path("/sys/devices/system/cpu/vulnerabilities/meltdown")
_COMPOUND: Final = re.compile(rb"^  dirscan-stat\s+(\d+)\s+(\d+)\s+(\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Walk:
    """One walk of the probe. Times in ns of CPU time."""

    cpu_ns: float
    asked: int
    fired: int = 0
    results: int = 0
    served: int = 0


def isolation() -> bool:
    """Whether the kernel changes page tables at every crossing."""
    try:
        return "PTI" in MELTDOWN.read_text()
    except OSError:
        return False


def machine() -> str:
    """What the costs belong to."""
    pti = "on" if isolation() else "off"
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return f"{model}, Linux {platform.release()}, page-table isolation {pti}"


def _run(command: list[str], cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(command, cwd=cwd, capture_output=True, check=False, timeout=120)
    if done.returncode:
        reason = (done.stderr.decode(errors="replace").strip().splitlines() or ["no reason"])[0]
        raise SynthError(f"cannot calibrate: {' '.join(command)}: {reason}")
    return done


def _launcher() -> str:
    own = Path(sysconfig.get_path("scripts")) / "cosy-auto"
    found = str(own) if own.exists() else shutil.which("cosy-auto")
    if not found:
        raise SynthError("cannot calibrate: no cosy-auto: run `make setup`")
    return found


def _walk(probe: str, step: int, folder: Path, launcher: str | None) -> Walk:
    """One walk; under `launcher` with what its --stats counted."""
    front = [launcher, "--stats", "--executor", "bpf"] if launcher else []
    done = _run([*front, probe, "walk", str(step), str(folder)])
    cpu_ns, asked = done.stdout.split()
    counts = _COMPOUND.search(done.stderr)
    fired, results, served = (int(n) for n in counts.groups()) if counts else (0, 0, 0)
    return Walk(float(cpu_ns), int(asked), fired, results, served)


def _trees(folder: Path, sizes: Mapping[int, int]) -> dict[int, Path]:
    out = {}
    for size, count in sizes.items():
        for i in range(count):
            inner = folder / f"{size}" / f"d{i}"
            inner.mkdir(parents=True)
            for j in range(size):
                (inner / f"file-{j * 7919 % 10007}").touch()
        out[size] = folder / f"{size}"
    return out


def executor_costs(rounds: list[list[tuple[Walk, Walk, float]]]) -> list[dict[str, float]]:
    """Costs by round. A round: pairs of a walk under the executor that asks and one that does not
    ask, with the native cost of one call."""
    import numpy as np
    from scipy.optimize import nnls

    found = []
    for walks in rounds:
        counts = np.array([[w.fired, w.results, w.served] for w, _, _ in walks], dtype=float)
        spent = np.array(
            [w.cpu_ns - idle.cpu_ns - (w.asked - w.served) * call for w, idle, call in walks]
        )
        # Each walk weighs the same, large or small.
        weight = 1.0 / np.maximum(np.abs(spent), 1.0)
        costs, _ = nnls(counts * weight[:, None], np.maximum(spent, 0.0) * weight)
        names = ("bpf_run_ns", "bpf_child_ns", "serve_ns")
        found.append(dict(zip(names, (float(c) for c in costs), strict=True)))
    return found


def _tracing(probe: str, folder: Path, call_ns: list[float]) -> list[float]:
    """What recording adds to the durations that it records: those of the cheapest call."""
    from tracer.dataset import Dataset
    from tracer.syscalls import by_name

    dataset = folder / "probe.cosytrace"
    record = "from tracer.cli import main; main()"
    trace = [sys.executable, "-c", record, "-o", str(dataset), probe, "calls"]
    _run([*trace, str(CALLS // 10)], cwd=Path(__file__).parent.parent)
    table = Dataset(dataset).events(["nr", "dur_ns"]).to_pandas()
    recorded = table.dur_ns[table.nr == by_name()["getppid"].nr].median()
    return [max(float(recorded) - native_ns, 0.0) for native_ns in call_ns]


def _median(values: list[float]) -> tuple[float, float]:
    """The median, and the relative error that the spread of the values suggests."""
    middle = statistics.median(values)
    low, _, high = statistics.quantiles(values, n=4)
    return middle, max((high - low) / middle if middle else 1.0, LEAST_ERROR)


def calibrate(rounds: int = ROUNDS, sizes: Mapping[int, int] = SIZES) -> Calibration:
    """Measure; takes some seconds. Costs of executors that are not here keep their defaults.

    Raises SynthError when the probe cannot run.
    """
    try:
        probe = str(native.find("cosy-probe"))
    except native.NativeFileError as error:
        raise SynthError(str(error)) from None
    launcher = _launcher()
    samples: dict[str, list[float]] = {"call_ns": [], "byte_ns": [], "stat_ns": []}
    walks: list[list[tuple[Walk, Walk, float]]] = []
    base = native.cache_folder().parent
    with tempfile.TemporaryDirectory(prefix="calibrate-", dir=base) as scratch:
        trees = _trees(Path(scratch), sizes)
        for _ in range(rounds):
            plain, small, large = (
                float(word) for word in _run([probe, "calls", str(CALLS)]).stdout.split()
            )
            samples["call_ns"].append(plain)
            samples["byte_ns"].append(max(large - small, 0.0) / (LARGE - 1))
            pairs = []
            for folder in trees.values():
                asking, idle = (_walk(probe, step, folder, None) for step in (1, 0))
                stat_ns = max(asking.cpu_ns - idle.cpu_ns, 0.0) / max(asking.asked, 1)
                samples["stat_ns"].append(stat_ns)
                idle = _walk(probe, 0, folder, launcher)
                pairs += [(_walk(probe, s, folder, launcher), idle, stat_ns) for s in STEPS]
            walks.append(pairs)
        samples["trace_ns"] = _tracing(probe, Path(scratch), samples["call_ns"])
    if any(walk.fired for pairs in walks for walk, _, _ in pairs):
        for costs in executor_costs(walks):
            for name, value in costs.items():
                samples.setdefault(name, []).append(value)
    values, errors = {}, {}
    for name, found in samples.items():
        values[name], errors[name] = _median(found)
    return replace(
        Calibration(),
        **{name: round(value, 4) for name, value in values.items()},
        errors={name: round(error, 3) for name, error in errors.items()},
        machine=machine(),
    )


def describe(costs: Calibration) -> list[str]:
    """A line for each cost: what it is, and whether it was measured."""
    out = [costs.machine or f"not measured here ({os.uname().nodename})"]
    for name, value in costs.to_json().items():
        if isinstance(value, float):
            error = costs.errors.get(name)
            note = f"+- {error:.0%}" if error is not None else "default, not measured"
            out.append(f"  {name:<20}{value:>12,.4g}   {note}")
    return out
