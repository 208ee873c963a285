# SPDX-License-Identifier: MIT
"""What all commands do when their standard output is full or closed: as GNU's tools do."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from typing import Any, NoReturn

import click

EXIT_FAILED = 1


class _Mannered(click.Command):
    """A command whose output that cannot be written is one line on stderr, and exit code 1.

    A pipe that nobody reads any more ends it silently, by SIGPIPE.
    """

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """As click's; see the class."""
        if sys.stdout is not sys.__stdout__:
            return super().main(*args, **kwargs)  # somebody else's, who calls us
        output = _Output()
        sys.stdout = output.text
        try:
            return super().main(*args, **kwargs)
        except (SystemExit, OSError) as end:
            with contextlib.suppress(OSError):
                output.text.flush()
            if output.trouble is None:
                raise
            _end(output.trouble, kwargs.get("prog_name"), end)


class Command(_Mannered):
    """For `@click.command(cls=Command)`."""


class Group(_Mannered, click.Group):
    """For `@click.group(cls=Group)`."""


class _Output(io.FileIO):
    """Standard output that remembers why it could not be written."""

    def __init__(self) -> None:
        old = sys.__stdout__
        fd = 1
        if old is None:
            # Closed: the next file that is opened must not take its place. Who writes gets EBADF.
            fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        super().__init__(fd, "w", closefd=False)
        self.trouble: OSError | None = None
        self.text = io.TextIOWrapper(
            io.BufferedWriter(self),
            encoding=old.encoding if old else "utf-8",
            errors=old.errors if old else "strict",
            line_buffering=self.isatty(),
        )

    def write(self, data: Any) -> int:
        """As any file's."""
        try:
            return super().write(data)
        except OSError as error:
            self.trouble = error
            # What is left of the output goes nowhere.
            null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            os.dup2(null, self.fileno())
            os.close(null)
            raise


def _end(trouble: OSError, name: str | None, end: SystemExit | OSError) -> NoReturn:
    """End as `end` says if that is bad enough, else as one who could not print."""
    if isinstance(trouble, BrokenPipeError):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGPIPE)
    code = end.code if isinstance(end, SystemExit) else None
    if not code:
        code = EXIT_FAILED
        name = name or os.path.basename(sys.argv[0])
        with contextlib.suppress(OSError):
            click.echo(f"{name}: cannot write to standard output: {trouble.strerror}", err=True)
    raise SystemExit(code) from None
