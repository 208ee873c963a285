# SPDX-License-Identifier: MIT
"""Measures what calls and executors cost on this machine, for `miner/cost.py`.

A probe program (`cosy_probe.c`) walks trees of files, native and under `cosy-auto`. The
counters that `--stats` prints say how often the executor ran, what it returned and what was
answered; the CPU time then is a sum of known counts with unknown costs, which least squares over
all rounds find. Each walk goes over the whole tree before the next one begins: caches are as cold
as on real walks, and costs are measured that depend on it. Of costs that are measured alone the
median is kept; the spread is the error.
"""

from __future__ import annotations

import os
import platform
import random
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
from miner.validate import cpu_ns
from synth.errors import SynthError
from tracer import native

ROUNDS: Final = 9
CALLS: Final = 200_000
# Entries of a directory: directories. Some 40,000 files: caches are as cold as on real walks.
SIZES: Final = {8: 512, 32: 256, 128: 96, 512: 32}
# Every how manieth entry is asked about, and how often beyond its attributes: as du, as a search
# that leaves some out, as ls.
ASKS: Final = ((1, 0), (2, 0), (1, 2))
RESAMPLES: Final = 30  # of the rounds, which say how far the costs can be trusted
REWEIGHTS: Final = 8  # until a walk that something disturbed no longer counts
# Real trees: what they hold lies scattered in memory, and a child costs half as much again as in
# directories that were made for this, which stand in where a machine has none.
REAL: Final = (Path("/usr/share"), Path("/usr/lib"))
REAL_ENTRIES: Final = 10_000
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


def _walk(probe: str, ask: tuple[int, int], folder: Path, launcher: str | None) -> Walk:
    """One walk; under `launcher` with what its --stats counted."""
    front = [launcher, "--stats", "--executor", "bpf"] if launcher else []
    done = _run([*front, probe, "walk", *map(str, ask), str(folder)])
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


Pairs = list[tuple[Walk, Walk, float]]
"""A round: walks under the executor that ask and that do not, with the native cost of a call."""


def _holds(tree: Path, count: int) -> bool:
    """Whether so many entries are below `tree`."""
    for _, folders, files in os.walk(tree):
        count -= len(folders) + len(files)
        if count <= 0:
            return True
    return False


def executor_costs(rounds: list[Pairs]) -> dict[str, tuple[float, float]]:
    """Each cost and its relative error."""
    names = ("bpf_run_ns", "bpf_child_ns", "serve_ns")
    best = _solve([pair for pairs in rounds for pair in pairs])
    draw = random.Random(0)
    again = [
        _solve([pair for pairs in draw.choices(rounds, k=len(rounds)) for pair in pairs])
        for _ in range(RESAMPLES)
    ]
    return {
        name: (cost, _median([costs[i] for costs in again])[1])
        for i, (name, cost) in enumerate(zip(names, best, strict=True))
    }


def _solve(pairs: Pairs) -> list[float]:
    """Costs of a run, of a child in it and of an answer that explain the walks best."""
    import numpy as np
    from scipy.optimize import nnls

    counts = np.array([[w.fired, w.results, w.served] for w, _, _ in pairs], dtype=float)
    spent = np.array(
        [w.cpu_ns - idle.cpu_ns - (w.asked - w.served) * call for w, idle, call in pairs]
    )
    # Each walk weighs the same, large or small, unless the others contradict it.
    weight = 1.0 / np.maximum(np.abs(spent), 1.0)
    trust = np.ones(len(spent))
    costs = np.zeros(counts.shape[1])
    for _ in range(REWEIGHTS):
        costs, _ = nnls(counts * (weight * trust)[:, None], np.maximum(spent, 0.0) * weight * trust)
        off = np.abs(counts @ costs - spent) * weight
        trust = 1.0 / np.sqrt(off + LEAST_ERROR)
    return [float(cost) for cost in costs]


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


def _round(probe: str, trees: list[Path], launcher: str) -> tuple[Pairs, float]:
    """Every kind of walk through all trees, and the native cost of asking for attributes."""

    def through(ask: tuple[int, int], front: str | None) -> list[Walk]:
        return [_walk(probe, ask, folder, front) for folder in trees]

    plain, idle = through((0, 0), None), through((0, 0), launcher)
    pairs: Pairs = []
    stat_ns = 0.0
    for ask in ASKS:
        asking = through(ask, None)
        call_ns = [
            (a.cpu_ns - p.cpu_ns) / max(a.asked, 1) for a, p in zip(asking, plain, strict=True)
        ]
        if ask == ASKS[0]:
            stat_ns = statistics.fmean(call_ns)
        pairs += zip(through(ask, launcher), idle, call_ns, strict=True)
    return pairs, stat_ns


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
    samples: dict[str, list[float]] = {n: [] for n in ("call_ns", "byte_ns", "stat_ns", "start_ns")}
    walks: list[Pairs] = []
    base = native.cache_folder().parent
    with tempfile.TemporaryDirectory(prefix="calibrate-", dir=base) as scratch:
        trees = [tree for tree in REAL if _holds(tree, REAL_ENTRIES)]
        trees = trees or list(_trees(Path(scratch), sizes).values())
        for _ in range(rounds):
            plain, small, large = (
                float(word) for word in _run([probe, "calls", str(CALLS)]).stdout.split()
            )
            samples["call_ns"].append(plain)
            samples["byte_ns"].append(max(large - small, 0.0) / (LARGE - 1))
            nothing = [probe, "calls", "1"]
            samples["start_ns"].append(max(cpu_ns([launcher, *nothing]) - cpu_ns(nothing), 0.0))
            pairs, call_ns = _round(probe, trees, launcher)
            walks.append(pairs)
            samples["stat_ns"].append(call_ns)
        samples["trace_ns"] = _tracing(probe, Path(scratch), samples["call_ns"])
    values, errors = {}, {}
    for name, found in samples.items():
        values[name], errors[name] = _median(found)
    if any(walk.fired for pairs in walks for walk, _, _ in pairs):
        for name, (value, spread) in executor_costs(walks).items():
            values[name], errors[name] = value, spread
    return replace(
        Calibration(),
        **{name: round(float(value), 4) for name, value in values.items()},
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
