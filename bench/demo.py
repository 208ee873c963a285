# SPDX-License-Identifier: MIT
"""From a trace to a faster run, on two programs: what `make demo` shows.

Each step is a command that one could type; it is printed before it runs.
"""

from __future__ import annotations

import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from bench.harness import HEADER, Job, Row, cosy, measure, native, print_row, script


def step(title: str) -> None:
    """A heading."""
    print(f"\n== {title}", flush=True)


def shown(command: Sequence[str]) -> None:
    """What is about to run, short as one would type it."""
    words = [
        Path(word).name if word.startswith("/") and "/bin/" in word else word for word in command
    ]
    print(f"$ {shlex.join(words)}", flush=True)


def run(command: Sequence[str], quiet: bool = False) -> None:
    """Run a step; `quiet` keeps a program's own output away. Ends the demo when it fails."""
    shown(command)
    done = subprocess.run(command, stdout=subprocess.DEVNULL if quiet else None, check=False)
    if done.returncode != 0:
        raise SystemExit(f"demo: failed with exit code {done.returncode}: {shlex.join(command)}")


def try_run(command: Sequence[str]) -> bool:
    """Run a step that may say no, as `cosy-doctor` does on a machine that lacks something."""
    shown(command)
    return subprocess.run(command, check=False).returncode == 0


def executor_used(profile: Path) -> str:
    """The executor that cosy-auto names for this machine."""
    done = subprocess.run(
        [script("cosy-auto"), "--profile", profile, "--explain", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    return (done.stdout + done.stderr).strip()


def compare(jobs: Sequence[Job], profile: Path, runs: int) -> list[Row]:
    """Each program, natively and under cosy-auto, turn about."""
    print(HEADER)
    rows = []
    for job in jobs:
        rows.append(measure(job, [native(), cosy("--profile", str(profile))], runs))
        print_row(rows[-1])
    return rows


@click.command(help=__doc__)
@click.option("--runs", default=7, show_default=True, help="Rounds of the comparison.")
@click.option("--tree", default="/usr", show_default=True, help="The directory to walk.")
@click.option("--keep", type=click.Path(path_type=Path), help="Keep the files here.")
def main(runs: int, tree: str, keep: Path | None) -> None:
    """Trace, mine, synthesize, run."""
    with tempfile.TemporaryDirectory(prefix="cosy-demo-") as scratch:
        folder = keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        show(folder, tree, runs)


def show(folder: Path, tree: str, runs: int) -> None:
    """The steps; files go to `folder`."""
    jobs = [Job(("du", "-s", tree)), Job(("ls", "-lR", tree))]
    traces = [folder / f"{job.command[0]}.cosytrace" for job in jobs]
    motifs, profile = folder / "demo.motifs.json", folder / "demo.img"
    step("What works on this machine")
    try_run([script("cosy-doctor")])
    step("Trace two programs that nobody changed")
    for job, trace in zip(jobs, traces, strict=True):
        run([script("cosy-trace"), "-o", str(trace), *job.command], quiet=True)
    step("Find the sequences that repeat")
    run([script("cosy-mine"), *map(str, traces), "-o", str(motifs)])
    step("Synthesize compounds from them")
    run([script("cosy-synth"), str(motifs), "-o", str(profile)])
    run([script("cosy-synth"), "show", str(profile)])
    step(f"Run them side by side: medians of {runs} rounds, output compared byte by byte")
    rows = compare(jobs, profile, runs)
    step("What ran")
    run([script("cosy-auto"), "--profile", str(profile), "--stats", *jobs[0].command])
    print(executor_used(profile))
    if not all(row.identical for row in rows):
        raise SystemExit("demo: outputs differ: please report this")
    print("\nOutputs are identical. " + "; ".join(spoken(row) for row in rows) + ".")


def spoken(row: Row) -> str:
    """A row in words."""
    return f"{row.title}: {1 / row.ratio('cosy'):.2f} times as fast"


if __name__ == "__main__":
    main()
