# SPDX-License-Identifier: MIT
"""Names of motifs against labels: what people know of the programs in datasets/.

Recall: labels that some motif of the program bears. Precision: motifs of at least a tenth of the
program's boundary time whose kind is among its labels. Programs that were held out count alone.
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from miner import cost, mine, motifs

ROOT = Path(__file__).resolve().parents[2]
LABELS = Path(__file__).with_name("motif_labels.toml")
MAJOR = 0.1
LEAST = {False: 0.95, True: 0.9}


def labels() -> dict[str, dict[str, Any]]:
    with LABELS.open("rb") as file:
        found: dict[str, dict[str, Any]] = tomllib.load(file)
    return found


def kind_of(name: str) -> str:
    """The label that a motif's name stands for."""
    words = name.split("-")
    if words[0] == "dirscan":
        if "open" in words:  # and removed then, perhaps
            return "dirscan-read"
        if "unlink" in words:
            return "dirscan-unlink"
        if "xattr" in words:
            return "dirscan-stat-xattr"
        return "dirscan-stat-dirs" if words[-1] == "dirs" else "dirscan-stat"
    if words[0] == "serve":
        return "serve"
    if "readlink" in words and words[0] in ("loop", "list", "seq"):
        return "readlinks"
    return name


@cache
def mined(program: str) -> motifs.MotifFile:
    path = ROOT / "datasets" / f"{program}.cosytrace"
    return mine.mine([path], cost.Calibration(), workers=1)


def scores(held_out: bool) -> tuple[float, float, list[str]]:
    """Precision, recall, and what is wrong."""
    right = wrong = found_labels = missed = 0
    notes = []
    for program, label in labels().items():
        if label.get("held_out", False) != held_out:
            continue
        expected = set(label["motifs"])
        found = mined(program)
        time_ns = sum(t.time_ns for t in found.traces)
        kinds = {kind_of(m.name) for m in found.motifs}
        found_labels += len(expected & kinds)
        missed += len(expected - kinds)
        notes += [f"{program}: no {k}" for k in sorted(expected - kinds)]
        for motif in found.motifs:
            if motif.own_ns >= MAJOR * time_ns:
                if kind_of(motif.name) in expected:
                    right += 1
                else:
                    wrong += 1
                    notes.append(f"{program}: {motif.name} {motif.own_ns / time_ns:.0%}")
    return right / max(right + wrong, 1), found_labels / max(found_labels + missed, 1), notes


def test_every_dataset_is_labelled() -> None:
    recorded = {p.name.removesuffix(".cosytrace") for p in (ROOT / "datasets").glob("*.cosytrace")}
    assert recorded == set(labels())


@pytest.mark.parametrize("held_out", [False, True], ids=["looked-at", "held-out"])
def test_precision_and_recall(held_out: bool) -> None:
    precision, recall, notes = scores(held_out)
    print(f"precision {precision:.2f}, recall {recall:.2f}: {notes}")
    assert min(precision, recall) >= LEAST[held_out], (precision, recall, notes)


def test_the_same_motif_of_several_programs_is_one() -> None:
    """Mined together, the walks of du, find, tree and a Python script fall into one cluster."""
    programs = ("du", "find-size", "tree", "python-walk")
    paths = [ROOT / "datasets" / f"{p}.cosytrace" for p in programs]
    found = mine.mine(paths, cost.Calibration(), workers=1)
    mine_them = [m for m in found.motifs if m.cluster == "dirscan-stat"]
    names = {
        Path(exe).name.rstrip("0123456789.") for m in mine_them for exe in m.instances_by_program
    }
    assert {"du", "find", "tree", "python"} <= names
    # By descriptor and by path: two forms, one cluster.
    assert [m.name for m in mine_them] == ["dirscan-stat", "dirscan-stat-2"]
