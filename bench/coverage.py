# SPDX-License-Identifier: MIT
"""How many of the system calls that strace counts pass through the shim."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

import click

from bench.harness import Job, present, save, script

AT_LEAST = 0.999


def jobs(tree: str, sources: str) -> list[Job]:
    """Programs that the runtime must not miss a call of; `sources`: what grep reads."""
    return [
        Job(("du", "-s", tree)),
        Job(("ls", "-lR", tree)),
        Job(("find", tree, "-size", "+100M")),
        Job(("grep", "-r", "no such words", sources)),
        Job(("tar", "cf", "/dev/null", tree)),
    ]


def counted_by_strace(job: Job, folder: Path) -> Counter[str]:
    """Calls by name, of the program and its children."""
    summary = folder / "summary"
    subprocess.run(
        ["strace", "-f", "-c", "-o", summary, *job.command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return parse_summary(summary.read_text())


def parse_summary(text: str) -> Counter[str]:
    """The table that `strace -c` writes: name in the last column, calls in the fourth."""
    counts: Counter[str] = Counter()
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 5 and words[3].isdigit() and words[-1] != "total":
            counts[words[-1]] += int(words[3])
    return counts


def seen_by_shim(job: Job, folder: Path) -> Counter[str]:
    """Calls by name that a trace of the shim holds."""
    import pyarrow.parquet as parquet

    from tracer.syscalls import by_name

    trace = folder / "seen.cosytrace"
    subprocess.run(
        [script("cosy-trace"), "-o", trace, *job.command],
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    names = {call.nr: call.name for call in by_name().values()}
    numbers = parquet.read_table(trace / "events.parquet", columns=["nr"])["nr"]
    values = numbers.value_counts().to_pylist()
    return Counter({names.get(row["values"], "?"): row["counts"] for row in values})


@click.command(help=__doc__)
@click.option("--quick", is_flag=True, help="Over /usr/share only.")
def main(quick: bool) -> None:
    """Count twice, compare, print, save; exit 1 below 99.9 %."""
    rows = []
    low = False
    for job in jobs("/usr/share", "/usr/share") if quick else jobs("/usr", "/usr/include"):
        if not present(job):
            continue
        with tempfile.TemporaryDirectory() as scratch:
            there = counted_by_strace(job, Path(scratch))
            seen = seen_by_shim(job, Path(scratch))
        total = sum(there.values())
        share = sum((there & seen).values()) / total
        missed = (there - seen).most_common(3)
        rows.append({"command": job.title, "calls": total, "share": share, "missed": missed})
        low = low or share < AT_LEAST
        verdict = "ok" if share >= AT_LEAST else "MISSED"
        names = ", ".join(f"{name} {n}" for name, n in missed)
        print(f"{job.title:40} {total:9} calls  {share:8.3%}  {verdict}  without: {names}")
    print(f"saved {save('coverage', rows)}")
    if low:
        raise SystemExit("bench: too many calls pass by")


if __name__ == "__main__":
    main()
