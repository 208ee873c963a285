# SPDX-License-Identifier: MIT
"""Measures what calls and executors cost on this machine, for `miner/cost.py`.

A probe program (`cosy_probe.c`) walks trees of files, native and under `cosy-auto`. The
counters that `--stats` prints say how often the executor ran, what it returned and what was
answered; the CPU time then is a sum of known counts with unknown costs, which least squares over
all rounds find. Each walk goes over the whole tree before the next one begins: caches are as cold
as on real walks, and costs are measured that depend on it. Other programs and a processor that
its host takes away only ever add time, so of every walk the one that took least counts; how that
changes when rounds are drawn again is the error.
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
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from miner.cost import LEAST_ERROR, Calibration
from miner.validate import cpu_ns
from synth.errors import SynthError
from tracer import native

if TYPE_CHECKING:
    from tracer.dataset import Dataset

ROUNDS: Final = 9
CALLS: Final = 200_000
COPIED: Final = 64 << 10  # bytes of a read, as cosy_probe.c has it
COPIES: Final = 5_000
TRACES: Final = 5  # of each kind
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
MODULE: Final = Path("/dev/cosy")
MELTDOWN: Final = Path("/sys/devices/system/cpu/vulnerabilities/meltdown")
Samples = dict[str, list[float]]
"""By name of a cost what it was each time."""
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


def _walk(probe: str, ask: tuple[int, int], folder: Path, front: list[str]) -> Walk:
    """One walk; under a launcher with what its --stats counted."""
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


@dataclass(frozen=True, slots=True)
class Walks:
    """Walks through one tree that belong together."""

    answered: Walk  # asks, under the executor
    idle: Walk  # does not ask, under the executor
    asking: Walk  # the same natively
    plain: Walk

    @property
    def call_ns(self) -> float:
        """What a call costs natively."""
        return (self.asking.cpu_ns - self.plain.cpu_ns) / max(self.asking.asked, 1)


Round = list[Walks]
"""One of each kind through each tree, always in the same order."""


def undisturbed(rounds: list[Round]) -> Round:
    """Of each walk the one that took least: others and the cold only ever add time to one."""
    names = [field.name for field in fields(Walks)]
    return [
        Walks(**{n: min((getattr(w, n) for w in same), key=lambda w: w.cpu_ns) for n in names})
        for same in zip(*rounds, strict=True)
    ]


def _holds(tree: Path, count: int) -> bool:
    """Whether so many entries are below `tree`."""
    for _, folders, files in os.walk(tree):
        count -= len(folders) + len(files)
        if count <= 0:
            return True
    return False


def _error(value: float, again: list[float]) -> float:
    """Relative error of a cost, from what it is when the samples are drawn again and again."""
    low, _, high = statistics.quantiles(again, n=4)
    return max((high - low) / value if value else 1.0, LEAST_ERROR)


def lowest(values: list[float]) -> tuple[float, float]:
    """The least of the values, and its relative error."""
    draw = random.Random(0)
    again = [min(draw.choices(values, k=len(values))) for _ in range(RESAMPLES)]
    return min(values), _error(min(values), again)


def walk_costs(rounds: list[Round], executor: str = "bpf") -> dict[str, tuple[float, float]]:
    """What walks under an executor say: each cost and its relative error."""
    best = _solve(undisturbed(rounds), executor)
    draw = random.Random(0)
    again = [
        _solve(undisturbed(draw.choices(rounds, k=len(rounds))), executor) for _ in range(RESAMPLES)
    ]
    return {
        name: (value, _error(value, [costs[name] for costs in again]))
        for name, value in best.items()
    }


def _solve(walks: Round, executor: str) -> dict[str, float]:
    """The native cost of asking for attributes, and the costs of a run, of a child in it and of an
    answer that explain the walks best, if the executor ran."""
    stat_ns = statistics.fmean(w.call_ns for w in walks[: len(walks) // len(ASKS)])
    if not any(w.answered.fired for w in walks):
        return {"stat_ns": stat_ns}
    import numpy as np
    from scipy.optimize import nnls

    answered = [w.answered for w in walks]
    counts = np.array([[w.fired, w.results, w.served] for w in answered], dtype=float)
    spent = np.array(
        [
            w.answered.cpu_ns - w.idle.cpu_ns - (w.answered.asked - w.answered.served) * w.call_ns
            for w in walks
        ]
    )
    # Each walk weighs the same, large or small, unless the others contradict it.
    weight = 1.0 / np.maximum(np.abs(spent), 1.0)
    trust = np.ones(len(spent))
    costs = np.zeros(counts.shape[1])
    for _ in range(REWEIGHTS):
        costs, _ = nnls(counts * (weight * trust)[:, None], np.maximum(spent, 0.0) * weight * trust)
        off = np.abs(counts @ costs - spent) * weight
        trust = 1.0 / np.sqrt(off + LEAST_ERROR)
    run_ns, child_ns, serve_ns = map(float, costs)
    found = {"stat_ns": stat_ns, f"{executor}_run_ns": run_ns, "serve_ns": serve_ns}
    if executor == "module":
        # The more a file system does for a child, the more it does for the module, too.
        return {**found, "module_child_ratio": child_ns / stat_ns}
    return {**found, f"{executor}_child_ns": child_ns}


def _traced(folder: Path, command: list[str]) -> tuple[Dataset, bytes]:
    """The trace of a command of the probe, and what the probe printed."""
    from tracer.dataset import Dataset

    dataset = folder / "probe.cosytrace"
    record = "from tracer.cli import main; main()"
    trace = [sys.executable, "-c", record, "-o", str(dataset), "--force", *command]
    done = _run(trace, cwd=Path(__file__).parent.parent)
    return Dataset(dataset), done.stdout


def _tracing(probe: str, folder: Path, tree: Path, samples: Samples, asking: Walk) -> int:
    """What recording adds to the duration of a call, and to the CPU time of the program by call.

    Returns how many calls a walk through the tree makes besides those that ask.
    """
    from tracer.syscalls import by_name

    call_ns = min(samples["call_ns"])
    for _ in range(TRACES):
        dataset, _ = _traced(folder, [probe, "calls", str(CALLS // 10)])
        table = dataset.events(["nr", "dur_ns"]).to_pandas()
        recorded = float(table.dur_ns[table.nr == by_name()["getppid"].nr].median())
        samples["trace_ns"].append(max(recorded - call_ns, 0.0))
        dataset, printed = _traced(folder, [probe, "walk", *map(str, ASKS[0]), str(tree)])
        added = float(printed.split()[0]) - asking.cpu_ns
        samples["record_ns"].append(max(added / len(dataset), 0.0))
    return len(dataset) - asking.asked


def _round(probe: str, trees: list[Path], launcher: str, executor: str) -> Round:
    """Every kind of walk through all trees."""
    under = [launcher, "--no-record", "--stats", "--executor", executor]

    def through(ask: tuple[int, int], front: list[str]) -> list[Walk]:
        return [_walk(probe, ask, folder, front) for folder in trees]

    plain, idle = through((0, 0), []), through((0, 0), under)
    found: Round = []
    for ask in ASKS:
        asking, answered = through(ask, []), through(ask, under)
        found += map(Walks, answered, idle, asking, plain)
    return found


def executors() -> list[str]:
    """Those whose costs can be measured here; eBPF's walks say what calls cost natively, too."""
    return ["bpf", *(["module"] if os.access(MODULE, os.R_OK | os.W_OK) else [])]


