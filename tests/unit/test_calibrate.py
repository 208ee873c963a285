# SPDX-License-Identifier: MIT
"""Costs are found again in walks that were made from them; files and intervals hold together."""

from __future__ import annotations

import json
import random
from dataclasses import fields, replace
from pathlib import Path

import pytest

from miner import cost
from synth import calibrate
from synth.calibrate import ASKS, SIZES, Walk
from tests.unit.test_motifs import example_file

RUN_NS, CHILD_NS, SERVE_NS, CALL_NS = 8000.0, 350.0, 250.0, 900.0


def walks(rng: random.Random, noise: float) -> calibrate.Round:
    """A round; every walk takes up to `noise` longer than it should."""

    def taken(cpu_ns: float) -> float:
        return cpu_ns * rng.uniform(1, 1 + noise)

    out = []
    for step, more in ASKS:
        for size, count in SIZES.items():
            asked = count * -(-size // step) * (1 + more)
            served = asked - count
            spent = count * RUN_NS + count * size * CHILD_NS + served * SERVE_NS + count * CALL_NS
            base = 300.0 * count * size
            out.append(
                calibrate.Walks(
                    answered=Walk(taken(base + spent), asked, count, count * size, served),
                    idle=Walk(taken(base), 0),
                    asking=Walk(taken(base + asked * CALL_NS), asked),
                    plain=Walk(taken(base), 0),
                )
            )
    return out


def test_known_costs_are_found_again() -> None:
    exact = calibrate.walk_costs([walks(random.Random(5), 0.0)])
    assert exact["bpf_run_ns"][0] == pytest.approx(RUN_NS, rel=0.02)
    assert exact["bpf_child_ns"][0] == pytest.approx(CHILD_NS, rel=0.02)
    assert exact["serve_ns"][0] == pytest.approx(SERVE_NS, rel=0.02)
    assert exact["stat_ns"][0] == pytest.approx(CALL_NS, rel=0.02)


def test_the_module_is_measured_by_what_the_kernel_takes() -> None:
    found = calibrate.walk_costs([walks(random.Random(5), 0.0)], "module")
    assert found["module_run_ns"][0] == pytest.approx(RUN_NS, rel=0.02)
    assert found["module_child_ratio"][0] == pytest.approx(CHILD_NS / CALL_NS, rel=0.02)
    assert not {"bpf_run_ns", "bpf_child_ns"} & set(found)
    assert set(found) <= {field.name for field in fields(cost.Calibration)}


def test_executors_that_are_here_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate, "MODULE", tmp_path / "cosy")
    assert calibrate.executors() == ["bpf"]
    (tmp_path / "cosy").touch()
    assert calibrate.executors() == ["bpf", "module"]


def test_what_a_slurp_copies_no_executor_saves() -> None:
    """Of files of a few bytes the calls are what they cost; of large ones it is the copying."""
    (small,) = example_file().motifs
    names = {"openat": 2000, "read": 10_000, "close": 1000}
    small.calls = [
        replace(small.calls[0], syscall=name, count=10, time_ns=10 * ns, usual_ns=10 * ns)
        for name, ns in names.items()
    ]
    small.loop = None
    large = replace(small, calls=[replace(call) for call in small.calls])
    large.calls[1].bytes_out = 10 * 90_000
    costs = cost.Calibration(copy_byte_ns=0.1, module_slurp_ratio=0.5)
    assert cost.predict(small, costs)["module"] == pytest.approx(10 * 13_000 / 2, rel=0.2)
    saved = cost.predict(large, costs)["module"]
    assert cost.predict(small, costs)["module"] - saved == pytest.approx(10 * 9000 / 2, abs=300)
    low, high = cost.interval(large, costs)["module"]
    assert low < saved < high


def test_every_prediction_has_an_interval() -> None:
    """Of each executor, measured or not."""
    (loop,) = example_file().motifs
    slow = replace(loop, calls=[replace(c, time_ns=c.count * 10**6) for c in loop.calls])
    ends: dict[str, list[int]] = {}
    saved: dict[str, int] = {}
    for motif, known in ((loop, (0, 0)), (slow, (100, 50_000))):
        costs = cost.Calibration(bpf_run_ns=10.0, bpf_child_ns=10.0)
        ends |= cost.interval(motif, costs, *known)
        saved |= cost.predict(motif, costs, *known)
    assert set(ends) == set(saved) == set(cost.EXECUTORS)
    for executor, (low, high) in ends.items():
        assert low < high, executor


def test_noise_and_disturbed_walks_do_not_move_the_costs() -> None:
    """A busy machine: walks take up to a tenth longer, and those of half the rounds nearly twice as
    long, as on a processor whose host has others to run."""
    rng = random.Random(5)
    rounds = [walks(rng, 0.1) for _ in range(9)]
    for pairs in rounds[::2]:
        for i, pair in enumerate(pairs):
            slow = {
                name: replace(walk, cpu_ns=1.8 * walk.cpu_ns)
                for name in ("answered", "idle", "asking", "plain")
                if (walk := getattr(pair, name)) and rng.random() < 0.7
            }
            pairs[i] = replace(pair, **slow)
    found = calibrate.walk_costs(rounds)
    for name, known in (("bpf_child_ns", CHILD_NS), ("serve_ns", SERVE_NS), ("bpf_run_ns", RUN_NS)):
        cost_ns, error = found[name]
        assert cost_ns == pytest.approx(known, rel=0.15), name
        assert cost.LEAST_ERROR <= error < 0.3, name


def test_the_least_of_the_values_counts() -> None:
    value, error = calibrate.lowest([5.0, 9.0, 5.1, 5.2, 30.0])
    assert value == 5.0
    assert cost.LEAST_ERROR <= error < 0.1
    assert calibrate.lowest([0.0, 0.0, 0.0]) == (0.0, 1.0)


def test_a_stored_calibration_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert cost.here() == cost.Calibration()
    path = cost.stored_path()
    assert path is not None
    costs = cost.Calibration(serve_ns=123.0, errors={"serve_ns": 0.1}, machine="this one")
    cost.save_calibration(costs, path)
    assert cost.here() == costs
    path.write_text('{"errors": 3}')
    with pytest.raises(cost.CalibrationError, match="errors and machine"):
        cost.here()
    path.write_text(json.dumps({"errors": {"no_such_ns": 0.1}}))
    with pytest.raises(cost.CalibrationError, match="no_such_ns"):
        cost.here()


def test_an_interval_holds_the_prediction_and_narrows_with_the_errors() -> None:
    (motif,) = example_file().motifs[:1]
    widths = []
    for error in (0.05, 0.3):
        errors = dict.fromkeys(("serve_ns", "bpf_run_ns", "bpf_child_ns"), error)
        costs = cost.Calibration(bpf_run_ns=10.0, bpf_child_ns=10.0, errors=errors)
        saved = cost.predict(motif, costs)["bpf"]
        low, high = cost.interval(motif, costs)["bpf"]
        assert low <= saved <= high
        widths.append(high - low)
    assert 0 < widths[0] < widths[1]


def test_a_cost_of_earlier_versions_is_passed_over() -> None:
    """Nothing asked for it; a file that has it is as good as one without."""
    old = {"call_ns": 70.0, "byte_ns": 0.05, "errors": {"call_ns": 0.1, "byte_ns": 0.2}}
    costs = cost.calibration_from(old, "old")
    assert (costs.call_ns, costs.errors) == (70.0, {"call_ns": 0.1})
    with pytest.raises(cost.CalibrationError, match="unknown cost 'word_ns'"):
        cost.calibration_from({"word_ns": 1.0}, "new")
