# SPDX-License-Identifier: MIT
"""How long processes and threads lived.

Some backends see tasks end. Of the others' there are the calls that end them, and what the kernel
tells of processes afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tracer.processes import Image, Processes
from tracer.syscalls import by_name
from tracer.timeline import EXITS, End, RawTrace

Task = tuple[int, int]  # process and thread


@dataclass(frozen=True)
class Life:
    """From when to when, in ticks of the trace's clock; None: its end was not seen."""

    start: int
    end: int | None


@dataclass
class Lives:
    """All that lived in a trace."""

    images: list[Life]
    """In the order of Processes.images."""
    threads: dict[Task, Life]


def _called(raw: RawTrace) -> tuple[dict[Task, int], dict[int, int]]:
    """Return when threads ended themselves, and when one ended its whole process."""
    alone, whole = (by_name()[name].nr for name in EXITS)
    rows = np.flatnonzero((raw.rare.nr == alone) | (raw.rare.nr == whole))
    chunk = raw.rare.take(rows)
    threads: dict[Task, int] = {}
    processes: dict[int, int] = {}
    fields = (chunk.thread, chunk.nr, chunk.tsc)
    for thread, nr, tsc in zip(*(column.tolist() for column in fields), strict=True):
        who = raw.threads[thread]
        if nr == whole:
            processes[who.pid] = tsc
        else:
            threads[who.pid, who.tid] = tsc
    return threads, processes


def _process_ends(
    raw: RawTrace, ends: Mapping[int, End], threads: Mapping[Task, int], whole: Mapping[int, int]
) -> dict[int, int]:
    """Return when processes ended: with their last thread."""
    found = dict(whole)
    alive = {t.pid for t in raw.threads if (t.pid, t.tid) not in threads}
    for (pid, _), tsc in threads.items():
        if pid in ends or pid in whole or pid not in alive:
            found[pid] = max(found.get(pid, 0), tsc)
    for pid, end in ends.items():
        if pid not in found and end.at_ns is not None:
            found[pid] = raw.to_ticks(end.at_ns)
    return found


def find(raw: RawTrace, who: Processes, ends: Mapping[int, End]) -> Lives:
    """Return the lives of a trace; `ends`: how processes ended, as far as that is known."""
    called, whole = _called(raw)
    seen = called | raw.thread_ends
    gone = _process_ends(raw, ends, seen, whole)
    following: dict[int, Image] = {}
    images: list[Life] = []
    replaced_at: dict[int, int] = {}
    for image in reversed(who.images):
        after = following.get(image.table)
        end = gone.get(image.pid)
        if image.replaced and after:
            end = replaced_at[id(image)] = after.start_tsc
        following[image.table] = image
        images.append(_life(image.start_tsc, end))
    threads: dict[Task, Life] = {}
    for thread, image in zip(raw.threads, who.of_thread, strict=True):
        task = (thread.pid, thread.tid)
        first = min(thread.start_tsc, thread.first_tsc)
        start = threads[task].start if task in threads else first
        end = seen.get(task)
        if end is None and task in raw.noticed:
            end = min(raw.noticed[task], gone.get(thread.pid, raw.noticed[task]))
        elif end is None and thread.tid == thread.pid:
            end = gone.get(thread.pid)
        elif end is None:
            end = replaced_at.get(id(image))  # an exec ends all threads but one
        threads[task] = _life(start, end)
    return Lives(images[::-1], threads)


def _life(start: int, end: int | None) -> Life:
    # The number may have been another's before.
    return Life(start, end if end is not None and end >= start else None)
