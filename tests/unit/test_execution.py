# SPDX-License-Identifier: MIT
"""Whoever mines the pieces, the result is the same; a worker that dies loses nothing."""

from __future__ import annotations

import gc
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from miner import cost, execution, mine, motifs, pieces
from tests.unit.test_bodies import slurp
from tests.unit.test_planted import planted
from tests.unit.trace_builder import TraceBuilder, run
from tracer.target import DatasetError

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ("du", "gcc", "git-add", "lighttpd", "md5sum", "python-imports", "rsync", "tar-create")


def traces() -> list[str]:
    return [str(ROOT / "datasets" / f"{name}.cosytrace") for name in PROGRAMS]


@pytest.fixture(scope="module")
def expected() -> motifs.MotifFile:
    return mine.mine(traces(), cost.Calibration(), workers=1)


def test_processes_give_the_same(
    expected: motifs.MotifFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "_POOL_ROWS", 0)
    assert mine.mine(traces(), cost.Calibration(), workers=3) == expected


def test_garbage_is_collected_again_after_mining(tmp_path: Path) -> None:
    broken = tmp_path / "t.cosytrace"
    shutil.copytree(traces()[0], broken)
    (broken / "events.parquet").write_bytes(b"PAR1")
    with pytest.raises(DatasetError):
        mine.mine([broken], cost.Calibration())
    assert gc.isenabled()
    mine.mine(traces()[:1], cost.Calibration())
    assert gc.isenabled()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    distributed = pytest.importorskip("distributed", reason="no Dask: pip install 'cosy[dask]'")
    with distributed.LocalCluster(
        n_workers=3, threads_per_worker=1, dashboard_address=None, silence_logs=50
    ) as found:
        yield found


