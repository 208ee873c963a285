# SPDX-License-Identifier: MIT
"""Names and clusters of motifs against labels: what people know of the programs in datasets/.

Two ways: each program mined alone, those that were held out apart; and each program left out once:
what it adds to the clusters of all the others must bear its labels.
"""

from __future__ import annotations

import copy
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from miner import cluster, cost, execution, mine, pieces
from miner.motifs import MotifFile, TraceInfo
from miner.partial import Partial
from tests import labels

ROOT = Path(__file__).resolve().parents[2]
LABELS = labels.read(Path(__file__).with_name("motif_labels.toml"))
LEAST = {False: 0.95, True: 0.9}
LEAST_LEFT_OUT = 0.9


def dataset(program: str) -> Path:
    return ROOT / "datasets" / f"{program}.cosytrace"


@cache
def part(program: str) -> tuple[TraceInfo, Partial]:
    """What was found in the trace of one program, before it is put together with others."""
    trace, parts = pieces.open_trace(dataset(program))
    with execution.local(trace.rows, 1) as run:
        whole = Partial()
        for partial in run(pieces.tasks(trace, parts)):
            mine._add(whole, partial)
    return mine._info(program, trace, whole.work_ns), whole


def mined(*programs: str) -> MotifFile:
    """These programs, mined together."""
    found = [copy.deepcopy(part(program)) for program in programs]
    return mine.rank([info for info, _ in found], [p for _, p in found], cost.Calibration())


def test_every_dataset_is_labelled() -> None:
    recorded = {p.name.removesuffix(".cosytrace") for p in (ROOT / "datasets").glob("*.cosytrace")}
    assert recorded == set(LABELS)
    assert all(reason for label in LABELS.values() for reason in label["motifs"].values())


@pytest.mark.parametrize("held_out", [False, True], ids=["looked-at", "held-out"])
def test_precision_and_recall(held_out: bool) -> None:
    score = labels.Score()
    for program, label in LABELS.items():
        if label.get("held_out", False) == held_out:
            score.add(program, label["motifs"], labels.own_shares(mined(program)))
    print(score)
    assert min(score.precision, score.recall) >= LEAST[held_out], str(score)


def sizes(found: MotifFile) -> tuple[Counter[str], Counter[str]]:
    """Calls and own time of each cluster."""
    calls: Counter[str] = Counter()
    own_ns: Counter[str] = Counter()
    for motif in found.motifs:
        calls[motif.cluster] += motif.crossings
        own_ns[motif.cluster] += motif.own_ns
    return calls, own_ns


def test_a_program_left_out_joins_the_clusters_of_the_others() -> None:
    score = labels.Score()
    calls, own_ns = sizes(mined(*LABELS))
    for program, label in LABELS.items():
        others_calls, others_ns = sizes(mined(*(p for p in LABELS if p != program)))
        time_ns = part(program)[0].time_ns
        added = {
            name: (own_ns[name] - others_ns[name]) / time_ns
            for name in calls
            if calls[name] > others_calls[name]
        }
        score.add(program, label["motifs"], added)
    print(score)
    assert min(score.precision, score.recall) >= LEAST_LEFT_OUT, str(score)


def test_the_same_motif_of_several_programs_is_one() -> None:
    """Mined together, the walks of du, find, tree and a Python script fall into one cluster."""
    found = mined("du", "find-size", "tree", "python-walk")
    theirs = [m for m in found.motifs if m.cluster == "dirscan-stat"]
    names = {Path(exe).name.rstrip("0123456789.") for m in theirs for exe in m.instances_by_program}
    assert {"du", "find", "tree", "python"} <= names
    # By descriptor and by path: two forms, one cluster.
    assert [m.name for m in theirs] == ["dirscan-stat", "dirscan-stat-2"]


def test_the_floor_fails_where_naming_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one rule of naming gone, the score is below it."""
    monkeypatch.setattr(cluster, "_file_name", lambda _motif: "file")
    score = labels.Score()
    for program, label in LABELS.items():
        if not label.get("held_out", False):
            score.add(program, label["motifs"], labels.own_shares(mined(program)))
    assert min(score.precision, score.recall) < LEAST[True], str(score)
