# SPDX-License-Identifier: MIT
"""When processes and threads began and ended, as far as their backends saw it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import ROOT
from tests.unit.raw_builder import Event, RawBuilder, executed, process, trace
from tracer import dataset, identity, summary, taskstats
from tracer.convert import write_dataset
from tracer.dataset import Dataset, Writer
from tracer.events import DONE, NO_RETURN
from tracer.stream import StreamWriter, read_stream
from tracer.timeline import End, RawTrace, joined

META = {
    "backend": "shim",
    "kernel": "",
    "clock": "",
    "command": ["x"],
    "recorded": "",
    "wall_ns": 1,
    "tool_version": "0",
}
LAST = DONE | NO_RETURN


def written(path: Path, raw: RawTrace, ends: dict[int, End] | None = None) -> Dataset:
    with Writer(path) as writer:
        write_dataset(raw, writer, META, ends=ends)
    return Dataset(path)


def rows(data: Dataset) -> dict[tuple[int, int], tuple[int, int | None]]:
    found = data.threads().to_pylist()
    return {(row["pid"], row["tid"]): (row["start_ns"], row["end_ns"]) for row in found}


def images(data: Dataset, *columns: str) -> list[tuple[Any, ...]]:
    return [tuple(row[name] for name in columns) for row in data.processes().to_pylist()]


def test_what_the_shim_sees(tmp_path: Path) -> None:
    """One tick is 2 ns. What the kernel tells of two threads' ends comes late."""
    raw = trace(
        tmp_path,
        RawBuilder(live=[process(b"/bin/x"), Event("exit_group", (3,), tsc=9000, flags=LAST)]),
        RawBuilder(tid=101, start_tsc=2000, live=[Event("exit", tsc=3000, flags=LAST)]),
        RawBuilder(tid=102, start_tsc=2500, live=[Event("getpid", tsc=2400)]),
        RawBuilder(tid=103, start_tsc=2500, live=[Event("getpid")]),
        RawBuilder(tid=104, start_tsc=2500, live=[Event("getpid")]),
        RawBuilder(pid=200, tid=200, ppid=100, start_tsc=4000, live=[Event("getpid")]),
    )
    raw.learn({}, {(100, 103): 7000, (100, 100): 19000, (100, 104): 19000, (300, 300): 8000})
    data = written(tmp_path / "d", raw, {200: End(cpu_ns=(7, 8))})
    assert rows(data) == {
        (100, 100): (2000, 18000),
        (100, 101): (4000, 6000),
        (100, 102): (4800, None),
        (100, 103): (5000, 7000),
        (100, 104): (5000, 18000),
        (200, 200): (8000, None),
    }
    assert images(data, "pid", "end_ns", "exit", "user_ns", "system_ns") == [
        (100, 18000, 3 << 8, None, None),
        (200, None, None, 7, 8),
    ]


def test_an_exec_ends_an_image_and_its_other_threads(tmp_path: Path) -> None:
    raw = trace(
        tmp_path,
        RawBuilder(live=[process(b"/bin/a"), Event("getpid")]),
        RawBuilder(tid=101, start_tsc=2000, live=[executed(b"/bin/b")]),
        RawBuilder(start_tsc=5000, live=[process(b"/bin/b")]),
    )
    data = written(tmp_path / "d", raw, {100: End(9, (1, 2), 20000)})
    assert images(data, "exe", "start_ns", "end_ns", "exit", "user_ns") == [
        ("/bin/a", 2000, 10000, None, None),
        ("/bin/b", 10000, 20000, 9, 1),
    ]
    assert rows(data) == {(100, 100): (2000, 20000), (100, 101): (4000, 10000)}


