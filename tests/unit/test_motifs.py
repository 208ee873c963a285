# SPDX-License-Identifier: MIT
"""The motif file: what is saved is what is loaded, and nothing else is accepted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from miner import motifs as m


def example_file() -> m.MotifFile:
    """A file with one loop, close to what `du` gives."""
    none = m.Arg(m.ArgKind.NONE)
    stat = m.Call(
        syscall="newfstatat",
        nr=262,
        sclass="pure",
        args=[
            m.Arg(m.ArgKind.DIR),
            m.Arg(m.ArgKind.NAME),
            m.Arg(m.ArgKind.OUT, value=144),
            m.Arg(m.ArgKind.CONST, value=256),
            none,
            none,
        ],
        flags=[m.Seen(256, 40)],
        mask=[],
        optional=False,
        share=1.0,
        per_iteration=1.0,
        count=40,
        time_ns=40_000,
        errors=0,
        error_names={},
        bytes_in=200,
        bytes_out=5760,
        types={"file": 35, "dir": 5},
        xattrs=[],
    )
    loop = m.Loop(
        over=m.Over.ENTRIES,
        instances=6,
        iterations=40,
        per_instance={"p50": 6.0},
        entries={"p50": 6.0},
        entries_total=40,
        scanned=6,
        untouched=0,
        coverage={"file": 1.0, "dir": 1.0},
        in_order=1.0,
        depth=m.Depth(descends=1.0, interleaved=1.0, histogram=[1, 5], max=1),
    )
    motif = m.Motif(
        name="dirscan-stat",
        kind=m.Kind.LOOP,
        loop=loop,
        calls=[stat],
        pure=True,
        crossings=40,
        time_ns=40_000,
        bytes=5960,
        share=0.5,
        instances_by_program={"/usr/bin/du": 6},
        build_ids={"/usr/bin/du": "00ff"},
        continuation=[m.Continuation(1, 0, 4, 6, 5, 34, 34, 40)],
        continuation_files=[],
        example=['newfstatat(4, "f1", AT_SYMLINK_NOFOLLOW) = 0'],
        predicted={"bpf": 30_000},
        members=["dirscan-stat"],
    )
    trace = m.TraceInfo("du.cosytrace", ["du", "-s"], "shim", 60, 0, 80_000, 100_000)
    return m.MotifFile([trace], {}, [motif])


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "x.motifs.json"
    m.save(example_file(), path)
    assert m.load(path) == example_file()
    assert [p.name for p in tmp_path.iterdir()] == ["x.motifs.json"]


def test_derived_numbers_are_written() -> None:
    row = m.to_json(example_file())["motifs"][0]["continuation"][0]
    assert row["probability"] == pytest.approx(5 / 6, abs=1e-6)
    assert row["expected_remaining"] == pytest.approx(34 / 6, abs=1e-3)


Change = Callable[[dict[str, Any]], object]
BAD: dict[str, tuple[Change, str]] = {
    "schema": (lambda v: v.update(schema=99), "schema 99"),
    "no schema": (lambda v: v.pop("schema"), "no motif file"),
    "unknown field": (lambda v: v["motifs"][0].update(colour=1), r"motifs\[0\]: unknown field"),
    "missing field": (lambda v: v["motifs"][0].pop("share"), "'share' is missing"),
    "wrong type": (lambda v: v["motifs"][0]["calls"][0].update(nr="262"), r"calls\[0\].nr"),
    "bool as int": (lambda v: v["motifs"][0]["calls"][0].update(nr=True), r"calls\[0\].nr"),
    "bad kind": (lambda v: v["motifs"][0].update(kind="spiral"), "'spiral' is none of loop"),
    "loop without loop": (lambda v: v["motifs"][0].update(loop=None), "contradict"),
    "no calls": (lambda v: v["motifs"][0].update(calls=[]), "no calls"),
    "twice": (lambda v: v["motifs"].append(v["motifs"][0]), "not unique"),
    "dangling": (
        lambda v: v["motifs"][0]["calls"][0]["args"][0].update(kind="result", call=1),
        "refers to no call",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused(case: str, tmp_path: Path) -> None:
    change, message = BAD[case]
    value = json.loads(json.dumps(m.to_json(example_file())))
    change(value)
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(value))
    with pytest.raises(m.MotifFileError, match=message):
        m.load(path)


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"[1, 2", b"[]", b"null", b"[" * 100_000])
def test_other_files_are_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(data)
    with pytest.raises(m.MotifFileError):
        m.load(path)


def test_save_leaves_the_old_file_when_it_fails(tmp_path: Path) -> None:
    path = tmp_path / "x.motifs.json"
    m.save(example_file(), path)
    broken = example_file()
    broken.calibration = {"x": object()}
    with pytest.raises(TypeError):
        m.save(broken, path)
    assert m.load(path) == example_file()
    assert [p.name for p in tmp_path.iterdir()] == ["x.motifs.json"]


def test_the_documents_name_this_version() -> None:
    docs = Path(__file__).parents[2] / "docs"
    assert f"Schema version {m.SCHEMA}." in (docs / "motifs.md").read_text()
    assert f'{{"schema": {m.SCHEMA}, "traces"' in (docs / "architecture.md").read_text()
