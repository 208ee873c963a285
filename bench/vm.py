# SPDX-License-Identifier: MIT
"""Instructions of stock programs in a virtual machine, alone and under cosy-auto, as JSON lines.

Counted by the emulator, so that the host's load and speed do not matter: user and kernel
instructions from fork to the end, the start of cosy-auto included. Page-table isolation makes each
crossing dearer, in cycles more than in instructions; rows with it show that nothing depends on it.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from pathlib import Path

import click

from bench.harness import ROOT, spread
from kmod.vm import Kernel, VmError, build_module, obtain
from tests.vm.stock import COSY, NATIVE, StockRow, run_stock

PTI = {"off": "nopti", "on": "pti=on"}


def report(row: StockRow, kernel: Kernel, pti: str, module: bool) -> dict[str, object]:
    """One line: medians, the distance of the quartiles, and the ratio native/cosy."""
    medians = {name: statistics.median(counts) for name, counts in row.instructions.items()}
    return {
        "job": row.job.name,
        "kernel": kernel.release,
        "pti": pti,
        "module": module,
        "native": medians[NATIVE],
        "cosy": medians[COSY],
        "ratio": round(medians[NATIVE] / medians[COSY], 3),
        "n": len(row.instructions[NATIVE]),
        "spread": [spread(row.instructions[name]) for name in (NATIVE, COSY)],
        "identical": row.identical,
    }


@click.command(help=__doc__)
@click.option("--kernel", "version", default="6.1", show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--module/--no-module", default=True, show_default=True, help="Insert and use it.")
@click.option("--pti", type=click.Choice(list(PTI)), multiple=True, default=list(PTI))
@click.option("--timeout", "timeout_s", default=900.0, show_default=True, help="Per boot.")
def main(version: str, rounds: int, module: bool, pti: tuple[str, ...], timeout_s: float) -> None:
    """Boot once per setting, print; exit code 1 if an output differs."""
    try:
        kernel = obtain(version)
        inserted = build_module(kernel) if module else None
        good = True
        for setting in pti:
            with tempfile.TemporaryDirectory() as folder:
                rows, errors = run_stock(
                    kernel,
                    ROOT / "build",
                    inserted,
                    Path(folder),
                    rounds=rounds,
                    append=PTI[setting],
                    icount=True,
                    timeout_s=timeout_s,
                )
            for row in rows:
                print(json.dumps(report(row, kernel, setting, module)), flush=True)
                good = good and row.identical
            for line in errors:
                print(f"bench: {line}", file=sys.stderr)
    except VmError as error:
        raise SystemExit(f"bench: {error}") from None
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
