# SPDX-License-Identifier: MIT
"""Predicted against measured, for what cosy-auto has run: nothing is run again.

Processes under cosy-auto leave records of what they measured of themselves (`tracer/runs.py`). A
run is compared with what the motifs of its program predict for one: of the same command, if it is
on record, else of other ones, the prediction scaled by how many calls they made that a compound
might have answered.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from miner import cost
from miner.motifs import Motif, MotifFile, Over, Program
from miner.report import nanoseconds
from tracer import runs
from tracer.dataset import Dataset
from tracer.runs import Run

_COMMANDS_KEPT = 64  # of a program, the most frequent


@dataclass(frozen=True)
class Measured:
    """Runs of one program on one executor. Times in ns, all of one run; medians of the runs."""

    program: str  # path
    executor: str
    runs: int
    same_command: bool  # as in the trace
    predicted_ns: int
    low_ns: int
    high_ns: int
    measured_ns: int
    quartiles_ns: list[int]  # of the runs
    cpu_ns: int  # of the process
    calls: int  # that a compound might have answered
    answers: int
    call_ns: int  # of those that were answered, if the kernel had
    predicted_call_ns: int  # in the trace, without recording


def traced(paths: Iterable[str | Path]) -> list[Program]:
    """The programs of these traces that have a build-id, and how often they ran by which command;
    one process after another, whatever their number."""
    found: dict[tuple[str, str], Counter[str]] = {}
    keys: dict[tuple[tuple[str, ...], str | None], str] = {}  # few commands, of many processes
    for path in paths:
        columns = ["exe", "build_id", "argv", "cwd"]
        for row in Dataset(path).processes().select(columns).to_pylist():
            if row["build_id"]:
                command = tuple(row["argv"] or []), row["cwd"]
                if command not in keys:
                    keys[command] = f"{runs.command_key(*command):016x}"
                found.setdefault((row["exe"], row["build_id"]), Counter())[keys[command]] += 1
    return [
        Program(exe, build_id, commands.total(), dict(commands.most_common(_COMMANDS_KEPT)))
        for (exe, build_id), commands in sorted(found.items())
    ]


@dataclass
class _Predicted:
    """What the motifs of a program say of it, on one executor: sums over the trace."""

    saved: list[float]  # value, low, high
    calls: float = 0.0  # that a compound might have answered
    call_ns: float = 0.0  # what these took


def _asked(motif: Motif, executor: str, costs: cost.Calibration) -> tuple[float, float]:
    """Calls of a loop that the executor could answer, and their time without recording."""
    calls = [c for c in motif.calls if cost.answerable(c, executor)]
    return sum(c.count for c in calls), sum(c.count * cost.native_ns(c, costs) for c in calls)


def _predicted(found: MotifFile, exe: str, executor: str) -> _Predicted:
    """A motif of several programs counts for each by its share of the instances."""
    costs = cost.calibration_from(found.calibration, "motif file")
    out = _Predicted([0.0, 0.0, 0.0])
    for motif in found.motifs:
        instances = motif.instances_by_program
        if not motif.loop or motif.loop.over is not Over.ENTRIES or exe not in instances:
            continue
        share = instances[exe] / max(sum(instances.values()), 1)
        value = motif.predicted.get(executor, 0)
        low, high = motif.interval.get(executor, [value, value])
        out.saved = [s + share * v for s, v in zip(out.saved, (value, low, high), strict=True)]
        calls, call_ns = _asked(motif, executor, costs)
        out.calls += share * calls
        out.call_ns += share * call_ns
    return out


def _quartiles(values: Sequence[float]) -> list[int]:
    if len(values) == 1:
        return [int(values[0])] * 2
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return [int(low), int(high)]


def _median(values: Iterable[float]) -> int:
    return int(statistics.median(values))


def _measured(
    program: Program, executor: str, theirs: list[Run], predicted: _Predicted
) -> Measured | None:
    same = [r for r in theirs if f"{r.command:016x}" in program.commands]
    # Of commands of different size the trace does not say what each would save.
    one_size = len(program.commands) == 1
    chosen = same or theirs
    measured = [r for r in chosen if r.saved_ns is not None]
    if not measured or not predicted.calls:
        return None

    def size(run: Run) -> float:
        return 1 / program.processes if same and one_size else run.calls / predicted.calls

    value, low, high = (_median(s * size(r) for r in measured) for s in predicted.saved)
    savings = [r.saved_ns for r in measured if r.saved_ns is not None]
    return Measured(
        program=program.exe,
        executor=executor,
        runs=len(measured),
        same_command=bool(same),
        predicted_ns=value,
        low_ns=low,
        high_ns=high,
        measured_ns=_median(savings),
        quartiles_ns=_quartiles(savings),
        cpu_ns=_median(r.cpu_ns for r in measured),
        calls=_median(r.calls for r in measured),
        answers=_median(r.answers for r in measured),
        call_ns=_median(r.kernel_ns for r in measured),
        predicted_call_ns=int(predicted.call_ns / predicted.calls),
    )


def compare(found: MotifFile, records: Sequence[Run] | None = None) -> list[Measured]:
    """Each program of the traces with its runs on record (by default: on this machine).

    A program without any is left out, and so is one of which no motif predicts anything.
    """
    records = runs.load() if records is None else records
    out = []
    for program in found.programs:
        mine = [r for r in records if r.build_id == program.build_id]
        for executor in sorted({r.executor for r in mine}):
            theirs = [r for r in mine if r.executor == executor]
            predicted = _predicted(found, program.exe, executor)
            row = _measured(program, executor, theirs, predicted)
            if row:
                out.append(row)
    return sorted(out, key=lambda row: -row.predicted_ns * row.runs)


def signed(value: float) -> str:
    """A saving or a loss, with three digits and its unit."""
    return f"-{nanoseconds(-value)}" if value < 0 else nanoseconds(value)


def lines(rows: Sequence[Measured]) -> Iterator[str]:
    """Three lines for each program, of at most 80 columns."""
    for row in rows:
        count = "1 run" if row.runs == 1 else f"{row.runs:,} runs"
        what = "of this command" if row.same_command else "of other commands, scaled"
        name = PurePosixPath(row.program).name[:24]
        yield f"measured: {name}, {count} {what}, under cosy-auto ({row.executor})"
        low, high = map(signed, row.quartiles_ns)
        yield (
            f"  a run: predicted {signed(row.predicted_ns)} ({signed(row.low_ns)} to "
            f"{signed(row.high_ns)}), measured {signed(row.measured_ns)} ({low} to {high})"
        )
        yield (
            f"  {row.answers:,} of {row.calls:,} calls answered; a call took "
            f"{row.call_ns:,} ns, in the trace {row.predicted_call_ns:,}"
        )
