# SPDX-License-Identifier: MIT
"""The shipped datasets: whole, small, and nobody's private business."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from synth import shipped
from synth.compile import load_profile
from synth.language import Compound, Profile
from tests.conftest import ROOT
from tracer.dataset import Dataset
from tracer.syscalls import by_name

FOLDER = ROOT / "datasets"
PROGRAMS = tomllib.loads((FOLDER / "programs.toml").read_text())["programs"]
PRIVATE = re.compile(r"^/(home|root|work|media|mnt|srv)(/|$)")


def strings(data: Dataset) -> set[str]:
    """Every string that a dataset holds."""
    found: set[str | None] = set(data.meta["command"])
    for table in (data.events(), data.processes(), data.objects(), data.sites()):
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


@pytest.fixture(scope="module")
def mined() -> Profile:
    return shipped.profile()


def plain(profile: Profile) -> Profile:
    """Without the evidence, some of which says what the compounds are expected to save."""
    compounds = tuple(dataclasses.replace(c, evidence=()) for c in profile.compounds)
    return dataclasses.replace(profile, compounds=compounds)


def sources(compound: Compound) -> dict[str, int]:
    """Calls by trace, as the evidence lists them."""
    text = " ".join(compound.evidence).partition("(calls of this kind): ")[2]
    return {
        name: int(count.replace(",", ""))
        for name, count in re.findall(r"([a-z0-9-]+) ([\d,]+)(?:;| would| expected)", text)
    }


def test_the_shipped_profile_is_what_the_datasets_give(mined: Profile) -> None:
    """When this fails: `make profile`, and look at what has changed."""
    assert plain(load_profile(shipped.TEXT)) == plain(mined)


def test_each_compound_names_the_traces_that_it_came_from(mined: Profile) -> None:
    for compound, anew in zip(load_profile(shipped.TEXT).compounds, mined.compounds, strict=True):
        named = sources(compound)
        assert len(named) >= 2
        assert named == sources(anew)
        calls = (*compound.serves, *compound.triggers)
        kinds = {by_name()[pattern.call].nr for pattern in calls}
        kinds |= {by_name()[call.name].nr for call in compound.body}
        for name, count in named.items():
            made = Dataset(FOLDER / f"{name}.cosytrace").events().column("nr").to_pylist()
            assert 0 < count <= sum(nr in kinds for nr in made)
