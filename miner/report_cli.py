# SPDX-License-Identifier: MIT
"""The command `cosy-report`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

import click

from miner.cli import choice, print_json
from tracer import output
from tracer.command import Command
from tracer.interrupt import promised

TOP = 12  # motifs in a table or on a page


def _fail(message: str) -> NoReturn:
    click.echo(f"cosy-report: {message}", err=True)
    sys.exit(1)


def _write(target: Path, text: str) -> None:
    """Write the file whole or not at all."""
    try:
        with output.written(target) as file:
            file.write(text.encode("utf-8", "backslashreplace"))
    except OSError as error:
        _fail(f"cannot write: {target}: {error.strerror or error}")


@click.command(
    cls=Command,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
)
@click.argument("sources", nargs=-1, required=True)
@click.option("--html", type=click.Path(path_type=Path), help="Write a page to this file.")
@choice(TOP)
@click.option("--json", "as_json", is_flag=True, help="Print the motifs as JSON.")
@click.option("--force", is_flag=True, help="Replace an existing page.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes to mine traces with.")
def main(
    sources: tuple[str, ...],
    html: Path | None,
    top: int | None,
    min_saving: int,
    as_json: bool,
    force: bool,
    workers: int | None,
) -> None:
    """Show what programs repeat, and what that costs.

    SOURCES are trace datasets, which are mined together, or one motif file of
    cosy-mine. Prints a table; with --html it writes one self-contained page:
    an overview, the hot sequences with their data flow drawn, the time and
    bytes of each, what a compound would save, and what was lost.

    Exit status: 0 done, 1 something could not be read or written, 2 wrong
    usage.
    """
    if html and as_json:
        raise click.UsageError("--html writes a page: leave --json out")
    if len(sources) > 1:
        for source in sources:
            if source.endswith(".json"):
                _fail(f"one motif file at a time, and no traces beside it: {source}")
    if html:
        try:
            output.check(html, force)
        except output.OutputError as error:
            _fail(str(error))
    import miner
    from miner import cost, execution, measured, motifs, report
    from tracer.target import DatasetError

    try:
        with promised(html):
            found = miner.load(*sources, workers=workers).file
    except motifs.MotifFileError as error:
        _fail(f"cannot read: {sources[0]}: {error}")
    except OSError as error:
        _fail(f"cannot read: {sources[0]}: {error.strerror or error}")
    except (DatasetError, cost.CalibrationError, execution.ExecutionError) as error:
        _fail(str(error))
    if html:
        from miner.page import page

        with promised(html):
            _write(html, page(found, top or TOP, min_saving))
        click.echo(f"wrote {html}")
        return
    if as_json:
        print_json(report.selection(found, top, min_saving))
        return
    for line in report.lines(found, top or TOP, min_saving):
        click.echo(line)
    rows = measured.compare(found)
    if rows:
        click.echo("")
    for line in measured.lines(rows):
        click.echo(line)


if __name__ == "__main__":
    main()
