# SPDX-License-Identifier: MIT
"""Predicted against measured: the traced commands once more, without and with `cosy-auto`.

Runs take turns, so that a machine that drifts does so for both. Every comparison is kept in
`validation.json` beside the calibration, for reports.
"""

from __future__ import annotations

import json
import os
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

_KEPT = 1000  # comparisons in the file
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
    native_ns: int  # median CPU time
    runs: int
    recorded: str


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


def _compare(trace: TraceInfo, predicted: tuple[int, int, int], runs: int) -> Comparison:
    launcher = [_launcher(), "--executor", _EXECUTOR]
    for prefix in ([], launcher):
        cpu_ns([*prefix, *trace.command])
    native, saved = [], []
    for i in range(runs):
        turns = [[], launcher] if i % 2 else [launcher, []]
        times = {len(prefix): cpu_ns([*prefix, *trace.command]) for prefix in turns}
        native.append(times[0])
        saved.append(times[0] - times[len(launcher)])
    low, middle, high = statistics.quantiles(saved, n=4)
    return Comparison(
        command=trace.command,
        predicted_ns=predicted[0],
        low_ns=predicted[1],
        high_ns=predicted[2],
        measured_ns=int(middle),
        quartiles_ns=[int(low), int(high)],
        native_ns=int(statistics.median(native)),
        runs=runs,
        recorded=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )


def validate(found: MotifFile, runs: int) -> list[Comparison]:
    """Run the command of each trace again; raises ValidationError.

    What is predicted for several traces together cannot be told apart, so there may be one.
    """
    if len(found.traces) != 1:
        raise ValidationError("validate one trace at a time: predictions are for all together")
    (trace,) = found.traces
    if not trace.command or not shutil.which(trace.command[0]):
        raise ValidationError(f"cannot run again: {' '.join(trace.command) or 'no command'}")
    sums = [0, 0, 0]
    for motif in found.motifs:
        if _EXECUTOR in motif.predicted:
            low, high = motif.interval[_EXECUTOR]
            sums = [
                s + v for s, v in zip(sums, (motif.predicted[_EXECUTOR], low, high), strict=True)
            ]
    start_ns = int(cost.calibration_from(found.calibration, "motif file").start_ns)
    done = [_compare(trace, (sums[0] - start_ns, sums[1] - start_ns, sums[2] - start_ns), runs)]
    _keep(done)
    return done


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
    tmp = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        tmp.write_text(json.dumps(rows, indent=1) + "\n")
        tmp.replace(path)
    except OSError as error:
        tmp.unlink(missing_ok=True)
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
            f"  of {row.native_ns / 1e6:.1f} ms CPU time without; {row.runs} runs each, in turns"
        )
