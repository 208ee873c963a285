# SPDX-License-Identifier: MIT
"""How long mining takes: 10^6, 10^7 and (with --full) 10^8 events, and how memory grows.

The traces are datasets/ laid end to end as often as needed: real calls of real programs, each copy
with processes and objects of its own. Prints seconds, CPU seconds, CPU time per event (linear: it
stays the same; on a busy machine it alone says something) and peak memory; writes them as JSON.
First it prints what two processes at once get done, compared to one: 2 on two cores of one's own,
little more than 1 on two threads of one core. Wall times of two workers go with that.

    python -m bench.mining [--full] [--workers N] [--folder DIR]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from bench.harness import RESULTS, ROOT
from tracer.dataset import EVENTS, OBJECTS, PROCESSES, ROW_GROUP, Dataset, Writer

SIZES = (10**6, 10**7)
FULL = 10**8
GAP_NS = 1_000_000
LOOK_S = 0.1
LOOKS_PER_MEMORY = 10
_CHILD = """
import json, sys, time
from miner import cost, mine
start = time.perf_counter()
found = mine.mine([sys.argv[1]], cost.Calibration(), workers=int(sys.argv[2]))
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "motifs": len(found.motifs)}))
"""
_LOOP = """
import sys, time
sys.stdin.readline()
start = time.perf_counter()
n = 0
for i in range(int(sys.argv[1])):
    n += i * i % 7
