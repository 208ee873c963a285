# SPDX-License-Identifier: MIT
"""Programs that nobody traced: each runs with the profile mined from all the others.

The programs, their folders and their traces are those of datasets/ (servers apart). For each, the
profile is synthesized from the motifs of all other traces; the program runs natively and under
cosy-auto in turn, in a fresh folder each time. Printed: whether the output is the same, which share
of the calls that its own trace holds was answered, and the ratio of wall times (1: no loss).
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import shutil
import statistics
import string
import subprocess
import tempfile
import time
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import click

from bench.harness import save, script, spread
from miner.motifs import MotifFile
from synth.compile import compile_profile
from synth.shipped import DATASETS, mined
from synth.synthesize import synthesize

DEADLINE_S = 300
# Natively, too, no two outputs are the same: times, orders, random content.
UNSTABLE = frozenset({"redis", "sqlite-select", "xz-threads"})


@dataclass(frozen=True)
class Row:
    """One program left out; `ratio` is native wall time over ours."""

    name: str
    n: int
    identical: bool
    calls: int
    served: int
    ratio: float
    spread: float
    native_s: float


def recorder() -> ModuleType:
    """datasets/record.py, which prepares folders and environment."""
    spec = importlib.util.spec_from_file_location("record", DATASETS / "record.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(
    record: ModuleType, name: str, program: dict[str, Any], prefix: list[str]
) -> tuple[float, str, str]:
    """Wall seconds, a digest of standard output and exit code, standard error."""
    env = record.environment()
    folder = record.prepare(name, program.get("setup", ""), env)
    words = [string.Template(word).safe_substitute(env) for word in program["command"]]
    start = time.monotonic()
    done = subprocess.run(
        [*prefix, *words],
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=DEADLINE_S,
        check=False,
    )
    wall = time.monotonic() - start
    total = hashlib.sha256(done.stdout).hexdigest()
    return wall, f"{total} {done.returncode}", done.stderr.decode(errors="replace")


def served(report: str) -> int:
    """Answers of all compounds, as --stats reports them."""
    rows = re.findall(r"^  [a-z0-9-]+ +[\d,]+ +[\d,]+ +([\d,]+)$", report, re.M)
    return sum(int(number.replace(",", "")) for number in rows)


def measure(
    record: ModuleType, name: str, program: dict[str, Any], others: list[MotifFile], runs: int
) -> Row | None:
    """None: the others' motifs justify no compound."""
    profile, _ = synthesize(others)
    if not profile.compounds:
        return None
    with tempfile.NamedTemporaryFile(suffix=".img") as image:
        Path(image.name).write_bytes(compile_profile(profile, name))
        cosy = [script("cosy-auto"), "--profile", image.name]
        # Nobody's first: the first look at a new file is always the kernel's.
        _, warm, _ = run(record, name, program, [])
        _, report_of, report = run(record, name, program, [*cosy[:1], "--stats", *cosy[1:]])
        digests = {warm, report_of}
        walls: list[list[float]] = [[], []]
        for number in range(runs):
            for which in (0, 1) if number % 2 == 0 else (1, 0):
                wall, digest, _ = run(record, name, program, cosy if which else [])
                walls[which].append(wall)
                digests.add(digest)
    pairs = [a / b for a, b in zip(*walls, strict=True)]
    return Row(
        name=name,
        n=runs,
        identical=len(digests) == 1,
        calls=0,
        served=served(report),
        ratio=statistics.median(pairs),
        spread=spread(pairs),
        native_s=statistics.median(walls[0]),
    )


@click.command(help=__doc__)
@click.option("--runs", default=5, show_default=True, help="Rounds; each runs both once.")
@click.option("--only", default="", help="Only programs whose name holds this word.")
def main(runs: int, only: str) -> None:
    """Mine all, leave each out in turn, measure, print, save."""
    record = recorder()
    table = tomllib.loads((DATASETS / "programs.toml").read_text())
    programs: dict[str, dict[str, Any]] = table["programs"]
    record.WORK.mkdir(exist_ok=True)
    if not (record.WORK / "corpus").is_dir():
        record.prepare("corpus", table["corpus"]["setup"], record.environment())
    found = mined()
    rows = []
    print(f"{'left out':20} {'native':>9} {'ratio':>6} {'±':>5} {'answered':>18}  output")
    for name, program in programs.items():
        if name not in found or "drive" in program or name in UNSTABLE or only not in name:
            continue
        command = program["command"][0]
        if shutil.which(command, path=record.environment()["PATH"]) is None:
            print(f"{name:20} left out, no {command}: apt-get install {program['packages'][0]}")
            continue
        # Other traces of the same program would be no proof.
        others = [
            motifs
            for other, motifs in found.items()
            if programs.get(other, {}).get("command", [""])[0] != command
        ]
        row = measure(record, name, program, others, runs)
        if row is None:
            print(f"{name:20} the others justify no compound")
            continue
        calls = sum(trace.events for trace in found[name].traces)
        rows.append(Row(**{**asdict(row), "calls": calls}))
        share = f"{row.served:,} ({min(row.served / calls, 1):.0%})"
        print(
            f"{name:20} {row.native_s * 1e3:7.1f}ms {row.ratio:6.3f} {row.spread:5.2f} "
            f"{share:>18}  {'same' if row.identical else 'DIFFERS'}",
            flush=True,
        )
    print(f"{sum(row.identical for row in rows)} of {len(rows)} outputs are the same")
    print(f"saved {save('leave-one-out', [asdict(row) for row in rows])}")
    if not all(row.identical for row in rows):
        raise SystemExit("bench: outputs differ")


if __name__ == "__main__":
    main()
