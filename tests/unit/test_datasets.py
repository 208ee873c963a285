# SPDX-License-Identifier: MIT
"""The shipped datasets: whole, small, and nobody's private business."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.conftest import ROOT
from tracer.dataset import Dataset

FOLDER = ROOT / "datasets"
PROGRAMS = tomllib.loads((FOLDER / "programs.toml").read_text())["programs"]
PRIVATE = re.compile(r"^/(home|root|work|media|mnt|srv)(/|$)")


def strings(data: Dataset) -> set[str]:
    """Every string that a dataset holds."""
    found: set[str | None] = set(data.meta["command"])
    for table in (data.events(), data.processes(), data.objects()):
        for column in table.columns:
            kind = column.type
            if pa.types.is_dictionary(kind) or pa.types.is_string(kind):
                found.update(pc.unique(column).to_pylist())
            elif pa.types.is_list(kind) and pa.types.is_string(kind.value_type):
                found.update(word for words in column.to_pylist() for word in words)
    return {word for word in found if word}


def test_all_that_is_described_is_there_and_nothing_else() -> None:
    assert {path.name for path in FOLDER.glob("*.cosytrace")} == {
        f"{name}.cosytrace" for name in PROGRAMS
    }
    assert len(PROGRAMS) >= 20


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_dataset_is_whole_small_and_public(name: str) -> None:
    path = FOLDER / f"{name}.cosytrace"
    data = Dataset(path)
    assert len(data) > 100
    assert data.meta["lost_events"] == 0
    assert data.meta["unseen_programs"] == []
    assert sum(file.stat().st_size for file in Path(path).iterdir()) <= 2_000_000
    assert [word for word in strings(data) if PRIVATE.match(word)] == []