def _single(probe: str, launcher: str, file: Path, samples: Samples) -> None:
    """What needs no walk: a call, one that the shim passes, a byte that is copied, a start."""
    under = [launcher, "--no-record", "--executor", "none"]
    calls = [probe, "calls", str(CALLS)]
    samples["call_ns"].append(float(_run(calls).stdout))
    samples["passed_ns"].append(float(_run([*under, *calls]).stdout))
    copied = _run([probe, "copy", str(file), str(COPIES)])
    samples["copy_byte_ns"].append(float(copied.stdout))
    nothing = [probe, "calls", "1"]
    samples["started_ns"].append(float(cpu_ns([launcher, *nothing])))
    samples["native_ns"].append(float(cpu_ns(nothing)))


def _difference(more: list[float], less: list[float]) -> tuple[float, float]:
    """By how much the least of the ones exceeds the least of the others, and its relative error."""
    draw = random.Random(0)
    value = max(min(more) - min(less), 0.0)
    again = [
        min(draw.choices(more, k=len(more))) - min(draw.choices(less, k=len(less)))
        for _ in range(RESAMPLES)
    ]
    return value, _error(value, again)


def calibrate(rounds: int = ROUNDS, sizes: Mapping[int, int] = SIZES) -> Calibration:
    """Measure; takes some seconds. Costs of executors that are not here keep their defaults.

    Raises SynthError when the probe cannot run.
    """
    try:
        probe = str(native.find("cosy-probe"))
    except native.NativeFileError as error:
        raise SynthError(str(error)) from None
    launcher = _launcher()
    samples: Samples = defaultdict(list)
    walks: dict[str, list[Round]] = defaultdict(list)
    base = native.cache_folder().parent
    with tempfile.TemporaryDirectory(prefix="calibrate-", dir=base) as scratch:
        trees = [tree for tree in REAL if _holds(tree, REAL_ENTRIES)]
        trees = trees or list(_trees(Path(scratch), sizes).values())
        file = Path(scratch) / "file"
        file.write_bytes(bytes(COPIED))
        for _ in range(rounds):
            _single(probe, launcher, file, samples)
            for executor in executors():
                walks[executor].append(_round(probe, trees, launcher, executor))
        asking = undisturbed(walks["bpf"])[0].asking
        passed = _tracing(probe, Path(scratch), trees[0], samples, asking)
    found = {
        name: lowest(samples[name]) for name in ("call_ns", "trace_ns", "record_ns", "copy_byte_ns")
    }
    found["start_ns"] = _difference(samples["started_ns"], samples["native_ns"])
    found["inline_ns"] = _difference(samples["passed_ns"], samples["call_ns"])
    first = [through[0] for through in walks["bpf"]]
    looks = _difference([w.idle.cpu_ns for w in first], [w.plain.cpu_ns for w in first])
    found["watch_ns"] = looks[0] / max(passed, 1), looks[1]
    for executor in reversed(list(walks)):
        found |= walk_costs(walks[executor], executor)
    return replace(
        Calibration(),
        **{name: round(float(value), 4) for name, (value, _) in found.items()},
        errors={name: round(error, 3) for name, (_, error) in found.items()},
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
