# SPDX-License-Identifier: MIT
"""What a prediction counts, and what it is compared with."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest

from miner import cost, pieces, validate
from miner.events import UNUSUAL
from tests.unit.test_motifs import example_file
from tests.unit.trace_builder import TraceBuilder

COSTS = cost.Calibration(bpf_run_ns=10.0, bpf_child_ns=10.0, start_ns=700.0, watch_ns=10.0)


def test_what_a_call_waited_is_no_usual_time(tmp_path: Path) -> None:
    builder = TraceBuilder()
    program = builder.program("/usr/bin/app")
    for i in range(100):
        builder.add(program, "lstat", (1,), 0, dur_ns=16_000_000 if i == 50 else 1000, path="/a")
        builder.add(program, "getppid", (), 1, dur_ns=50)
    events = pieces.read(builder.write(tmp_path / "t.cosytrace"))
    lstats = events.usual_ns[events.nr == events.nr[0]]
    assert sorted(set(lstats.tolist())) == [1000, UNUSUAL * 1000]
    assert events.usual_ns[events.nr != events.nr[0]].tolist() == [50] * 100
    assert int(events.work_ns.max()) == 16_000_000


def test_waiting_does_not_make_a_motif_worth_more() -> None:
    calm, busy = example_file().motifs[0], example_file().motifs[0]
    busy.calls[0].usual_ns = calm.calls[0].time_ns
    busy.calls[0].time_ns *= 50
    assert cost.predict(busy, COSTS)["bpf"] == cost.predict(calm, COSTS)["bpf"] > 0


def test_a_run_saves_what_its_motifs_save_without_start_and_looks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr(validate, "_launcher", lambda: "cosy-auto")

    def taken(command: Sequence[str]) -> int:
        return 600 if command[0] == "cosy-auto" else 1000

    monkeypatch.setattr(validate, "cpu_ns", taken)
    found = dataclasses.replace(example_file(), calibration=COSTS.to_json())
    found.traces[0].command = ["true"]
    found.motifs = found.motifs[:1]
    found.motifs[0].predicted = {"bpf": 5000}
    found.motifs[0].interval = {"bpf": [4000, 6000]}
    (done,) = validate.validate(found, 3)
    # It makes 20 other calls.
    assert (done.predicted_ns, done.low_ns, done.high_ns) == (4100, 3100, 5100)
    assert (done.measured_ns, done.native_ns, done.runs) == (400, 1000, 3)
    assert validate.history() == [done]


def test_a_trace_of_a_slow_moment_predicts_for_the_pace_of_now() -> None:
    """All calls took twice as long when the trace was recorded: the prediction is the same."""
    costs = dataclasses.replace(COSTS, record_ns=100.0)
    calm, slow = example_file(), example_file()
    for motif in slow.motifs:
        for call in motif.calls:
            call.usual_ns, call.time_ns = 2 * call.usual_ns, 2 * call.time_ns
    native_ns = 1_000_000
    for found, times in ((calm, 1), (slow, 2)):
        found.traces[0].cpu_ns = times * native_ns + 100 * found.traces[0].events
        for motif in found.motifs:
            motif.predicted = cost.predict(motif, costs)
            motif.interval = cost.interval(motif, costs)
    paces = [validate.pace(found.traces[0], native_ns, costs) for found in (calm, slow)]
    assert paces == [1.0, 0.5]
    one, other = (
        validate.predicted(found, costs, pace)
        for found, pace in zip((calm, slow), paces, strict=True)
    )
    assert one == other
    assert one[0] > 0
    unknown = dataclasses.replace(calm.traces[0], cpu_ns=0)
    assert validate.pace(unknown, native_ns, costs) == 1.0


def test_what_disturbs_some_runs_does_not_change_the_saving() -> None:
    runs = validate.Runs([1000, 1900, 1010, 1850, 1000], [700, 1300, 705, 710, 1250])
    assert runs.saved == 300
    low, high = runs.quartiles
    assert 290 <= low <= 300 <= high <= 310
