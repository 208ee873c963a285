# SPDX-License-Identifier: MIT
"""The command `cosy-mine`."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from tracer import output
from tracer.command import Command
from tracer.interrupt import promised

if TYPE_CHECKING:
    from miner.motifs import MotifFile

_F = TypeVar("_F", bound=Callable[..., Any])

_TRACE_SUFFIX = ".cosytrace"
_MOTIFS_SUFFIX = ".motifs.json"


def _fail(message: str) -> NoReturn:
    click.echo(f"cosy-mine: {message}", err=True)
    sys.exit(1)


def _target(traces: tuple[str, ...]) -> Path:
    """The default output: named after the first trace, in the current folder."""
    url = "://" in traces[0]
    name = traces[0].rstrip("/").rpartition("/")[2] if url else Path(traces[0]).resolve().name
    return Path(name.removesuffix(_TRACE_SUFFIX) + _MOTIFS_SUFFIX)


def _check_target(target: Path, force: bool) -> None:
    try:
        output.check(target, force)
    except output.OutputError as error:
        _fail(str(error))


class _Saving(click.ParamType):  # type: ignore[type-arg]
    """A time such as 500us, 2ms or 1s, in ns."""

    name = "time"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)(ns|us|ms|s)", str(value))
        if not found:
            self.fail(f"{value!r} is no time: write 500us, 2ms or 1s", param, ctx)
        return int(float(found[1]) * {"ns": 1, "us": 1e3, "ms": 1e6, "s": 1e9}[found[2]])


TOP = 8  # motifs in a table
_RUNS = 7  # of --validate --rerun


def choice(most: int) -> Callable[[_F], _F]:
    """Which motifs a command shows: its options --top and --min-saving; most: of a table."""

    def add(command: _F) -> _F:
        top = click.option(
            "--top",
            type=click.IntRange(min=1),
            help=f"Motifs to show.  [default: {most}; with --json all]",
        )
        saving = click.option(
            "--min-saving",
            type=_Saving(),
            metavar="TIME",
            default=0,
            help="Show motifs that would save at least that: 500us, 2ms, 1s.",
        )
        return top(saving(command))

    return add


def print_json(found: MotifFile) -> None:
    """Print a motif file to standard output."""
    import json

    from miner import motifs

    click.echo(json.dumps(motifs.to_json(found), indent=1))


def _rerun(found: MotifFile, runs: int) -> None:
    from miner import validate

    try:
        for line in validate.lines(validate.validate(found, runs)):
            click.echo(line)
    except validate.ValidationError as error:
        _fail(str(error))


def _validate(found: MotifFile) -> None:
    from miner import measured

    rows = measured.compare(found)
    for line in measured.lines(rows):
        click.echo(line)
    if not rows:
        click.echo("nothing measured: run the traced programs under cosy-auto, then ask again")


@click.command(
    cls=Command,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
)
@click.argument("traces", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Motif file to write.  [default: NAME.motifs.json, after the first trace]",
)
@choice(TOP)
@click.option("--json", "as_json", is_flag=True, help="Print the motif file instead of a table.")
@click.option("--force", is_flag=True, help="Replace an existing motif file.")
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    help="Costs of this machine, from cosy-doctor --calibrate.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Processes to mine with.  [default: one per CPU]",
)
@click.option("--dask", metavar="ADDRESS", help="Mine on the Dask cluster of this scheduler.")
@click.option(
    "--validate",
    is_flag=True,
    help="Compare what is predicted with what runs under cosy-auto measured.",
)
@click.option(
    "--rerun",
    is_flag=True,
    help="With --validate: run the traced command again, without and with cosy-auto. Only for "
    "one that may run again.",
)
@click.option(
    "--runs", type=click.IntRange(min=3), help=f"Of --rerun, of each kind.  [default: {_RUNS}]"
)
def main(
    traces: tuple[str, ...],
    output: Path | None,
    top: int | None,
    min_saving: int,
    as_json: bool,
    force: bool,
    calibration: Path | None,
    workers: int | None,
    dask: str | None,
    validate: bool,
    rerun: bool,
    runs: int | None,
) -> None:
    """Find what programs repeat across the user/kernel boundary.

    Reads TRACES, datasets that cosy-trace recorded, and prints the motifs found
    in them, best predicted saving first: the calls, where each argument comes
    from, what they cost and what a compound would save. Writes them to a motif
    file, from which cosy-synth makes compounds.

    With --json and no -o nothing is written; -o gets all motifs, whatever is
    printed. Exit status: 0 done, 1 a trace
    could not be read or the file not be written, 2 wrong usage.
    """
    if validate and as_json:
        raise click.UsageError("--validate prints lines: leave --json out")
    if rerun and not validate:
        raise click.UsageError("--rerun belongs to --validate")
    if runs and not rerun:
        raise click.UsageError("--runs belongs to --validate --rerun")
    if rerun and len(traces) > 1:
        raise click.UsageError("--rerun takes one trace: predictions are for all together")
    target = output or (None if as_json else _target(traces))
    if target:
        _check_target(target, force)
    # Late, so that --help and mistakes are fast.
    from miner import cost, execution, mine, motifs, report
    from tracer.target import DatasetError

    try:
        costs = cost.load_calibration(calibration) if calibration else cost.here()
        with promised(target):
            found = mine.mine(traces, costs, workers, dask)
    except (cost.CalibrationError, DatasetError, execution.ExecutionError) as error:
        _fail(str(error))
    if target:
        try:
            with promised(target):
                motifs.save(found, target)
        except OSError as error:
            _fail(f"cannot write: {target}: {error.strerror or error}")
    if as_json:
        print_json(report.selection(found, top, min_saving))
        return
    for line in report.lines(found, top or TOP, min_saving):
        click.echo(line)
    if validate:
        click.echo("")
        _rerun(found, runs or _RUNS) if rerun else _validate(found)
    if target:
        click.echo(f"\nnext: cosy-synth {shlex.quote(str(target))}")


if __name__ == "__main__":
    main()
