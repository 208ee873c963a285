# SPDX-License-Identifier: MIT
"""cosy-trace: record the system calls of a program, or show what was recorded."""

from __future__ import annotations

import contextlib
import importlib
import math
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from tracer.backends import NAMES
from tracer.command import EXIT_FAILED, Command
from tracer.interrupt import promised

if TYPE_CHECKING:
    from tracer.filters import Filter
    from tracer.recorder import Recorder
    from tracer.run import Ended

MAX_DURATION_S = 1e9  # 31 years: what the clock can tell
SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 80}
# Commands besides recording, and where they live.
COMMANDS = {"show": "tracer.show", "import": "tracer.import_strace", "export": "tracer.export"}


def say(text: str) -> None:
    """Print to stderr; that it is closed or full is no reason to change how the program ends."""
    with contextlib.suppress(OSError):
        click.echo(text, err=True)


def fail(message: str, code: int = EXIT_FAILED) -> NoReturn:
    """Print one line and end."""
    say(f"cosy-trace: {message}")
    sys.exit(code)


def _bytes(_context: click.Context, _option: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    units = {"k": 10, "m": 20, "g": 30}
    number, unit = (value[:-1], value[-1].lower()) if value[-1:].lower() in units else (value, "")
    if not number.isdigit() or not int(number):
        raise click.BadParameter("a size such as 64M")
    size = int(number) << units.get(unit, 0)
    if not 1 << 16 <= size <= 1 << 32:
        raise click.BadParameter("between 64K and 4G")
    return 1 << (size - 1).bit_length()


def _seconds(
    _context: click.Context, _option: click.Parameter, value: float | None
) -> float | None:
    if value is not None and math.isnan(value):
        raise click.BadParameter("a number of seconds")
    return value


@click.command(cls=Command, context_settings={**SETTINGS, "allow_interspersed_args": False})
@click.option("-o", "--output", metavar="OUT", help="Dataset to write [PROGRAM.PID.cosytrace].")
@click.option("--force", is_flag=True, help="Replace OUT if it is an older dataset.")
@click.option("-p", "--pid", "pids", type=click.IntRange(min=1), multiple=True, metavar="PID",
              help="Watch this process, no CMD.")  # fmt: skip
@click.option("--backend", type=click.Choice(NAMES), default=NAMES[0], help="How to watch [auto].")
@click.option("-e", "--expression", "expressions", multiple=True, metavar="trace=SET",
              help="Keep these calls: names, %file, %desc, %pure..., !SET.")  # fmt: skip
@click.option("-P", "--path", "paths", multiple=True, metavar="PATH",
              help="Keep calls that touch this file.")  # fmt: skip
@click.option("--duration", type=click.FloatRange(0, MAX_DURATION_S, min_open=True),
              callback=_seconds, metavar="SECONDS",
              help="Record that long; the program goes on.")  # fmt: skip
@click.option("--ring-size", "ring_bytes", callback=_bytes, metavar="SIZE",
              help="bcc: buffer between kernel and us [64M].")  # fmt: skip
@click.option("--block", is_flag=True, help="shim: rather wait for room than lose events.")
@click.option("--summary-only", is_flag=True, help="Print the summary, keep no dataset.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@click.option(
    "--json-to",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write it as JSON, to a file or /dev/fd/N.",
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="CMD...")
def trace(
    output: str | None,
    force: bool,
    pids: tuple[int, ...],
    backend: str,
    expressions: tuple[str, ...],
    paths: tuple[str, ...],
    duration: float | None,
    ring_bytes: int | None,
    block: bool,
    summary_only: bool,
    as_json: bool,
    json_to: Path | None,
    command: tuple[str, ...],
) -> None:
    """Run CMD untouched and record every system call it makes.

    CMD starts at the first word that is no option. After its end a summary goes to
    stderr; output, exit code and fatal signal are CMD's own. The records go to
    OUT, a folder of Parquet files.

    \b
    cosy-trace show DATASET      the summary again
    cosy-trace import FILE       a dataset from strace's output
    cosy-trace export DATASET    for Perfetto, strace readers, spreadsheets
    To trace a program called show, write `cosy-trace -- show`.

    \b
    Exit code: that of CMD; 127 CMD not found, 126 not executable,
    1 CMD went well but could not be recorded, 2 wrong usage.
    """
    from tracer.run import hold_signals

    hold_signals()
    from tracer.backends import BackendError
    from tracer.native import NativeFileError
    from tracer.output import OutputError, check
    from tracer.recorder import Options, Recorder
    from tracer.run import CommandError, end_like
    from tracer.target import DatasetError, check_target

    if len(pids) > 1:
        raise click.UsageError("-p takes one process; its descendants are watched, too")
    pid = pids[0] if pids else None
    if bool(command) == (pid is not None):
        raise click.UsageError("give either a command or -p PID")
    options = Options(backend, ring_bytes, block, duration)
    try:
        kept = _filter(expressions, paths)
        if json_to:
            check(json_to, force)
        if output and not summary_only:
            check_target(Path(output), force)
        elif not summary_only and not os.access(".", os.W_OK):
            raise DatasetError("cannot write to this folder: .: use -o NAME")
        started = (
            Recorder(command, os.environb, options)
            if pid is None
            else Recorder.attached(pid, options)
        )
        with started as recorder:
            if useless := recorder.useless():
                raise click.UsageError(useless)
            # JSON says it itself.
            if recorder.folder and recorder.choice.name != "shim" and not as_json:
                say(f"cosy-trace: backend {recorder.choice.name}: {recorder.choice.why}")
            ended = recorder.run() if pid is None else recorder.look_at(pid)
            target = None if summary_only else output or ""
            written = _write(recorder, ended, target, force, kept, as_json, json_to)
    except (DatasetError, OutputError, NativeFileError, BackendError) as error:
        fail(str(error))
    except CommandError as error:
        fail(str(error), error.code)
    end_like(ended.status or (0 if written else EXIT_FAILED << 8))


def _filter(expressions: tuple[str, ...], paths: tuple[str, ...]) -> Filter | None:
    if not expressions and not paths:
        return None
    # It takes pyarrow, which the program need not wait for otherwise.
    from tracer.filters import FilterError, make

    try:
        return make(expressions, paths)
    except FilterError as error:
        fail(str(error), 2)


def _write(
    recorder: Recorder,
    ended: Ended,
    output: str | None,
    force: bool,
    kept: Filter | None,
    as_json: bool,
    json_to: Path | None,
) -> bool:
    """Write and print; returns whether all that was asked for was done.

    `output`: None: no dataset; "": named after the program.
    """
    from tracer.backends import BackendError
    from tracer.output import written
    from tracer.show import text_of
    from tracer.target import DatasetError

    if recorder.folder is None:
        say(f"cosy-trace: nothing recorded: {recorder.choice.why}: it ran as it is")
        return False
    name = f"{os.path.basename(recorder.command[0])}.{ended.pid}.cosytrace"
    path = recorder.folder / "summary" if output is None else Path(output or name)
    again = f"cosy-trace import {shlex.quote(str(recorder.folder))} -o {shlex.quote(str(path))}"
    recorder.keep_raw = output is not None  # for Ctrl-C
    try:
        with promised(None if output is None else path, otherwise=f"to write it: {again}"):
            data = recorder.write(ended, path, force, kept)
    except (DatasetError, BackendError, OSError) as error:
        recorder.keep_raw = False
        say(f"cosy-trace: not recorded: {error}")
        return False
    recorder.keep_raw = False
    say(text_of(data, as_json, output is not None, recorder.broken))
    if json_to:
        try:
            with written(json_to) as file:
                file.write(text_of(data, True, output is not None, recorder.broken).encode())
        except OSError as error:
            say(f"cosy-trace: cannot write: {json_to}: {error.strerror}: use another name")
            return False
    if not as_json:
        _say_what_is_left()
    if output is not None and not as_json:
        size = sum(file.stat().st_size for file in data.path.iterdir()) / 1e6
        say(f"recorded in {path} ({size:.1f} MB); next: cosy-mine {path}")
    return True


def _say_what_is_left() -> None:
    """Name the folders of recordings that were killed: they may be many, and in memory."""
    from tracer.rawfolder import left_behind

    if found := left_behind():
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        say(f"left by killed recordings: {found[0]}{more}:\nsee cosy-trace import, or remove them")


def main() -> None:
    """Tell recording from the rest: a command's name counts only as the very first word."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in COMMANDS:
        importlib.import_module(COMMANDS[name]).main(sys.argv[2:], prog_name=f"cosy-trace {name}")
    else:
        trace(prog_name="cosy-trace")
