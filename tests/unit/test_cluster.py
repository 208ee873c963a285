# SPDX-License-Identifier: MIT
"""Clusters of signatures, names by content, and what the cost model makes of them."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path

import numpy as np
import pytest

from miner import cluster, cost, mine, motifs
from tests.unit.test_motifs import example_file
from tests.unit.trace_builder import AT_FDCWD, TraceBuilder, random_tree, run


def traces(tmp_path: Path, *programs: str, depth: int = 5) -> list[Path]:
    """A dataset per program, all over the same tree."""
    tree = random_tree(random.Random(5), depth, 20)
    out = []
    for name in programs:
        builder = TraceBuilder()
        program = builder.program(f"/usr/bin/{name}")
        if name == "ls":
            run(program.ls("top", tree))
        elif name == "find-name":
            run(program.du(AT_FDCWD, "top", tree, stat_files=False))
        else:
            walk = {"du": program.du, "find-size": program.du, "tar": program.tar}
            run(walk.get(name, program.grep)(AT_FDCWD, "top", tree))
        out.append(builder.write(tmp_path / f"{name}.cosytrace"))
    return out


def test_distance_is_ruzicka() -> None:
    matrix = cluster.distances([{"a": 1.0}, {"a": 0.5, "b": 0.5}, {"c": 1.0}, {}])
    assert matrix == pytest.approx(matrix.T)
    assert np.diag(matrix) == pytest.approx(0.0)
    assert matrix[0, 1] == pytest.approx(1 - 0.5 / 1.5)
    assert matrix[0, 2] == 1.0


def test_clusters_hold_every_signature_once() -> None:
    rng = random.Random(0)
    centers = [{"a": 1.0, "b": 1.0}, {"c": 1.0}, {"a": 0.1, "d": 1.0, "e": 1.0}]
    signatures: list[cluster.Signature] = []
    truth = []
    for _ in range(60):
        i = rng.randrange(3)
        noisy = {k: min(1.0, v * rng.uniform(0.9, 1.1)) for k, v in centers[i].items()}
        signatures.append(noisy)
        truth.append(i)
    weights = [rng.uniform(1, 5) for _ in signatures]
    found = cluster.clusters(signatures, weights)
    assert len(found) == 3
    assert sorted(i for c in found for i in c.members) == list(range(60))
    for group in found:
        assert group.members[0] == group.medoid
        assert len({truth[i] for i in group.members}) == 1
    heaviest = [sum(weights[i] for i in c.members) for c in found]
    assert heaviest == sorted(heaviest, reverse=True)
    assert cluster.clusters(signatures, weights) == found


def test_no_and_single_signature() -> None:
    assert cluster.clusters([], []) == []
    assert cluster.clusters([{}], [1.0]) == [cluster.Cluster(0, [0])]


def test_programs_with_the_same_loop_become_one_motif(tmp_path: Path) -> None:
    paths = traces(tmp_path, "du", "find-size", "tar", "ls", "find-name", "grep")
    found = mine.mine(paths, cost.Calibration(bpf_run_ns=1100.0))
    by_name = {m.name: m for m in found.motifs if m.loop and m.loop.over is motifs.Over.ENTRIES}
    assert {n: {p.rsplit("/")[-1] for p in m.instances_by_program} for n, m in by_name.items()} == {
        "dirscan-stat": {"du", "find-size", "tar"},
        "dirscan-stat-xattr": {"ls"},
        "dirscan-stat-dirs": {"find-name"},
        "dirscan-open-stat-read": {"grep"},
    }
    merged = by_name["dirscan-stat"]
    alone = [mine.mine([p], cost.Calibration()).motifs for p in paths[:3]]
    parts = [m for ms in alone for m in ms if m.name == "dirscan-stat"]
    assert merged.crossings == sum(p.crossings for p in parts)
    assert merged.time_ns == sum(p.time_ns for p in parts)
    assert merged.loop is not None
    assert merged.loop.scanned == sum(p.loop.scanned for p in parts if p.loop)
    # Walking alone must never pay: it asks for the directories and nothing else.
    assert by_name["dirscan-stat-dirs"].predicted == {}
    assert set(merged.predicted) >= {"bpf", "module"}
    savings = [max(m.predicted.values(), default=0) for m in found.motifs]
    assert savings == sorted(savings, reverse=True)


def test_mining_twice_gives_the_same(tmp_path: Path) -> None:
    paths = traces(tmp_path, "du", "ls", "grep", depth=3)
    one = motifs.to_json(mine.mine(paths, cost.Calibration()))
    assert one == motifs.to_json(mine.mine(paths, cost.Calibration()))
    names = [m["name"] for m in one["motifs"]]
    other_order = motifs.to_json(mine.mine(paths[::-1], cost.Calibration()))
    assert sorted(names) == sorted(m["name"] for m in other_order["motifs"])
    assert motifs.from_json(json.loads(json.dumps(one))).motifs


def loop_with(rows: list[tuple[int, int, int]], time_ns: int = 1000) -> motifs.Motif:
    """The example motif with continuation rows (n, entries of each directory, directories)."""
    motif = example_file().motifs[0]
    motif.calls[0].time_ns = time_ns * motif.calls[0].count
    motif.continuation = [
        motifs.Continuation(n, m, m, count, count, (m - n) * count, (m - n) * count, m * count)
        for n, m, count in rows
    ]
    return motif


def test_placement_weighs_savings_against_waste() -> None:
    costs = cost.Calibration(serve_ns=0, bpf_run_ns=1000, bpf_child_ns=100)
    everything = loop_with([(1, 2, 10), (1, 100, 10)])
    best = cost.placement(everything, "bpf", costs)
    # A directory of 2: 1 child left at 1000 ns, costs 1200. One of 100: 99,000 for 11,000.
    assert best == cost.Placement(10 * (99_000 - 11_000), 1, 100, False)
    assert cost.placement(loop_with([(1, 2, 10)]), "bpf", costs) is None
    cheap = loop_with([(1, 100, 10)], time_ns=50)
    assert cost.placement(cheap, "bpf", costs) is None


def test_what_cannot_be_answered_saves_nothing() -> None:
    motif = loop_with([(1, 100, 10)])
    motif.calls[0].syscall = "readlinkat"
    assert cost.placement(motif, "bpf", cost.Calibration()) is None
    motif.calls[0].sclass = "mutating"
    assert cost.placement(motif, "module", cost.Calibration()) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "expected a JSON object"),
        ("{", "cannot read calibration"),
        ('{"warp": 9}', "unknown cost 'warp'"),
        ('{"serve_ns": -1}', "no positive number"),
        ('{"serve_ns": "1"}', "no positive number"),
        ('{"serve_ns": NaN}', "no positive number"),
        ('{"serve_ns": true}', "no positive number"),
    ],
)
def test_bad_calibrations(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(cost.CalibrationError, match=message):
        cost.load_calibration(path)


def test_calibration_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    costs = dataclasses.replace(cost.Calibration(), bpf_child_ns=12.5)
    path.write_text(json.dumps(costs.to_json()))
    assert cost.load_calibration(path) == costs
    path.write_text("{}")
    assert cost.load_calibration(path) == cost.Calibration()
