# SPDX-License-Identifier: MIT
"""How all commands end: when standard output is full or closed, and at Ctrl-C.

As GNU's tools do.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

EXIT_FAILED = 1


class _Mannered(click.Command):
    """A command whose output that cannot be written is one line on stderr, and exit code 1.

    A pipe that nobody reads any more ends it silently, by SIGPIPE. Ctrl-C ends it by SIGINT, so
    that a script's loop ends, too, with a line if there is something to say (promised() says it).
    """

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """As click's; see the class."""
        if sys.stdout is not sys.__stdout__:
            return super().main(*args, **kwargs)  # somebody else's, who calls us
        output = _Output()
        sys.stdout = output.text
        name = kwargs.get("prog_name") or os.path.basename(sys.argv[0])
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            # There is nothing to tidy up before invoke().
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        try:
            return super().main(*args, **kwargs)
        except _Interrupted as stop:
            said = stop.said
        except (SystemExit, OSError) as end:
            with contextlib.suppress(OSError):
                output.text.flush()
            if output.trouble is None:
                raise
            _end(output.trouble, name, end)
        # By now what the frames held is gone, too: temporary folders.
        if said:
            with contextlib.suppress(OSError):
                click.echo(f"{name}: interrupted: {', '.join(said)}", err=True)
        return _die(signal.SIGINT)

    def invoke(self, ctx: click.Context) -> Any:
        """As click's, which would say `Aborted!` and exit with code 1; Ctrl-C is an exception here
        and nowhere else, unless it is ignored or somebody else's."""
        if signal.getsignal(signal.SIGINT) is not signal.SIG_DFL:
            return super().invoke(ctx)
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            try:
                return super().invoke(ctx)
            finally:
                signal.signal(signal.SIGINT, signal.SIG_DFL)
        except KeyboardInterrupt as stop:
            raise _Interrupted(getattr(stop, "__notes__", [])) from None


class _Interrupted(BaseException):
    """A KeyboardInterrupt that click does not know; `said`: its notes."""

    def __init__(self, said: Sequence[str]) -> None:
        super().__init__(*said)
        self.said = said


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


def _die(number: signal.Signals) -> NoReturn:
    """End by this signal."""
    signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
    os.kill(os.getpid(), number)
    os._exit(128 + number)


def _end(trouble: OSError, name: str, end: SystemExit | OSError) -> NoReturn:
    """End as `end` says if that is bad enough, else as one who could not print."""
    if isinstance(trouble, BrokenPipeError):
        _die(signal.SIGPIPE)
    code = end.code if isinstance(end, SystemExit) else None
    if not code:
        code = EXIT_FAILED
        with contextlib.suppress(OSError):
            click.echo(f"{name}: cannot write to standard output: {trouble.strerror}", err=True)
    raise SystemExit(code) from None
