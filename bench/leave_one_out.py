# SPDX-License-Identifier: MIT
"""Programs that nobody traced: each runs with the profile mined from all the others.

The programs, their folders and their traces are those of datasets/ (servers apart). For each, the
profile is synthesized from the motifs of all other traces; the program runs natively and under
cosy-auto in turn, in a fresh folder each time. Printed: whether the output is the same, which share
of the calls that its own trace holds was answered, and the ratios of times (1: no loss), medians of
pairs with their 95 % intervals.
"""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click

from bench.harness import save, script
from bench.intervals import median_interval
from bench.programs import Programs, Run, served
from miner.motifs import MotifFile
from synth.compile import compile_profile
from synth.shipped import mined
from synth.synthesize import synthesize


@dataclass(frozen=True)
class Row:
    """One program left out; ratios are native time over ours, each with its 95 % interval."""

    name: str
    n: int
    identical: bool
    calls: int
    served: int
    wall: tuple[float, float, float]
    cpu: tuple[float, float, float]
    native_s: float


def measure(programs: Programs, name: str, others: list[MotifFile], runs: int) -> Row | None:
    """None: the others' motifs justify no compound."""
    profile, _ = synthesize(others)
    if not profile.compounds:
        return None
    with tempfile.NamedTemporaryFile(suffix=".img") as image:
        Path(image.name).write_bytes(compile_profile(profile, name))
        cosy = [script("cosy-auto"), "--profile", image.name]
        # Nobody's first: the first look at a new file is always the kernel's.
        warm = programs.run(name)
        reported = programs.run(name, [*cosy[:1], "--stats", *cosy[1:]])
        samples: tuple[list[Run], list[Run]] = ([], [])
        for number in range(runs):
            for which in (0, 1) if number % 2 == 0 else (1, 0):
                samples[which].append(programs.run(name, cosy if which else []))
    pairs = list(zip(*samples, strict=True))
    return Row(
        name=name,
        n=runs,
        identical=len({run.digest for run in (warm, reported, *samples[0], *samples[1])}) == 1,
        calls=0,
        served=served(reported.report),
        wall=median_interval([a.wall_s / b.wall_s for a, b in pairs]),
        cpu=median_interval([a.cpu_s / b.cpu_s for a, b in pairs]),
        native_s=statistics.median(run.wall_s for run in samples[0]),
    )


@click.command(help=__doc__)
@click.option("--runs", default=7, show_default=True, help="Rounds; each runs both once.")
@click.option("--only", default="", help="Only programs whose name holds this word.")
def main(runs: int, only: str) -> None:
    """Mine all, leave each out in turn, measure, print, save."""
    programs = Programs()
    found = mined()
    rows = []
    print(f"{'left out':20} {'native':>9}  {'wall time':19} {'processor time':19} {'answered':>16}")
    for name in programs.names(only):
        if name not in found:
            continue
        # Other traces of the same program would be no proof.
        others = [
            motifs
            for other, motifs in found.items()
            if programs.program(other) != programs.program(name)
        ]
        row = measure(programs, name, others, runs)
        if row is None:
            print(f"{name:20} the others justify no compound")
            continue
        calls = sum(trace.events for trace in found[name].traces)
        rows.append(replace(row, calls=calls))
        share = f"{row.served:,} ({min(row.served / calls, 1):.0%})"
        print(
            f"{name:20} {row.native_s * 1e3:7.1f}ms  {spelled(row.wall):19} {spelled(row.cpu):19} "
            f"{share:>16}  {'same' if row.identical else 'DIFFERS'}",
            flush=True,
        )
    print(f"{sum(row.identical for row in rows)} of {len(rows)} outputs are the same")
    print(f"saved {save('leave-one-out', [asdict(row) for row in rows])}")
    if not all(row.identical for row in rows):
        raise SystemExit("bench: outputs differ")


def spelled(ratio: tuple[float, float, float]) -> str:
    """A median and its interval."""
    middle, low, high = ratio
    return f"{middle:.3f} ({low:.2f}-{high:.2f})"


if __name__ == "__main__":
    main()
