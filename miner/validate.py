# SPDX-License-Identifier: MIT
"""Predicted against measured: the traced commands once more, without and with `cosy-auto`.

Runs take turns, so that a machine that drifts does so for both, and of each kind the one that took
least counts, as others only ever add time to one. A trace was recorded once, at whatever pace the
machine had then: its calls count as what they take at the pace of now. Every comparison is kept in
`validation.json` beside the calibration, for reports.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import statistics
import subprocess
import sysconfig
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from miner import cost
from miner.motifs import MotifFile, TraceInfo
from tracer import output

_KEPT = 1000  # comparisons in the file
_RESAMPLES = 100
_EXECUTOR = "bpf"


class ValidationError(Exception):
    """The commands could not be run again; the message says what to do."""


@dataclass(frozen=True)
class Comparison:
    """One command. CPU times in ns; savings are of one run."""

    command: list[str]
    predicted_ns: int
    low_ns: int
    high_ns: int
    measured_ns: int
    quartiles_ns: list[int]  # of the measured saving
    native_ns: int  # CPU time
    runs: int
    recorded: str
    pace: float = 1.0  # CPU time natively now by that in the trace


def _launcher() -> str:
    own = Path(sysconfig.get_path("scripts")) / "cosy-auto"
    found = str(own) if own.exists() else shutil.which("cosy-auto")
    if not found:
        raise ValidationError("cannot validate: no cosy-auto: run `make setup`")
    return found


def cpu_ns(command: Sequence[str]) -> int:
    """CPU time of a run, its children's included: on a busy machine the wall time says little."""
    try:
        # A reader, as some programs do nothing at all for /dev/null.
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    except OSError as error:
        raise ValidationError(f"cannot run again: {command[0]}: {error.strerror}") from None
    assert child.stdout is not None
    with child.stdout:
        while child.stdout.read(1 << 16):
            pass
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return int((usage.ru_utime + usage.ru_stime) * 1e9)


@dataclass(frozen=True)
class Runs:
    """CPU times of runs that took turns, in ns."""

    native: list[int]
    cosy: list[int]

    @property
    def saved(self) -> int:
        """The undisturbed run against the undisturbed run."""
        return min(self.native) - min(self.cosy)

    @property
    def quartiles(self) -> list[int]:
        """Of what the saving is when the runs are drawn again and again."""
        draw = random.Random(0)
        again = [
            min(draw.choices(self.native, k=len(self.native)))
            - min(draw.choices(self.cosy, k=len(self.cosy)))
            for _ in range(_RESAMPLES)
        ]
        low, _, high = statistics.quantiles(again, n=4)
        return [int(low), int(high)]


def _measure(command: list[str], runs: int) -> Runs:
    launcher = [_launcher(), "--executor", _EXECUTOR]
    found = Runs([], [])
    for prefix in ([], launcher):
        cpu_ns([*prefix, *command])
    for i in range(runs):
        for prefix in ([], launcher) if i % 2 else (launcher, []):
            times = found.cosy if prefix else found.native
            times.append(cpu_ns([*prefix, *command]))
    return found


def pace(trace: TraceInfo, native_ns: int, costs: cost.Calibration) -> float:
    """CPU time that the command takes natively now by what it took in the trace without recording;
    1.0 where that is not known."""
    then = trace.cpu_ns - trace.events * costs.record_ns
    return native_ns / then if trace.cpu_ns and then > 0 else 1.0


def predicted(found: MotifFile, costs: cost.Calibration, pace: float) -> list[int]:
    """What the executor would save of the CPU time of a run, and the ends of that, in ns.

    The start of the shim and its looks at all other calls are taken off.
    """
    sums = [0, 0, 0]
    others = sum(trace.events for trace in found.traces)
    for motif in found.motifs:
        if _EXECUTOR in motif.predicted:
            others -= sum(c.count for c in motif.calls if cost.answerable(c, _EXECUTOR))
            value, ends = motif.predicted[_EXECUTOR], motif.interval[_EXECUTOR]
            if pace != 1.0:
                paced = cost.at_pace(motif, pace)
                value = cost.predict(paced, costs).get(_EXECUTOR, 0)
                ends = cost.interval(paced, costs).get(_EXECUTOR, [0, 0])
            sums = [s + v for s, v in zip(sums, (value, *ends), strict=True)]
    paid_ns = int(costs.start_ns + max(others, 0) * costs.watch_ns)
    return [s - paid_ns for s in sums]


def validate(found: MotifFile, runs: int) -> list[Comparison]:
    """Run the command of each trace again; raises ValidationError.

    What is predicted for several traces together cannot be told apart, so there may be one.
    """
    if len(found.traces) != 1:
        raise ValidationError("validate one trace at a time: predictions are for all together")
    (trace,) = found.traces
    if not trace.command or not shutil.which(trace.command[0]):
        raise ValidationError(f"cannot run again: {' '.join(trace.command) or 'no command'}")
    costs = cost.calibration_from(found.calibration, "motif file")
    measured = _measure(trace.command, runs)
    native_ns = min(measured.native)
    now = pace(trace, native_ns, costs)
    value, low, high = predicted(found, costs, now)
    done = Comparison(
        command=trace.command,
        predicted_ns=value,
        low_ns=low,
        high_ns=high,
        measured_ns=measured.saved,
        quartiles_ns=measured.quartiles,
        native_ns=native_ns,
        runs=runs,
        recorded=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        pace=round(now, 4),
    )
    _keep([done])
    return [done]


def history_path() -> Path | None:
    """Where comparisons are kept; None without a home."""
    path = cost.stored_path()
    return path.with_name("validation.json") if path else None


def history() -> list[Comparison]:
    """All comparisons of this machine, oldest first; what cannot be read counts as none."""
    path = history_path()
    try:
        rows = json.loads(path.read_bytes()) if path else []
        return [Comparison(**row) for row in rows]
    except (OSError, ValueError, TypeError):
        return []


def _keep(done: list[Comparison]) -> None:
    path = history_path()
    if path is None:
        return
    rows = [asdict(row) for row in (history() + done)[-_KEPT:]]
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with output.written(path) as file:
            file.write(json.dumps(rows, indent=1).encode() + b"\n")
    except OSError as error:
        raise ValidationError(f"cannot keep: {path}: {error.strerror}") from None


def lines(done: Sequence[Comparison]) -> Iterator[str]:
    """A line or two for each comparison."""
    for row in done:
        low, high = (value / 1e6 for value in row.quartiles_ns)
        yield f"validated: {' '.join(row.command)}"
        yield (
            f"  predicted {row.predicted_ns / 1e6:.1f} ms "
            f"({row.low_ns / 1e6:.1f} to {row.high_ns / 1e6:.1f}), "
            f"measured {row.measured_ns / 1e6:.1f} ms ({low:.1f} to {high:.1f})"
        )
        yield (
            f"  of {row.native_ns / 1e6:.1f} ms CPU time without, {row.pace:.2f} of what the trace "
            "took"
        )
        yield f"  {row.runs} runs each, in turns"
