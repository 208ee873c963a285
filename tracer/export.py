# SPDX-License-Identifier: MIT
"""cosy-trace export: a dataset for other tools."""

from __future__ import annotations

import gzip
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

import click

from tracer.cli import SETTINGS, fail, say
from tracer.command import Command
from tracer.interrupt import promised
from tracer.output import OutputError, check, written

if TYPE_CHECKING:
    from tracer.dataset import Dataset

NAMES = ("perfetto", "strace", "csv", "folded", "speedscope")


@click.command(cls=Command, context_settings=SETTINGS)
@click.option("--format", "name", type=click.Choice(NAMES), required=True, help="See below.")
@click.option("-o", "--output", metavar="OUT", help="File to write, - for standard output.")
@click.option("--force", is_flag=True, help="Replace OUT, if it is a file.")
@click.argument("dataset")
def main(name: str, output: str | None, force: bool, dataset: str) -> None:
    """Write a recorded trace in the format of another tool.

    \b
    perfetto    JSON, to be opened at ui.perfetto.dev or chrome://tracing
    strace      text as of strace -f -ttt -T -y
    csv         a line for each call
    folded      stacks for flamegraph.pl or inferno, us
    speedscope  JSON, to be opened at speedscope.app

    OUT is by default the dataset's name with another ending. If it ends in .gz it is
    compressed, which the Perfetto UI reads, too.
    """
    from tracer.dataset import Dataset
    from tracer.formats import WRITERS
    from tracer.progress import Progress
    from tracer.target import SUFFIX, DatasetError

    writer, ending = WRITERS[name]
    target = output or Path(dataset.rstrip("/")).name.removesuffix(SUFFIX) + ending
    try:
        data = Dataset(dataset)
        with Progress("events written") as data.progress:
            if target == "-":
                writer(data, sys.stdout)
                sys.stdout.flush()
                return
            check(Path(target), force)
            with promised(Path(target)):
                _write(writer, data, Path(target))
    except (DatasetError, OutputError) as error:
        fail(str(error))
    except OSError as error:
        if target == "-":
            raise
        fail(f"cannot write: {target}: {(error.strerror or str(error)).lower()}: use -o NAME")
    say(f"written to {target} ({Path(target).stat().st_size / 1e6:.1f} MB)")


def _write(writer: Callable[[Dataset, IO[str]], None], data: Dataset, target: Path) -> None:
    """Write to a file, compressed if its name says so; raises OSError."""
    with written(target) as raw:
        if target.name.endswith(".gz"):
            with gzip.open(raw, "wt", encoding="utf-8") as packed:
                writer(data, cast(IO[str], packed))
        else:
            file = io.TextIOWrapper(raw, encoding="utf-8")
            writer(data, file)
            file.detach()
