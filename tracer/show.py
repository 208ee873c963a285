# SPDX-License-Identifier: MIT
"""cosy-trace show: the summary of a dataset."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from tracer.cli import SETTINGS, fail
from tracer.command import Command

if TYPE_CHECKING:
    from tracer.dataset import Dataset

SUMMARY_ROWS = 20


def text_of(data: Dataset, as_json: bool, kept: bool = True, unreadable: Sequence[str] = ()) -> str:
    """Return the summary for a terminal, or as JSON.

    `kept`: the dataset stays; `unreadable`: raw files of which nothing is in it, a line each.
    """
    from tracer.progress import Progress
    from tracer.summary import render, summarize

    with Progress("events summed up") as data.progress:
        summary = summarize(data)
    if as_json:
        path = str(data.path) if kept else None
        found = {"dataset": path, **summary.as_dict(), "unreadable": list(unreadable)}
        return json.dumps(found, indent=1)
    lines = [f"not readable: {line}" for line in unreadable]
    return "\n".join([*lines, render(summary, SUMMARY_ROWS)])


@click.command(cls=Command, context_settings=SETTINGS)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@click.argument("dataset")
def main(as_json: bool, dataset: str) -> None:
    """Print the summary of a recorded trace."""
    from tracer.dataset import Dataset
    from tracer.target import DatasetError

    try:
        click.echo(text_of(Dataset(dataset), as_json))
    except DatasetError as error:
        fail(str(error))
