# SPDX-License-Identifier: MIT
"""cosy-trace import: a dataset from strace's output, or from a recording that was cut off."""

from __future__ import annotations

import datetime
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tracer.cli import SETTINGS, fail, say
from tracer.command import Command
from tracer.interrupt import promised

if TYPE_CHECKING:
    from tracer.dataset import Dataset
    from tracer.filters import Filter

BACKEND = "strace"


@click.command(cls=Command, context_settings=SETTINGS)
@click.option("-o", "--output", metavar="OUT", help="Dataset to write [FILE.cosytrace].")
@click.option("--force", is_flag=True, help="Replace OUT if it is an older dataset.")
@click.option("-e", "--expression", "expressions", multiple=True, metavar="trace=SET",
              help="Keep these calls: names, %file, %desc, %pure..., !SET.")  # fmt: skip
@click.option("-P", "--path", "paths", multiple=True, metavar="PATH",
              help="Keep calls that touch this file.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@click.argument("sources", metavar="FILE...", nargs=-1, required=True)
def main(
    output: str | None,
    force: bool,
    expressions: tuple[str, ...],
    paths: tuple[str, ...],
    as_json: bool,
    sources: tuple[str, ...],
) -> None:
    """Make a dataset of what strace printed: FILE, or - for standard input.

    Best of `strace -f -ttt -T -y -v -o FILE CMD`: without -v the names that
    getdents64 returned are missing, without -T how long calls took.

    Several files are those of one `strace -ff -ttt -o NAME`: NAME.*. They may
    be compressed by gzip. FILE may also be a folder cosy-trace-* that a killed
    cosy-trace left behind.
    """
    from tracer.backends import BackendError
    from tracer.filters import FilterError, make
    from tracer.show import text_of
    from tracer.strace_files import FilesError, stem, text
    from tracer.target import DatasetError, check_target

    name = output or f"{stem(sources)}.cosytrace"
    try:
        kept = make(expressions, paths)
        check_target(Path(name), force)
        with promised(Path(name)):
            if len(sources) == 1 and os.path.isdir(sources[0]):
                from tracer.recorder import recover

                data = recover(Path(sources[0]), Path(name), force, kept)
            else:
                with text(sources) as lines:
                    data = _import(lines, sources, Path(name), force, kept)
    except FilterError as error:
        fail(str(error), 2)
    except (DatasetError, BackendError, FilesError) as error:
        fail(str(error))
    except (OSError, EOFError) as error:  # the latter: a compressed file that was cut
        name = getattr(error, "filename", None) or sources[0]
        error = error if isinstance(error, OSError) else OSError(str(error))
        fail(f"cannot read: {name}: {(error.strerror or str(error)).lower()}: check the name")
    say(text_of(data, as_json))
    if not as_json:
        say(f"written to {name}; next: cosy-mine {name}")


def _import(
    lines: Iterable[bytes], sources: Sequence[str], path: Path, force: bool, kept: Filter | None
) -> Dataset:
    from tracer.backends import BackendError
    from tracer.convert import write_dataset
    from tracer.dataset import Dataset, Writer
    from tracer.progress import Progress
    from tracer.recorder import version
    from tracer.strace_text import Importer
    from tracer.stream import StreamWriter, read_stream

    with tempfile.TemporaryDirectory(prefix="cosy-import-") as folder:
        stream = Path(folder) / "strace.stream"
        with StreamWriter(stream) as records, Progress("lines read") as progress:
            importer = Importer(records)
            for done in importer.read(lines):
                progress(done)
        raw = read_stream(stream)
        if not raw.n_calls:
            raise BackendError(f"no calls found: {sources[0]}: is it strace's output?")
        meta = {
            "backend": BACKEND,
            "backend_why": "imported",
            "kernel": "",
            "clock": "CLOCK_REALTIME",
            "command": importer.command or [sources[0]],
            "recorded": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "wall_ns": importer.wall_ns,
            "unread_lines": importer.unread,
            "tool_version": version(),
        }
        with Writer(path, force) as writer, Progress("events written") as progress:
            write_dataset(raw, writer, meta, importer.inherited, importer.ends, kept, progress)
    return Dataset(path)