def test_giving_up_ends_only_own_processes(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a cluster in the same process, say, live on."""
    monkeypatch.setattr(execution, "_POOL_ROWS", 0)
    others = {child.pid for child in multiprocessing.active_children()}
    assert len(others) >= len(cluster.workers)
    with execution.local(1 << 20, workers=2) as run:
        found = run(pieces.tasks(*pieces.open_trace(traces()[0])))
        next(found)
        with pytest.raises(KeyboardInterrupt):
            found.throw(KeyboardInterrupt)  # type: ignore[attr-defined]
    assert {child.pid for child in multiprocessing.active_children()} == others


def test_a_dask_cluster_gives_the_same(expected: motifs.MotifFile, cluster: Any) -> None:
    urls = [f"file://{path}" for path in traces()]  # through fsspec
    found = mine.mine(urls, cost.Calibration(), dask=cluster.scheduler_address)
    for trace in found.traces:
        trace.path = trace.path.removeprefix("file://")
    assert found == expected


def _kill_one(cluster: Any, killed: list[int]) -> None:
    """Kill the first worker that has work, as the kernel would for lack of memory."""
    from distributed import Client

    with Client(cluster.scheduler_address) as client:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            busy = [address for address, tasks in client.processing().items() if tasks]
            if busy:
                pids = client.run(os.getpid)
                os.kill(pids[busy[0]], signal.SIGKILL)
                killed.append(pids[busy[0]])
                return
            time.sleep(0.01)


def test_a_killed_worker_loses_nothing(cluster: Any, tmp_path: Path) -> None:
    killed: list[int] = []
    # Often enough that the worker dies in the middle.
    many = [
        str(shutil.copytree(path, tmp_path / str(copy) / Path(path).name))
        for copy in range(4)
        for path in traces()
    ]
    killer = threading.Thread(target=_kill_one, args=(cluster, killed))
    killer.start()
    found = mine.mine(many, cost.Calibration(), dask=cluster.scheduler_address)
    killer.join()
    assert killed
    assert found == mine.mine(many, cost.Calibration(), workers=1)


def test_no_cluster_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed", reason="no Dask: pip install 'cosy[dask]'")
    monkeypatch.setattr(execution, "CONNECT_S", 1)
    with pytest.raises(
        execution.ExecutionError, match=r"no Dask scheduler at tcp://127\.0\.0\.1:9"
    ):
        mine.mine(traces()[:1], cost.Calibration(), dask="tcp://127.0.0.1:9")


def test_small_pieces_find_what_one_piece_finds(tmp_path: Path) -> None:
    """Nothing is lost or counted twice at the borders; instances may be cut there."""
    builder, _ = planted(1)
    path = builder.write(tmp_path / "t.cosytrace")
    whole = mine.mine([path], cost.Calibration(), workers=1)
    size = 1000
    trace, parts = pieces.open_trace(path, size)
    assert len(parts) > 3
    partials = execution_of(trace, parts)
    found = mine.rank(whole.traces, partials, cost.Calibration())
    assert sum(p.events for p in partials) == trace.rows
    assert sum(p.work_ns for p in partials) == whole.traces[0].time_ns
    before = {m.name: m for m in whole.motifs}
    after = {m.name: m for m in found.motifs}
    for name in ("slurp", "map-file", "probe-list", "list-stat", "dirscan-stat"):
        assert abs(after[name].crossings / before[name].crossings - 1) < 0.05, name


def execution_of(trace: pieces.Trace, parts: list[pieces.Piece]) -> list[Any]:
    with execution.local(trace.rows, 1) as run:
        return list(run(list(pieces.tasks(trace, parts))))


def test_a_piece_is_sent_with_its_own_processes_only(tmp_path: Path) -> None:
    """What is sent does not grow with the trace, and the result does not change."""
    builder = TraceBuilder()
    for i in range(8):
        program = builder.program(f"/usr/bin/app{i}")
        run(*(slurp(program, f"/{i}/{j}", 5) for j in range(20)))
    trace, parts = pieces.open_trace(builder.write(tmp_path / "t.cosytrace", row_group=50))
    assert len(parts) == 1
    trace, parts = pieces.open_trace(tmp_path / "t.cosytrace", 50)
    tasks = list(pieces.tasks(trace, parts))
    assert max(len(part.images) for part, _, _ in tasks) < len(trace.images)
    whole = [(replace(part, images=trace.images), piece, before) for part, piece, before in tasks]
    with execution.local(trace.rows, 1) as mined:
        one, other = (mine.rank([], mined(each), cost.Calibration()) for each in (tasks, whole))
    assert one == other


@pytest.mark.parametrize(("count", "workers"), [(1, 2), (5, 2), (48, 2), (48, 7), (0, 3)])
def test_shares_hold_every_task_once(count: int, workers: int) -> None:
    trace = pieces.Trace("t", {}, count * 10, [], [], 0)
    tasks = [
        (trace, pieces.Piece(i, i * 10, i * 10 + 10, (i,), i * 10, (1, 1)), None)
        for i in range(count)
    ]
    parts = list(execution.shares(iter(tasks), count * 10, workers))
    assert [task for part in parts for task in part] == tasks
    sizes = [len(part) for part in parts]
    assert sizes == sorted(sizes, reverse=True)
    assert len(parts) >= min(count, 2 * workers)


def test_pieces_grow_smaller_so_that_processes_end_together(tmp_path: Path) -> None:
    builder = TraceBuilder()
    program = builder.program("/usr/bin/app")
    run(*(slurp(program, f"/{i}", 5) for i in range(200)))
    path = builder.write(tmp_path / "t.cosytrace", row_group=50)
    trace, parts = pieces.open_trace(path, 200)
    assert [parts[0].start, *(p.start for p in parts[1:])] == [0, *(p.stop for p in parts[:-1])]
    assert parts[-1].stop == trace.rows > 800
    sizes = [p.stop - p.start for p in parts]
    assert sizes == sorted(sizes, reverse=True)
    assert (sizes[0], sizes[-2]) == (200, 50)
    assert len(pieces.open_trace(path, trace.rows)[1]) == 1


def test_a_trace_that_was_recorded_again_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "t.cosytrace"
    for name in ("first", "second"):
        builder = TraceBuilder()
        builder.now_ns += len(name)
        program = builder.program("/usr/bin/app")
        run(*(slurp(program, f"/{name}/{i}", 5) for i in range(len(name))))
        shutil.rmtree(path, ignore_errors=True)
        events = pieces.read(builder.write(path))
        assert {p for p in events.objects.path.to_pylist() if p} >= {f"/{name}/0"}


def test_what_stands_in_front_of_a_piece_does_not_depend_on_who_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that mined the piece before has the same rows at hand as one that did not."""
    monkeypatch.setattr(pieces, "EXPLAINING_ROWS", 300)
    builder, _ = planted(2)
    trace, parts = pieces.open_trace(builder.write(tmp_path / "t.cosytrace"), 700)
    pieces.load(trace, parts[0], None)
    at_hand = pieces.load(trace, parts[1], parts[0])
    pieces._last.clear()
    read = pieces.load(trace, parts[1], parts[0])
    assert 0 < at_hand.before == read.before <= 300
    assert at_hand.t_ns.tolist() == read.t_ns.tolist()
    assert at_hand.object.tolist() == read.object.tolist()
    assert at_hand.objects.event.tolist() == read.objects.event.tolist()


def test_mining_does_without_pandas() -> None:
    """Importing it takes half a second of each process; pyarrow does so unasked. Ranking, which
    one process does, may."""
    code = (
        "import sys\n"
        "from miner import execution, pieces\n"
        f"trace, parts = pieces.open_trace({traces()[0]!r})\n"
        "found = list(map(execution.mine_task, pieces.tasks(trace, parts)))\n"
        "assert found\n"
        "assert not {'pandas', 'sklearn'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert not done.returncode, done.stderr


def test_working_directories_reach_later_pieces(tmp_path: Path) -> None:
    builder = TraceBuilder()
    program = builder.program("/usr/bin/app")
    program.call("chdir", path="/srv/data")
    run(*(slurp(program, f"/{i}", 5) for i in range(40)))
    program.call("chdir", path="below")
    run(*(slurp(program, f"/{i}", 5) for i in range(40)))
    path = builder.write(tmp_path / "t.cosytrace", row_group=30)
    moves = [pieces.load(*task).moves for task in pieces.tasks(*pieces.open_trace(path, 30))]
    assert [where for _, _, where in moves[0]][-1] == "/srv/data"
    assert [where for _, _, where in moves[-1]][-2:] == ["/srv/data", "/srv/data/below"]
    whole = pieces.read(path).moves
    assert all(part == whole[: len(part)] for part in moves)


def test_a_script_needs_no_guard(tmp_path: Path) -> None:
    """Its work begins once, though processes are started in the middle of it."""
    script = tmp_path / "script.py"
    script.write_text(
        "import miner\n"
        "from miner import execution\n"
        "print('begins')\n"
        "execution._POOL_ROWS = 0\n"
        f"found = miner.load(*{traces()[:3]!r}, workers=2)\n"
        "import sys\n"
        "assert sys.modules['__main__'].found is found\n"
        "print(len(found.motifs) > 0)\n"
    )
    done = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.stdout, done.returncode) == ("begins\nTrue\n", 0), done.stderr
