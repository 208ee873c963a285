# SPDX-License-Identifier: MIT
"""What the cost model predicts of programs beside what cosy-auto saves: within 15 % is the aim.

Native runs, runs under cosy-auto and recorded runs take turns. What is saved is the difference of
CPU times, of each kind the lower quartile; predicted is from the recording that took least, of the
same minutes, by the costs that are stored or given. The predicted start of the shim and its looks
are taken off, as in `cosy-mine --validate --rerun`. `records`: what the runs measured of themselves
(`cosy-mine --validate`).
"""

from __future__ import annotations

import os
import statistics
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from bench.harness import Job, Variant, lower_quartile, native, present, run_once, save, script
from bench.main_job import WALK
from miner import cost, measured, mine, validate
from miner.motifs import MotifFile
from tracer import runs
from tracer.dataset import Dataset
from tracer.runs import Run

EXECUTOR = "bpf"
NEAR = 0.15


def jobs(tree: str) -> list[Job]:
    """Programs that walk."""
    return [
        Job(("du", "-s", tree)),
        Job(("find", tree, "-size", "+100M")),
        Job(("ls", "-lR", tree)),
        Job(("tar", "cf", "/dev/null", tree)),
        Job(("/usr/bin/python3", "-c", WALK, tree)),
    ]


@dataclass(frozen=True)
class Row:
    """One program. Times in ns of CPU time of one run."""

    title: str
    native_ns: int
    saved_ns: int
    """Difference of the lower quartiles."""
    saved_quartiles_ns: tuple[int, int]
    """Of the differences, round by round."""
    predicted_ns: int
    low_ns: int
    high_ns: int
    records_ns: int | None
    """Median of what the runs measured of themselves, which no start or look is in."""
    rounds: int

    @property
    def off(self) -> float:
        """By how much the prediction differs from what was saved."""
        return self.predicted_ns / self.saved_ns - 1 if self.saved_ns else float("nan")


def recorded(job: Job, target: Path) -> int:
    """Record a run; returns its CPU time in ns."""
    run_once(job, Variant("traced", (script("cosy-trace"), "--force", "-o", str(target))))
    meta = Dataset(target).meta
    return int(meta["user_ns"]) + int(meta["system_ns"])


def of_records(found: MotifFile, told: list[Run]) -> int | None:
    """What the runs measured of themselves."""
    rows = measured.compare(found, told)
    return rows[0].measured_ns if rows else None


def compare(job: Job, rounds: int, costs: cost.Calibration, folder: Path) -> Row:
    """Take turns, mine, predict."""
    cosy = Variant("cosy", (script("cosy-auto"), "--executor", EXECUTOR))
    for variant in (native(), cosy):
        run_once(job, variant)
    known = len(runs.load())
    times: dict[str, list[int]] = {"native": [], "cosy": []}
    traces: list[tuple[int, Path]] = []
    for number in range(rounds):
        turns = (native(), cosy) if number % 2 else (cosy, native())
        for variant in turns:
            times[variant.name].append(round(run_once(job, variant).cpu_s * 1e9))
        target = folder / f"{len(traces)}.cosytrace"
        traces.append((recorded(job, target), target))
    told = runs.load()[known:]
    found = mine.mine([min(traces)[1]], costs)
    value, low, high = validate.predicted(found, costs, 1.0)
    differences = [a - b for a, b in zip(times["native"], times["cosy"], strict=True)]
    quarters = statistics.quantiles(differences, n=4, method="inclusive")
    own_ns = round(lower_quartile(times["native"]))
    return Row(
        title=job.title,
        native_ns=own_ns,
        saved_ns=own_ns - round(lower_quartile(times["cosy"])),
        saved_quartiles_ns=(round(quarters[0]), round(quarters[2])),
        predicted_ns=value,
        low_ns=low,
        high_ns=high,
        records_ns=of_records(found, told),
        rounds=rounds,
    )


HEADER = (
    f"{'command':28} {'native':>8} {'saved':>8} {'quartiles':>13} {'predicted':>10} "
    f"{'interval':>13} {'off':>6} {'records':>8}"
)


def line(row: Row) -> str:
    """One line of the table under HEADER, times in ms."""

    def ms(value_ns: int | None) -> str:
        return "-" if value_ns is None else f"{value_ns / 1e6:.1f}"

    quartiles = "..".join(ms(value) for value in row.saved_quartiles_ns)
    missed = "" if abs(row.off) <= NEAR else "  MISSED"
    return (
        f"{row.title[:28]:28} {ms(row.native_ns):>8} {ms(row.saved_ns):>8} {quartiles:>13} "
        f"{ms(row.predicted_ns):>10} {ms(row.low_ns) + '..' + ms(row.high_ns):>13} "
        f"{row.off:>+6.0%} {ms(row.records_ns):>8}{missed}"
    )


@click.command(help=__doc__)
@click.option("--rounds", default=9, show_default=True, type=click.IntRange(min=2))
@click.option("--tree", default="/usr", show_default=True, help="What is walked through.")
@click.option("--only", default="", help="Only commands that hold this word.")
@click.option("--defaults", is_flag=True, help="The model's defaults, whatever is stored.")
@click.option("--calibrate", is_flag=True, help="Measure the costs first; nothing is stored.")
def main(rounds: int, tree: str, only: str, defaults: bool, calibrate: bool) -> None:
    """Measure, predict, print, save. One that is off by more than 15 % is marked."""
    costs = cost.Calibration() if defaults else cost.here()
    if calibrate:
        from synth.calibrate import calibrate as measure

        costs = measure()
    print(f"costs: {costs.machine or 'defaults'}; CPU time in ms\n{HEADER}")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="cosy-predictions-") as name:
        # Records of runs are the user's; ours are apart.
        os.environ["XDG_CACHE_HOME"] = f"{name}/cache"
        for job in jobs(tree):
            if (only and only not in job.title) or not present(job):
                continue
            rows.append(compare(job, rounds, costs, Path(name)))
            print(line(rows[-1]), flush=True)
    print(f"saved {save('predictions', [asdict(row) for row in rows])}")


if __name__ == "__main__":
    main()
