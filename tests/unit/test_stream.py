# SPDX-License-Identifier: MIT
"""Streams: records come when calls end, events go out as calls began."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from tracer.stream import StreamWriter, read_stream
from tracer.syscalls import by_name
from tracer.timeline import BLOCK_EVENTS

CHUNK = 4 * BLOCK_EVENTS


def recorded(folder: Path, calls: list[tuple[int, int, int]]) -> Path:
    """A stream of calls, given by thread, start and duration, in the order of their ends."""
    path = folder / "s"
    nr = by_name()["read"].nr
    with StreamWriter(path) as writer:
        for tid in sorted({tid for tid, _, _ in calls}):
            writer.process(tid, 0, 1, b"/bin/x", b"/", [b"x"])
        for tid, start, duration in sorted(calls, key=lambda call: call[1] + call[2]):
            writer.event(tid, tid, nr, start, duration, 0, path=b"%d" % start)
    return path


def test_one_long_call_holds_nothing_back(tmp_path: Path) -> None:
    """It was the last record; all that had ended before waited in memory for it, sorted anew."""
    n = 20 * BLOCK_EVENTS
    calls = [(11, 5000 + 100 * i, 10) for i in range(n)]
    raw = read_stream(recorded(tmp_path, [*calls, (10, 4000, 100 * n + 2000)]))
    sizes = [len(chunk) for chunk in raw.chunks(CHUNK)]
    assert sum(sizes) == n + 1
    assert max(sizes) <= CHUNK + BLOCK_EVENTS
    first = next(raw.chunks(CHUNK))
    assert (first.tsc[0], first.dur[0]) == (4000, 100 * n + 2000)


@pytest.mark.parametrize("seed", range(4))
def test_calls_of_all_lengths_come_in_the_order_of_their_start(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    starts = rng.sample(range(1, 1 << 30), 6 * BLOCK_EVENTS)
    calls = [(rng.randrange(10, 14), start, int(rng.paretovariate(0.2)) % (1 << 30))
             for start in starts]  # fmt: skip
    raw = read_stream(recorded(tmp_path, calls))
    tids = {thread.tid: index for index, thread in enumerate(raw.threads)}
    found = []
    for chunk in raw.chunks(CHUNK):
        texts = [int(chunk.text(row)) for row in range(len(chunk))]
        assert texts == chunk.tsc.tolist(), "each with its own payload"
        who = np.array(raw.tids)[chunk.thread]
        found += zip(who.tolist(), chunk.tsc.tolist(), chunk.dur.tolist(), strict=True)
    assert set(tids) == {tid for tid, _, _ in calls}
    assert found == sorted(calls, key=lambda call: call[1])
