# SPDX-License-Identifier: MIT
"""Instructions of stock programs in a virtual machine, alone and under cosy-auto, as JSON lines.

Counted by the emulator, so that the host's load and speed do not matter: user and kernel
instructions from fork to the end, the start of cosy-auto included; `rest` is the ratio without the
start, so that two trees (`--part`) tell what is fixed from what each file costs. `saved` are
instructions per call that was answered, the start left out: what such a call costs less than the
kernel's own, and what all others pay for being watched. `share` of the calls that were looked at
were answered.
Page-table isolation makes each crossing dearer, in cycles more than in instructions; rows with it
show that nothing depends on it.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import tempfile
from pathlib import Path

import click

from bench.harness import ROOT, spread
from kmod.vm import Kernel, VmError, build_module, obtain
from tests.vm.stock import COSY, NATIVE, START, StockRow, run_stock

PTI = {"off": "nopti", "on": "pti=on"}


def report(
    row: StockRow, start: StockRow, kernel: Kernel, part: str, pti: str, module: bool
) -> dict[str, object]:
    """One line: medians, the distance of the quartiles, and the ratio native/cosy.

    start: the row of a program that does nothing. part: of the tree.
    """
    medians = {name: statistics.median(counts) for name, counts in row.instructions.items()}
    nothing = {name: statistics.median(counts) for name, counts in start.instructions.items()}
    rest = {name: medians[name] - nothing[name] for name in medians}
    return {
        "job": row.job.name,
        "kernel": kernel.release,
        "tree": f"include/{part}",
        "pti": pti,
        "module": module,
        "native": medians[NATIVE],
        "cosy": medians[COSY],
        "ratio": round(medians[NATIVE] / medians[COSY], 3),
        "rest": round(rest[NATIVE] / rest[COSY], 3) if row is not start else None,
        "served": row.served,
        "share": round(row.served / row.seen, 3) if row.seen else None,
        "saved": round((rest[NATIVE] - rest[COSY]) / row.served) if row.served else None,
        "n": len(row.instructions[NATIVE]),
        "spread": [spread(row.instructions[name]) for name in (NATIVE, COSY)],
        "identical": row.identical,
    }


@click.command(help=__doc__)
@click.option("--kernel", "version", default="6.1", show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--module/--no-module", default=True, show_default=True, help="Insert and use it.")
@click.option("--part", "parts", multiple=True, default=["uapi", ""], show_default=True)
@click.option("--pti", type=click.Choice(list(PTI)), multiple=True, default=list(PTI))
@click.option("--timeout", "timeout_s", default=900.0, show_default=True, help="Per boot.")
def main(
    version: str,
    rounds: int,
    module: bool,
    parts: tuple[str, ...],
    pti: tuple[str, ...],
    timeout_s: float,
) -> None:
    """Boot once per setting, print; exit code 1 if an output differs."""
    try:
        kernel = obtain(version)
        inserted = build_module(kernel) if module else None
        good = True
        for part, setting in itertools.product(parts, pti):
            with tempfile.TemporaryDirectory() as folder:
                rows, errors = run_stock(
                    kernel,
                    ROOT / "build",
                    inserted,
                    Path(folder),
                    part=part,
                    rounds=rounds,
                    append=PTI[setting],
                    icount=True,
                    timeout_s=timeout_s,
                )
            start = next(row for row in rows if row.job.name == START)
            for row in rows:
                print(json.dumps(report(row, start, kernel, part, setting, module)), flush=True)
                good = good and row.identical
            for line in errors:
                print(f"bench: {line}", file=sys.stderr)
    except VmError as error:
        raise SystemExit(f"bench: {error}") from None
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
