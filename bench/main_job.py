# SPDX-License-Identifier: MIT
"""Metadata-heavy programs over /usr, natively and under cosy-auto, warm caches."""

from __future__ import annotations

import sys

import click

from bench.harness import HEADER, Job, Row, cosy, measure, native, present, print_row, save

WALK = """
import os, sys
n = 0
for top, folders, files in os.walk(sys.argv[1]):
    for name in files:
        n += os.stat(os.path.join(top, name), follow_symlinks=False).st_size
print(n)
"""


def jobs(tree: str) -> list[Job]:
    """The rows. Those without a target are here to be known."""
    return [
        Job(("du", "-s", tree), 0.70),
        Job(("find", tree, "-size", "+100M"), 0.72),
        Job(("ls", "-lR", tree), 0.40),
        Job(("tar", "cf", "/dev/null", tree), 0.60),
        Job(("tar", "cf", "-", f"{tree}/share"), 1.02, piped=True),
        Job(("find", tree, "-name", "zzz"), 1.03),
        Job(("tree", "-s", tree), 1.0),
        Job((sys.executable, "-c", WALK, tree), 1.0),
    ]


@click.command(help=__doc__)
@click.option("--runs", default=9, show_default=True, help="Rounds; each runs both once.")
@click.option("--quick", is_flag=True, help="Three rounds over /usr/lib only.")
@click.option("--check", is_flag=True, help="Exit 1 when a target is missed.")
@click.option("--only", default="", help="Only commands that hold this word.")
@click.option("--executor", default="", help="As cosy-auto's: bpf,inline,ahead reads ahead, too.")
def main(runs: int, quick: bool, check: bool, only: str, executor: str) -> None:
    """Measure, print, save."""
    tree, runs = ("/usr/lib", 3) if quick else ("/usr", runs)
    variants = [native(), cosy("--executor", executor) if executor else cosy()]
    rows: list[Row] = []
    print(HEADER)
    for job in jobs(tree):
        if (only and only not in job.title) or not present(job):
            continue
        rows.append(measure(job, variants, runs))
        print_row(rows[-1])
    print(f"saved {save('main-job', rows)}")
    if not all(row.identical for row in rows):
        raise SystemExit("bench: outputs differ")
    if check and not all(row.met("cosy") for row in rows):
        raise SystemExit("bench: a target was missed")


if __name__ == "__main__":
    main()