def test_what_a_stream_says(tmp_path: Path) -> None:
    with StreamWriter(tmp_path / "s") as out:
        out.process(7, 1000, 1, b"/bin/x", b"/", [b"x"])
        out.event(7, 7, 39, 1100, 10, 7)
        out.event(7, 8, 39, 1200, 10, 7)
        out.event(7, 9, 39, 1250, 10, 7)
        out.exit(7, 8, 1300)
        out.exit(7, 9, 1500)
        out.exit(7, 7, 1400, End(0x8B, (500, 600)))
    data = written(tmp_path / "d", read_stream(tmp_path / "s"))
    assert rows(data) == {(7, 7): (1000, 1400), (7, 8): (1200, 1300), (7, 9): (1250, 1500)}
    assert images(data, "end_ns", "exit", "user_ns", "system_ns") == [(1500, 0x8B, 500, 600)]
    (one,) = summary.summarize(data).processes_by_start
    assert (one.life_ns, one.cpu_ns) == (500, 1100)


def test_a_process_whose_threads_go_on_has_not_ended(tmp_path: Path) -> None:
    with StreamWriter(tmp_path / "s") as out:
        out.process(7, 1000, 1, b"/bin/x", b"/", [b"x"])
        out.event(7, 8, 39, 1200, 10, 7)
        out.exit(7, 7, 1300)
    data = written(tmp_path / "d", read_stream(tmp_path / "s"))
    assert rows(data) == {(7, 7): (1000, 1300), (7, 8): (1200, None)}
    assert images(data, "end_ns", "exit") == [(None, None)]


def test_a_number_that_was_anothers_before(tmp_path: Path) -> None:
    raw = trace(tmp_path, RawBuilder(live=[process(b"/bin/x")], start_tsc=5000))
    data = written(tmp_path / "d", raw, {100: End(0, None, 4000)})
    assert rows(data) == {(100, 100): (10000, None)}
    assert images(data, "end_ns") == [(None,)]


def test_what_is_known_twice_is_joined() -> None:
    found = joined({1: End(None, (1, 1)), 2: End(5)}, {1: End(3, (2, 2), 9)})
    assert found == {1: End(3, (1, 1), 9), 2: End(5)}


def test_older_datasets_know_of_no_ends(tmp_path: Path) -> None:
    path = shutil.copytree(ROOT / "datasets" / "gcc.cosytrace", tmp_path / "d")
    meta = json.loads((path / "meta.json").read_text())
    (path / "meta.json").write_text(json.dumps({**meta, "schema": 2}))
    pq.write_table(pa.Table.from_batches([], dataset.SITES), path / "sites.parquet")
    table = pq.read_table(path / "processes.parquet")
    old = [name for name in dataset.PROCESSES.names if name not in dataset.ENDS]
    pq.write_table(table.select(old), path / "processes.parquet")
    (path / "threads.parquet").unlink(missing_ok=True)
    data = Dataset(path)
    assert data.processes().schema.equals(dataset.PROCESSES)
    assert data.processes()["end_ns"].null_count == len(data.processes())
    assert len(data.threads()) == 0
    assert data.threads().schema.equals(dataset.THREADS)
    text = summary.render(summary.summarize(data))
    assert "processes (calls, time inside them):" in text


def test_a_dataset_that_lacks_its_threads_is_one_clear_line(tmp_path: Path) -> None:
    raw = trace(tmp_path, RawBuilder(live=[process(b"/bin/x")]))
    data = written(tmp_path / "d", raw)
    (data.path / "threads.parquet").unlink()
    with pytest.raises(dataset.DatasetError, match="threads"):
        data.threads()
    pq.write_table(data.processes().drop(["end_ns"]), data.path / "processes.parquet")
    with pytest.raises(dataset.DatasetError, match="end_ns"):
        data.processes()


# --- what the kernel tells --------------------------------------------------------------


def test_cpu_time_is_divided_as_the_kernel_does() -> None:
    assert identity.adjusted(1000, 0, 0) == (1000, 0)
    assert identity.adjusted(1000, 8, 2) == (250, 750)
    assert identity.adjusted(1000, 8, 0) == (0, 1000)


def test_kernels_that_are_too_old_to_name_the_process() -> None:
    assert taskstats.account(bytes(328)) is None
    assert taskstats.account(bytes(400)) == taskstats.Account(0, 0, 0, (0, 0))


def test_attributes_that_are_cut() -> None:
    assert list(taskstats.attributes(b"\x05\0\x01\0x\0\0\0\x04\0\x02\0\0\0")) == [
        (1, b"x"),
        (2, b""),
    ]
