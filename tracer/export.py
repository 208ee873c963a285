# SPDX-License-Identifier: MIT
"""cosy-trace export: a dataset for other tools."""

from __future__ import annotations

import gzip
import os
import sys
from pathlib import Path
from typing import IO, cast

import click

from tracer.cli import SETTINGS, fail, say
from tracer.command import Command

NAMES = ("perfetto", "strace", "csv", "folded", "speedscope")


@click.command(cls=Command, context_settings=SETTINGS)
@click.option("--format", "name", type=click.Choice(NAMES), required=True, help="See below.")
@click.option("-o", "--output", metavar="OUT", help="File to write, - for standard output.")
@click.option("--force", is_flag=True, help="Replace OUT.")
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
    from tracer.target import SUFFIX, DatasetError

    writer, ending = WRITERS[name]
    target = output or Path(dataset.rstrip("/")).name.removesuffix(SUFFIX) + ending
    try:
        data = Dataset(dataset)
        if target == "-":
            writer(data, sys.stdout)
            sys.stdout.flush()
            return
        _write(lambda file: writer(data, file), Path(target), force)
    except DatasetError as error:
        fail(str(error))
    except OSError as error:
        if target == "-":
            raise
        fail(f"cannot write: {target}: {(error.strerror or str(error)).lower()}: use -o NAME")
    say(f"written to {target} ({Path(target).stat().st_size / 1e6:.1f} MB)")


def _write(write: object, target: Path, force: bool) -> None:
    """Write to a file that is there whole or not at all; raises OSError."""
    assert callable(write)
    if target.exists() and not force:
        fail(f"exists already: {target}: use --force to replace it, or -o NAME")
    scratch = target.with_name(f"{target.name}.tmp-{os.getpid()}")
    try:
        if target.name.endswith(".gz"):
            with gzip.open(scratch, "wt", encoding="utf-8") as packed:
                write(cast(IO[str], packed))
        else:
            with scratch.open("w", encoding="utf-8") as file:
                write(file)
        scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)
