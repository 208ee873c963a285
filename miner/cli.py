# SPDX-License-Identifier: MIT
"""The command `cosy-mine`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import NoReturn

import click

_TRACE_SUFFIX = ".cosytrace"
_MOTIFS_SUFFIX = ".motifs.json"


def _fail(message: str) -> NoReturn:
    click.echo(f"cosy-mine: {message}", err=True)
    sys.exit(1)


def _target(traces: tuple[Path, ...]) -> Path:
    """The default output: named after the first trace, in the current folder."""
    name = traces[0].resolve().name
    return Path(name.removesuffix(_TRACE_SUFFIX) + _MOTIFS_SUFFIX)


def _check_target(target: Path, force: bool) -> None:
    if target.is_dir():
        _fail(f"cannot write: {target}: is a folder, use -o NAME")
    if target.exists() and not force:
        _fail(f"exists already: {target}: use --force to replace it, or -o NAME")
    if not target.absolute().parent.is_dir():
        _fail(f"no such folder: {target.absolute().parent}: make it, or use -o NAME")


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80})
@click.argument("traces", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Motif file to write.  [default: NAME.motifs.json, after the first trace]",
)
@click.option(
    "--top", type=click.IntRange(min=1), default=8, show_default=True, help="Motifs to print."
)
@click.option("--json", "as_json", is_flag=True, help="Print the motif file instead of a table.")
@click.option("--force", is_flag=True, help="Replace an existing motif file.")
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    help="Costs of this machine, from cosy-doctor --calibrate.",
)
def main(
    traces: tuple[Path, ...],
    output: Path | None,
    top: int,
    as_json: bool,
    force: bool,
    calibration: Path | None,
) -> None:
    """Find what programs repeat across the user/kernel boundary.

    Reads TRACES, datasets that cosy-trace recorded, and prints the motifs found
    in them, best predicted saving first: the calls, where each argument comes
    from, what they cost and what a compound would save. Writes them to a motif
    file, from which cosy-synth makes compounds.

    With --json and no -o nothing is written. Exit status: 0 done, 1 a trace
    could not be read or the file not be written, 2 wrong usage.
    """
    target = output or (None if as_json else _target(traces))
    if target:
        _check_target(target, force)
    # Late, so that --help and mistakes are fast.
    from miner import cost, mine, motifs, report
    from tracer.target import DatasetError

    try:
        costs = cost.load_calibration(calibration) if calibration else cost.here()
        found = mine.mine(list(traces), costs)
    except (cost.CalibrationError, DatasetError) as error:
        _fail(str(error))
    if target:
        try:
            motifs.save(found, target)
        except OSError as error:
            _fail(f"cannot write: {target}: {error.strerror or error}")
    if as_json:
        import json

        click.echo(json.dumps(motifs.to_json(found), indent=1))
        return
    for line in report.lines(found, top):
        click.echo(line)
    if target:
        click.echo(f"\nnext: cosy-synth {shlex.quote(str(target))}")


if __name__ == "__main__":
    main()
