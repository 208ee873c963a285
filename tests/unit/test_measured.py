# SPDX-License-Identifier: MIT
"""What runs measured beside what the motifs of their program predict."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from miner import cost, measured, mine, motifs
from miner.frames import Mined
from miner.page import page
from tests.unit.test_motifs import example_file
from tests.unit.test_runs import record
from tests.unit.trace_builder import TraceBuilder
from tracer import runs
from tracer.dataset import Dataset
from tracer.runs import Run

DU, COMMAND = "ab" * 20, 0x1234


def mined(processes: int = 2) -> motifs.MotifFile:
    """du asked about 40 entries: what is predicted of it is 30 us in all of its processes."""
    found = example_file()
    found.calibration = cost.Calibration().to_json()
    found.motifs[0].interval = {"bpf": [20_000, 40_000]}
    commands = {f"{COMMAND:016x}": processes}
    found.programs = [motifs.Program("/usr/bin/du", DU, processes, commands)]
    return found


def a_run(command: int = COMMAND, build_id: str = DU, attributes: int = 20, calls: int = 20) -> Run:
    """Each answer saves a microsecond."""
    (run,) = runs.parse(
        record(build_id, command, calls=calls, attributes=attributes, native=1, native_ticks=2000)
    )
    return run


def test_runs_of_the_same_command_are_compared_as_they_are() -> None:
    (row,) = measured.compare(mined(), [a_run(attributes=n) for n in (18, 19, 20)])
    assert (row.program, row.executor, row.runs, row.same_command) == (
        "/usr/bin/du",
        "bpf",
        3,
        True,
    )
    assert (row.predicted_ns, row.low_ns, row.high_ns) == (15_000, 10_000, 20_000)
    assert (row.measured_ns, row.quartiles_ns) == (19_000, [18_500, 19_500])
    assert (row.answers, row.calls, row.call_ns, row.predicted_call_ns) == (19, 20, 1000, 1000)


def test_what_is_predicted_has_the_pace_of_the_runs() -> None:
    """Calls took twice as long in the trace."""
    found = mined()
    motif = found.motifs[0]
    found.motifs[0] = cost.at_pace(motif, 2.0)
    costs = cost.calibration_from(found.calibration, "")
    value, (low, high) = cost.predict(motif, costs)["bpf"], cost.interval(motif, costs)["bpf"]
    (row,) = measured.compare(found, [a_run()])
    assert (row.call_ns, row.predicted_call_ns) == (1000, 2000)
    assert (row.predicted_ns, row.low_ns, row.high_ns) == (value // 2, low // 2, high // 2)


def test_other_commands_count_by_their_calls() -> None:
    (row,) = measured.compare(mined(), [a_run(command=1, calls=400, attributes=300)])
    assert (row.same_command, row.predicted_ns, row.measured_ns) == (False, 300_000, 300_000)
    # As soon as the command itself is on record it alone counts.
    (row,) = measured.compare(mined(), [a_run(command=1, calls=400), a_run()])
    assert (row.runs, row.same_command) == (1, True)


def test_a_trace_of_several_commands_does_not_say_what_each_would_save() -> None:
    found = mined()
    found.programs[0].commands = {f"{COMMAND:016x}": 1, "1": 1}
    (row,) = measured.compare(found, [a_run(calls=10, attributes=10)])
    assert (row.predicted_ns, row.measured_ns) == (7500, 10_000)


def test_a_shared_motif_counts_by_its_instances() -> None:
    found = mined(processes=1)
    found.motifs[0].instances_by_program = {"/usr/bin/du": 6, "/usr/bin/ls": 18}
    (row,) = measured.compare(found, [a_run()])
    assert row.predicted_ns == 7500


def test_what_is_not_comparable_is_left_out() -> None:
    assert measured.compare(mined(), [a_run(build_id="cd" * 20)]) == []
    (unknown,) = runs.parse(record(DU, COMMAND, calls=20, attributes=20))
    assert measured.compare(mined(), [unknown]) == []
    assert measured.compare(dataclasses.replace(mined(), motifs=[]), [a_run()]) == []
    # A run that gained nothing is measured.
    (idle,) = runs.parse(record(DU, COMMAND, calls=900))
    assert measured.compare(mined(), [idle])[0].measured_ns == 0


def test_the_miner_keeps_the_programs_of_a_trace(tmp_path: Path) -> None:
    builder = TraceBuilder()
    program = builder.program("/usr/bin/du")
    for _ in range(3):
        builder.add(program, "getppid", (), 1)
    path = builder.write(tmp_path / "t.cosytrace")
    (program_of,) = mine.mine([path], cost.Calibration()).programs
    (row,) = Dataset(path).processes().to_pylist()
    assert (program_of.exe, program_of.build_id) == (row["exe"], row["build_id"])
    assert program_of.commands == {f"{runs.command_key(row['argv'], row['cwd']):016x}": 1}


def test_tables_and_pages_show_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    found = mined()
    assert "Predicted and measured" not in page(found, 3)
    folder = tmp_path / "cosy" / "text"
    folder.mkdir(parents=True)
    (folder / "runs").write_bytes(
        record(DU, COMMAND, calls=20, attributes=20, native=1, native_ticks=2000)
    )
    lines = list(measured.lines(measured.compare(found)))
    assert lines == [
        "measured: du, 1 run of this command, under cosy-auto (bpf)",
        "  a run: predicted 15 µs (10 µs to 20 µs), measured 20 µs (20 µs to 20 µs)",
        "  20 of 20 calls answered; a call took 1,000 ns, in the trace 1,000",
    ]
    (told,) = Mined(found).measured.to_dict("records")
    assert (told["program"], told["measured_ns"]) == ("/usr/bin/du", 20_000)
    text = page(found, 3)
    assert "Predicted and measured" in text
    assert "<td>du (bpf)</td>" in text
