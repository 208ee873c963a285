# SPDX-License-Identifier: MIT
"""The files that strace wrote, as one text: compressed ones, and those of `-ff`, one a task."""

from __future__ import annotations

import contextlib
import gzip
import heapq
import io
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, cast

_GZIP = b"\x1f\x8b"
_TIME = re.compile(rb"(?:(\d{6,})\.(\d{1,9})|(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?) ")


class FilesError(Exception):
    """Files cannot be read as one text; one line says why and what to do."""


@contextlib.contextmanager
def text(sources: Sequence[str]) -> Iterator[Iterable[bytes]]:
    """Open files, or standard input by the name `-`, as lines; raises FilesError or OSError."""
    with contextlib.ExitStack() as stack:
        if len(sources) == 1:
            yield _opened(stack, sources[0])
        else:
            yield merged({_task(name): _opened(stack, name) for name in sources})


def _opened(stack: contextlib.ExitStack, source: str) -> BinaryIO:
    if source == "-":
        file = cast(io.BufferedReader, sys.stdin.buffer)
    else:
        file = io.BufferedReader(stack.enter_context(io.FileIO(source)))
    if file.peek(2)[:2] == _GZIP:
        return cast(BinaryIO, stack.enter_context(gzip.GzipFile(fileobj=file)))
    return file


def stem(sources: Sequence[str]) -> str:
    """Return what the files are called together, for the name of the dataset."""
    if sources[0] == "-":
        return "strace"
    path = Path(sources[0])
    return path.stem if len(sources) > 1 else path.name


def _task(name: str) -> int:
    number = Path(name).suffix[1:]
    if not number.isdigit():
        raise FilesError(
            f"several files, and no task's number at the end: {name}: as of strace -ff"
        )
    return int(number)


def merged(files: dict[int, BinaryIO]) -> Iterator[bytes]:
    """Yield the lines of all tasks by time, each with its task in front; raises FilesError."""
    lines = [_timed(task, file) for task, file in files.items()]
    for _, line in heapq.merge(*lines, key=lambda pair: pair[0]):
        yield line


def _timed(task: int, file: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield lines with their times in ns; what has none goes with the line before it."""
    now_ns = -1
    for line in file:
        if found := _TIME.match(line):
            seconds, fraction, hour, minute, second, rest = found.groups()
            if hour:
                seconds, fraction = int(hour) * 3600 + int(minute) * 60 + int(second), rest or b""
            now_ns = int(seconds) * 1_000_000_000 + int(fraction.ljust(9, b"0"))
        elif now_ns < 0:
            raise FilesError(f"no times in the file of task {task}: record with -ff -ttt")
        yield now_ns, b"%d %b" % (task, line)
