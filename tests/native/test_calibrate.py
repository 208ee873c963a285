# SPDX-License-Identifier: MIT
"""cosy-doctor --calibrate on this machine: every cost that can be measured is."""

from __future__ import annotations

import pytest

from synth import calibrate, doctor
from tracer import native


def test_this_machine_is_measured() -> None:
    try:
        native.find("cosy-probe")
    except native.NativeFileError as error:
        pytest.skip(str(error))
    costs = calibrate.calibrate(rounds=3, sizes={8: 64, 64: 16, 256: 4})
    assert costs.machine.endswith(("isolation on", "isolation off"))
    assert {"call_ns", "trace_ns", "stat_ns"} <= set(costs.errors)
    # Asking for attributes is more than crossing the boundary.
    assert 0 < costs.call_ns < costs.stat_ns < 100_000
    if not doctor.executor_bpf().ok:
        pytest.skip(f"executor not measured: {doctor.executor_bpf().detail}")
    assert {"bpf_run_ns", "bpf_child_ns", "serve_ns", "watch_ns"} <= set(costs.errors)
    # Costs that least squares divide: of which there is how much, a busy machine disturbs.
    assert costs.bpf_run_ns + costs.bpf_child_ns + costs.serve_ns > 0
