# SPDX-License-Identifier: MIT
"""Beginnings and ends of processes and threads, under each backend."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pyarrow.compute as pc
import pytest

from tests.native.tracing import OUTSIDE, Tracer, usable
from tracer.summary import summarize


@pytest.fixture(params=["shim", *OUTSIDE])
def any_backend(request: pytest.FixtureRequest) -> str:
    return usable(request.param)


def test_lives_of_threads(tracer: Tracer, any_backend: str, calls: Path) -> None:
    _, data = tracer.trace("--backend", any_backend, calls, "threads")
    (process,) = data.processes().to_pylist()
    threads = data.threads().to_pylist()
    assert {t["pid"] for t in threads} == {process["pid"]}
    assert {t["tid"] for t in threads} == set(data.events(["tid"])["tid"].to_pylist())
    assert len(threads) > 2
    for thread in threads:
        own = pc.equal(data.events()["tid"], thread["tid"])
        times = data.events(["t_ns"])["t_ns"].filter(own).to_pylist()
        assert process["start_ns"] <= thread["start_ns"] <= min(times)
        if thread["end_ns"] is None:
            assert any_backend == "shim"
            assert os.geteuid() != 0
        else:
            assert max(times) <= thread["end_ns"] <= process["end_ns"]


def test_lives_of_processes(tracer: Tracer, any_backend: str) -> None:
    """The shell's own time is not its children's; one of them is killed."""
    busy = "i=0; while [ $i -lt 300000 ]; do i=$((i + 1)); done"
    script = f"sh -c '{busy}; exit 3'; sh -c 'kill -9 $$'; sleep 0.2; exit 4"
    done, data = tracer.trace("--backend", any_backend, "dash", "-c", script)
    assert done.returncode == 4
    shell, first, second, last = summarize(data).processes_by_start
    assert shell.exit == 4 << 8
    assert shell.life_ns is not None
    assert shell.life_ns > 2e8
    assert shell.life_ns <= data.meta["wall_ns"]
    assert shell.cpu_ns is not None
    # Not user time alone: how the kernel divides it is by ticks, few of which there may be.
    all_ns = data.meta["user_ns"] + data.meta["system_ns"]
    assert shell.cpu_ns < all_ns / 2
    assert first.exit == 3 << 8
    assert last.exit == 0
    if os.geteuid() != 0 and any_backend == "shim":
        return
    assert second.exit == signal.SIGKILL
    for process in (first, second, last):
        assert process.life_ns is not None
        assert process.cpu_ns is not None
    assert first.cpu_ns > all_ns / 2
    assert f"{first.life_ns / 1e9:>8.3f} {first.cpu_ns / 1e9:>8.3f}" in done.stderr.decode()
