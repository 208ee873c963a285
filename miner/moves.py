# SPDX-License-Identifier: MIT
"""The working directories of processes over time."""

from __future__ import annotations

import posixpath
from bisect import bisect_right
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from miner import arrow
from miner.events import Events, Process
from miner.joins import is_one

Move = tuple[int, int, str]
"""Process, time and the working directory (absolute; empty: not known) that it had from then on."""


def _joined(base: str, path: str) -> str:
    """As the tracer joins the paths of objects: `..` takes the last component away."""
    whole = path if path.startswith("/") else f"{base.rstrip('/')}/{path}"
    if "/." in whole or "//" in whole or whole.endswith("/"):
        return posixpath.normpath(whole)
    return whole


class Change(NamedTuple):
    """A successful call that changed a working directory."""

    end_ns: int
    pid: int
    by_fd: bool
    path: str  # as the call named it, or of the descriptor; empty: not known


class Moves:
    """Every start and every change of directory, by time; found piece by piece.

    until_ns, known: the time until which, and what was found already.
    """

    def __init__(
        self, images: list[Process], until_ns: int | None = None, known: Iterable[Move] = ()
    ) -> None:
        starts = [(p.start_ns, p.pid, p.cwd) for p in images if p.cwd]
        self._starts = sorted(starts, key=lambda start: start[:2])
        self._started = 0 if until_ns is None else self._started_by(until_ns)
        self._cwd: dict[int, str] = {pid: where for pid, _, where in known}

    def _started_by(self, time_ns: int) -> int:
        return bisect_right(self._starts, time_ns, key=lambda start: start[0])

    def until(self, time_ns: int, changes: Iterable[Change]) -> list[Move]:
        """What is new until a time, by which all that was asked for before had begun.

        changes: those that began since, up to then.
        """
        stop = self._started_by(time_ns)
        todo = [
            Change(time, pid, False, cwd) for time, pid, cwd in self._starts[self._started : stop]
        ]
        self._started = stop
        cwd = self._cwd
        out = []
        for time, pid, by_fd, path in sorted([*todo, *changes], key=lambda change: change[:2]):
            if path.startswith("/"):
                where = _joined("/", path)
            elif by_fd or not cwd.get(pid) or not path:
                where = ""
            else:
                where = _joined(cwd[pid], path)
            cwd[pid] = where
            out.append((pid, time, where))
        return out


def changes_of(events: Events) -> list[Change]:
    """The changes of directory among the own events of a piece."""
    rows = np.flatnonzero(is_one(events.nr, "chdir", "fchdir") & (events.ret == 0) & events.own)
    of = events.object[rows]
    known = events.objects.path
    opened = known.take(arrow.numbers(np.maximum(of, 0))).to_pylist() if len(known) else of.tolist()
    columns = (
        (events.t_ns[rows] + events.dur_ns[rows]).tolist(),
        events.pid[rows].tolist(),
        is_one(events.nr[rows], "fchdir").tolist(),
        [path if number >= 0 else None for path, number in zip(opened, of.tolist(), strict=True)],
        events.path.texts(rows),
    )
    return [
        Change(end_ns, pid, by_fd, (path or "") if by_fd else text)
        for end_ns, pid, by_fd, path, text in zip(*columns, strict=True)
    ]
