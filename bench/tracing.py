# SPDX-License-Identifier: MIT
"""What tracing costs the traced program, and whether it lost anything."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import click

from bench.harness import (
    HEADER,
    Job,
    Row,
    Variant,
    measure,
    native,
    print_row,
    run_once,
    save,
    script,
)
from bench.overhead import shim

SLOWDOWN_MAX = 1.10


def recorded(job: Job, folder: Path) -> dict[str, object]:
    """One whole `cosy-trace`: events, lost ones, seconds, bytes on disk per event."""
    import pyarrow.parquet as parquet

    trace = folder / "du.cosytrace"
    start = time.monotonic()
    run_once(job, Variant("trace", (script("cosy-trace"), "-o", str(trace))))
    wall = time.monotonic() - start
    meta = json.loads((trace / "meta.json").read_text())
    events = parquet.read_metadata(trace / "events.parquet").num_rows
    size = sum(path.stat().st_size for path in trace.iterdir())
    return {
        "events": events,
        "lost_events": meta["lost_events"],
        "wall_s": wall,
        "bytes_per_event": size / max(events, 1),
    }


@click.command(help=__doc__)
@click.option("--runs", default=7, show_default=True, help="Rounds; each runs both once.")
@click.option("--quick", is_flag=True, help="Three rounds over /usr/lib only.")
def main(runs: int, quick: bool) -> None:
    """Measure, print, save; exit 1 when events were lost."""
    tree, runs = ("/usr/lib", 3) if quick else ("/usr", runs)
    job = Job(("du", "-s", tree), SLOWDOWN_MAX)
    with tempfile.TemporaryDirectory() as scratch:
        raw = Path(scratch) / "raw"
        raw.mkdir()
        print(HEADER)
        row: Row = measure(job, [native(), shim("trace", dir=str(raw))], runs)
        print_row(row, "trace")
        whole = recorded(job, Path(scratch))
    print(f"cosy-trace, conversion included: {whole}")
    print(f"saved {save('tracing', {'row': row, 'whole': whole})}")
    if whole["lost_events"]:
        raise SystemExit("bench: events were lost")


if __name__ == "__main__":
    main()
