# SPDX-License-Identifier: MIT
"""-e trace=SET and -P PATH."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

import miner
from miner import report
from tests.unit.raw_builder import Event, RawBuilder, process, trace
from tracer import formats
from tracer.convert import write_dataset
from tracer.dataset import Dataset, Writer
from tracer.filters import FilterError, make, parse_calls
from tracer.summary import render, summarize
from tracer.syscalls import by_name, name_of

CWD = 0xFFFFFF9C


def kept(folder: Path, expressions: list[str], paths: list[str]) -> tuple[list[Any], Dataset]:
    """Calls that are kept of a process that opens, reads and closes two files, and the dataset."""
    live = [
        process(b"/bin/x", b"x", cwd=b"/d"),
        Event("openat", (CWD,), ret=3, path=b"one"),
        Event("read", (3,), ret=5),
        Event("openat", (CWD,), ret=4, path=b"/d/sub/../two"),
        Event("read", (4,), ret=6),
        Event("close", (3,)),
        Event("rename", (), path=b"/d/three", path2=b"/d/two"),
        Event("getpid"),
    ]
    raw_folder = folder / "raw"
    raw_folder.mkdir()
    raw = trace(raw_folder, RawBuilder(live=live))
    meta: dict[str, Any] = {"backend": "", "kernel": "", "clock": "", "command": [], "recorded": ""}
    with Writer(folder / "t") as writer:
        meta |= {"wall_ns": 0, "tool_version": ""}
        write_dataset(raw, writer, meta, kept=make(expressions, paths))
    data = Dataset(folder / "t")
    rows = data.events(["nr", "ret"]).to_pylist()
    return [(name_of(row["nr"]), row["ret"]) for row in rows], data


def test_calls_by_name_class_and_negation(tmp_path: Path) -> None:
    numbers = {name: call.nr for name, call in by_name().items()}
    assert parse_calls("trace=read,close") == {numbers["read"], numbers["close"]}
    assert parse_calls("openat") == {numbers["openat"]}
    assert numbers["openat"] in parse_calls("%file") & parse_calls("%desc")
    assert numbers["read"] not in parse_calls("%file")
    assert numbers["fork"] in parse_calls("%process")
    assert parse_calls("!%file") == parse_calls("all") - parse_calls("%file")
    assert parse_calls("none") == set()
    assert parse_calls("trace=file,read") == parse_calls("%file,read"), "strace's older form"
    assert numbers["newfstatat"] in parse_calls("%pure") & parse_calls("%stat")
    for wrong in ("trace=nosuch", "%nosuch", "signal=SIGINT", ""):
        with pytest.raises(FilterError):
            parse_calls(wrong)
    calls, data = kept(tmp_path, ["trace=read"], [])
    assert calls == [("read", 5), ("read", 6)]
    assert data.meta["filter"] == {"calls": ["read"], "paths": []}


def test_what_a_descriptor_means_is_known_without_its_open(tmp_path: Path) -> None:
    _, data = kept(tmp_path, ["read,close"], [])
    path = {o["object_id"]: (o["path"], o["event"]) for o in data.objects().to_pylist()}
    ids = data.events(["object_id"])["object_id"].to_pylist()
    assert [path[i] for i in ids] == [("/d/one", None), ("/d/two", None), ("/d/one", None)]


def test_rows_of_objects_follow(tmp_path: Path) -> None:
    _, data = kept(tmp_path, ["!read"], [])
    events = data.events(["path"])["path"].to_pylist()
    opened = {o["path"]: o["event"] for o in data.objects().to_pylist() if o["event"] is not None}
    assert {path: events[row] for path, row in opened.items()} == {
        "/d/one": "one",
        "/d/two": "/d/sub/../two",
    }


def test_paths_by_name_and_by_descriptor(tmp_path: Path) -> None:
    calls, _ = kept(tmp_path, [], ["/d/one"])
    assert calls == [("openat", 3), ("read", 5), ("close", 0)]


@pytest.mark.parametrize("filters", [(["trace=read"], []), ([], ["/d/two"]), (["none"], [])])
def test_summaries_say_so_and_nothing_of_what_was_left_out(
    tmp_path: Path, filters: tuple[list[str], list[str]]
) -> None:
    _, data = kept(tmp_path, *filters)
    summary = summarize(data)
    plain = summary.as_dict()
    assert plain["filter"] == data.meta["filter"]
    assert (plain["own_ns"], plain["sequences"]) == (None, [])
    assert plain["boundary"]["removable_calls"] == 0
    text = render(summary)
    assert "filter: of these calls only: " in text
    assert "between calls" not in text
    (tmp_path / "all").mkdir()
    whole = summarize(kept(tmp_path / "all", [], [])[1])
    assert whole.as_dict()["filter"] is None
    assert whole.own_ns
    assert "filter" not in render(whole)


def test_the_miner_names_filtered_traces(tmp_path: Path) -> None:
    _, data = kept(tmp_path, ["read"], [])
    assert any("FILTERED" in line for line in report.lines(miner.load(data.path).file, 1))


def test_stacks_of_a_filtered_trace_hold_its_calls_only(tmp_path: Path) -> None:
    _, data = kept(tmp_path, ["read"], [])
    inside = sum(data.events(["dur_ns"])["dur_ns"].to_pylist())
    text = io.StringIO()
    formats.speedscope(data, text)
    assert sum(json.loads(text.getvalue())["profiles"][0]["weights"]) == inside


def test_second_paths_and_names_joined(tmp_path: Path) -> None:
    calls, _ = kept(tmp_path, [], ["/d/two"])
    assert calls == [("openat", 4), ("read", 6), ("rename", 0)]


def test_both(tmp_path: Path) -> None:
    calls, _ = kept(tmp_path, ["read"], ["/d/two"])
    assert calls == [("read", 6)]
    assert make([], []) is None