print(time.perf_counter() - start)
"""
LOOP = 4_000_000  # rounds of integer arithmetic, some tenths of a second
YIELD_ROUNDS = 5


def _loops(count: int) -> float:
    """Seconds until each of so many processes, begun together, has gone through the loop."""
    children = [
        subprocess.Popen(
            [sys.executable, "-c", _LOOP, str(LOOP)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(count)
    ]
    for child in children:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    return max(float(child.communicate()[0]) for child in children)


def parallel_yield(rounds: int = YIELD_ROUNDS) -> float:
    """What two processes at once get done in a time, by what one alone does: arithmetic, by turns
    one and two of them, medians."""
    alone, both = [], []
    for _ in range(rounds):
        alone.append(_loops(1))
        both.append(_loops(2))
    return 2 * statistics.median(alone) / statistics.median(both)


@dataclass(frozen=True)
class Base:
    """All of datasets/ as one trace."""

    events: pa.Table
    processes: pa.Table
    objects: pa.Table
    span_ns: int
    pids: int


def _shift(table: pa.Table, **by: int) -> pa.Table:
    """The table with numbers added to some columns."""
    for name, amount in by.items():
        at = table.schema.get_field_index(name)
        moved = pc.add(pc.cast(table.column(name), pa.int64()), amount)
        table = table.set_column(at, table.schema.field(at), pc.cast(moved, table.schema.types[at]))
    return table


def base() -> Base:
    """Read datasets/: one run after the other, processes and objects renumbered."""
    events, processes, objects = [], [], []
    t_ns = rows = ids = pids = 0
    for path in sorted((ROOT / "datasets").glob("*.cosytrace")):
        dataset = Dataset(path)
        table = dataset.events()
        images = dataset.processes()
        start = min(pc.min(table.column("t_ns")).as_py(), pc.min(images.column("start_ns")).as_py())
        low = min(pc.min(table.column("pid")).as_py(), pc.min(table.column("tid")).as_py())
        found = dataset.objects()
        offset = {"t_ns": t_ns - start, "pid": pids - low, "tid": pids - low, "object_id": ids}
        events.append(_shift(table, **offset))
        later = t_ns - start
        processes.append(_shift(images, pid=pids - low, start_ns=later, end_ns=later))
        objects.append(_shift(found, object_id=ids, event=rows))
        t_ns = pc.max(events[-1].column("t_ns")).as_py() + GAP_NS
        rows += table.num_rows
        ids += pc.max(found.column("object_id")).as_py() + 1
        pids += pc.max(table.column("tid")).as_py() - low + 1
    return Base(
        pa.concat_tables(events).unify_dictionaries(),
        pa.concat_tables(processes).cast(PROCESSES),
        pa.concat_tables(objects).cast(OBJECTS),
        t_ns,
        pids,
    )


def _copies(what: Base, rows: int) -> Iterator[tuple[pa.Table, pa.Table, pa.Table]]:
    ids = pc.max(what.objects.column("object_id")).as_py() + 1
    done = number = 0
    while done < rows:
        events = what.events.slice(0, rows - done)
        yield (
            _shift(
                events,
                t_ns=number * what.span_ns,
                pid=number * what.pids,
                tid=number * what.pids,
                object_id=number * ids,
            ),
            _shift(
                what.processes,
                pid=number * what.pids,
                start_ns=number * what.span_ns,
                end_ns=number * what.span_ns,
            ),
            _shift(what.objects, object_id=number * ids, event=done),
        )
        done += events.num_rows
        number += 1


def build(path: Path, rows: int, what: Base) -> Path:
    """Write a trace of `rows` events; a few minutes for 10^8."""
    meta = {
        "backend": "shim",
        "kernel": os.uname().release,
        "clock": "CLOCK_MONOTONIC",
        "lost_events": 0,
        "command": ["datasets"],
        "recorded": "2026-01-01T00:00:00Z",
        "wall_ns": what.span_ns * rows // what.events.num_rows,
        "tool_version": "0",
    }
    processes, objects, waiting, count = [], [], [], 0
    with Writer(path) as writer:
        for events, images, things in _copies(what, rows):
            processes.append(images)
            objects.append(things)
            waiting.append(events)
            count += events.num_rows
            while count >= ROW_GROUP:
                table = pa.concat_tables(waiting).unify_dictionaries()
                writer.write_events(table.slice(0, ROW_GROUP).cast(EVENTS))
                waiting = [table.slice(ROW_GROUP)]
                count -= ROW_GROUP
        if count:
            writer.write_events(pa.concat_tables(waiting).unify_dictionaries().cast(EVENTS))
        things = pa.concat_tables(objects)
        things = things.filter(pc.fill_null(pc.less(things.column("event"), rows), True))
        writer.finish(pa.concat_tables(processes), things, meta)
    return path


def measure(path: Path, workers: int) -> dict[str, float]:
    """Mine in a process of its own: seconds, CPU seconds and peak memory of all its processes."""
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(path), str(workers)],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )
    peak = 0
    ticks: dict[int, int] = {}
    looks = 0
    while child.poll() is None:
        below = _note_ticks(child.pid, ticks)
        # The kernel walks all pages for this, and meanwhile they cannot grow.
        if looks % LOOKS_PER_MEMORY == 0:
            peak = max(peak, sum(map(_memory_kb, below)))
        looks += 1
        time.sleep(LOOK_S)
    assert child.stdout is not None
    if child.returncode:
        raise RuntimeError(f"mining failed: {path}")
    cpu_s = sum(ticks.values()) / os.sysconf("SC_CLK_TCK")
    return {**json.loads(child.stdout.read()), "peak_kb": peak, "cpu_s": cpu_s}


def _note_ticks(pid: int, ticks: dict[int, int]) -> list[int]:
    """Note the CPU ticks of a process and those below it, which it returns."""
    try:
        below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
    ticks[pid] = int(fields[11]) + int(fields[12])
    return [pid, *(p for child in below for p in _note_ticks(int(child), ticks))]


def _memory_kb(pid: int) -> int:
    """Memory of a process, shared pages by halves; 0 when it is gone."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    except OSError:
        pass
    return 0


def main() -> None:
    """Build the traces, mine them, print a line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="10^8 events, too (2 GB on disk)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--folder", type=Path, help="keep the traces there, and use them again")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="cosy-mining-"))
    folder.mkdir(exist_ok=True)
    results: dict[object, object] = {"parallel_yield": parallel_yield()}
    print(
        f"two processes at once do {results['parallel_yield']:.2f} times what one does", flush=True
    )
    try:
        what = base()
        for rows in (*SIZES, *((FULL,) if options.full else ())):
            path = folder / f"{rows}.cosytrace"
            if not path.exists():
                build(path, rows, what)
            found = measure(path, options.workers)
            results[rows] = {**found, "cpu_us_per_event": found["cpu_s"] * 1e6 / rows}
            print(
                f"10^{len(str(rows)) - 1} events: {found['seconds']:7.1f} s, "
                f"CPU {found['cpu_s']:6.1f} s, {found['cpu_s'] * 1e6 / rows:4.2f} us per event, "
                f"peak {found['peak_kb'] / 1e6:.2f} GB, {found['motifs']} motifs",
                flush=True,
            )
    finally:
        if not options.folder:
            shutil.rmtree(folder)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "mining.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
