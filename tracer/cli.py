# SPDX-License-Identifier: MIT
"""cosy-trace: record the system calls of a program, or show what was recorded."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

if TYPE_CHECKING:
    from tracer.backends.shim import Recorder
    from tracer.dataset import Dataset

EXIT_FAILED = 1
SUMMARY_ROWS = 20

_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 80}


def say(text: str) -> None:
    """Print to stderr; that it is closed or full is no reason to change how the program ends."""
    with contextlib.suppress(OSError):
        click.echo(text, err=True)


def fail(message: str, code: int = EXIT_FAILED) -> NoReturn:
    """Print one line and end."""
    say(f"cosy-trace: {message}")
    sys.exit(code)


@click.command(context_settings={**_SETTINGS, "allow_interspersed_args": False})
@click.option("-o", "--output", metavar="OUT", help="Dataset to write [PROGRAM.PID.cosytrace].")
@click.option("--force", is_flag=True, help="Replace OUT if it is an older dataset.")
@click.option("--summary-only", is_flag=True, help="Print the summary, keep no dataset.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="CMD...")
def trace(
    output: str | None, force: bool, summary_only: bool, as_json: bool, command: tuple[str, ...]
) -> None:
    """Run CMD untouched and record every system call it makes.

    CMD starts at the first word that is no option. After its end a summary goes to
    stderr; output, exit code and fatal signal are CMD's own. The records go to
    OUT, a folder of Parquet files.

    `cosy-trace show DATASET` prints the summary again; to trace a program called
    show, write `cosy-trace -- show`.

    \b
    Exit code: that of CMD; 127 CMD not found, 126 not executable,
    1 CMD went well but could not be recorded, 2 wrong usage.
    """
    from tracer.backends.shim import Recorder, ShimError
    from tracer.native import NativeFileError
    from tracer.run import CommandError, end_like
    from tracer.target import DatasetError, check_target

    try:
        if output and not summary_only:
            check_target(Path(output), force)
        elif not summary_only and not os.access(".", os.W_OK):
            raise DatasetError("cannot write to this folder: .: use -o NAME")
        with Recorder(command, os.environb) as recorder:
            status = _record(recorder, output, force, summary_only, as_json)
    except (DatasetError, NativeFileError, ShimError) as error:
        fail(str(error))
    except CommandError as error:
        fail(str(error), error.code)
    end_like(status)


def _record(
    recorder: Recorder, output: str | None, force: bool, summary_only: bool, as_json: bool
) -> int:
    """Run, write, print; return the wait status to end with."""
    from tracer.backends.shim import ShimError
    from tracer.target import DatasetError

    if recorder.folder is None:
        ended = recorder.run()
        say(
            f"cosy-trace: nothing recorded: {recorder.program} {recorder.native_reason}: "
            "it ran as it is"
        )
        return ended.status
    ended = recorder.run()
    name = f"{os.path.basename(recorder.command[0])}.{ended.pid}.cosytrace"
    path = recorder.folder / "summary" if summary_only else Path(output or name)
    try:
        data = recorder.write(ended, path, force)
    except (DatasetError, ShimError, OSError) as error:
        say(f"cosy-trace: not recorded: {error}")
        return ended.status or EXIT_FAILED << 8
    for line in recorder.broken:
        say(f"cosy-trace: not readable: {line}")
    say(_text(data, as_json))
    if not summary_only and not as_json:
        size = sum(file.stat().st_size for file in data.path.iterdir()) / 1e6
        say(f"recorded in {path} ({size:.1f} MB); next: cosy-mine {path}")
    return ended.status


def _text(data: Dataset, as_json: bool) -> str:
    from tracer.summary import render, summarize

    summary = summarize(data)
    if as_json:
        return json.dumps(summary.as_dict(), indent=1)
    return render(summary, SUMMARY_ROWS)


@click.command("cosy-trace show", context_settings=_SETTINGS)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@click.argument("dataset")
def show(as_json: bool, dataset: str) -> None:
    """Print the summary of a recorded trace."""
    from tracer.dataset import Dataset
    from tracer.target import DatasetError

    try:
        click.echo(_text(Dataset(dataset), as_json))
    except DatasetError as error:
        fail(str(error))
    except BrokenPipeError:
        os._exit(EXIT_FAILED)
    except OSError as error:
        say(f"cosy-trace: cannot print: {error.strerror}: check where the output goes")
        os._exit(EXIT_FAILED)


def main() -> None:
    """Tell recording from showing: `show` counts only as the very first word."""
    if sys.argv[1:2] == ["show"]:
        show(sys.argv[2:])
    else:
        trace(prog_name="cosy-trace")
