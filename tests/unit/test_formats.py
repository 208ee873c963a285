# SPDX-License-Identifier: MIT
"""Exports: what other tools read, checked against what they expect."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.conftest import ROOT
from tracer import export, formats
from tracer.convert import write_dataset
from tracer.dataset import Dataset, Writer
from tracer.strace_text import Importer
from tracer.stream import StreamWriter, read_stream
from tracer.syscalls import name_of


@pytest.fixture(params=["gcc", "rsync", "xz-threads", "sqlite-insert"])
def data(request: pytest.FixtureRequest) -> Dataset:
    return Dataset(ROOT / "datasets" / f"{request.param}.cosytrace")


def written(data: Dataset, name: str) -> str:
    file = io.StringIO()
    formats.WRITERS[name][0](data, file)
    return file.getvalue()


def total_ns(data: Dataset) -> int:
    return int(sum(data.events(["dur_ns"])["dur_ns"].to_pylist()))


def test_perfetto_is_the_trace_event_format(data: Dataset) -> None:
    document = json.loads(written(data, "perfetto"))
    events = document["traceEvents"]
    names = {e["pid"]: e["args"]["name"] for e in events if e["ph"] == "M"}
    slices = [e for e in events if e["ph"] in "Xi"]
    assert len(slices) == len(data)
    assert set(names) >= {e["pid"] for e in slices}
    reached: dict[int, list[float]] = {}
    for event in slices:
        assert event["ts"] >= 0
        if event["ph"] == "i":
            assert event["s"] == "t"
            continue
        # Slices of a track must nest, else the UI drops them.
        open_until = reached.setdefault(event["tid"], [])
        while open_until and open_until[-1] <= event["ts"]:
            open_until.pop()
        end = event["ts"] + event["dur"]
        assert not open_until or end <= open_until[-1] + 0.002
        open_until.append(end)
    assert sum(e.get("dur", 0) for e in slices) * 1000 == pytest.approx(total_ns(data), rel=1e-6)


def test_perfetto_of_no_calls_is_json(data: Dataset, tmp_path: Path) -> None:
    with Writer(tmp_path / "none") as out:
        out.finish(data.processes(), data.objects(), data.meta)
    document = json.loads(written(Dataset(tmp_path / "none"), "perfetto"))
    assert {event["ph"] for event in document["traceEvents"]} == {"M"}


def test_perfetto_opens_in_the_trace_processor(data: Dataset, tmp_path: Path) -> None:
    shell = os.environ.get("TRACE_PROCESSOR") or shutil.which("trace_processor_shell")
    if not shell:
        pytest.skip(
            "no trace_processor_shell: the package `perfetto` fetches it at run time; "
            "set TRACE_PROCESSOR to it"
        )
    (tmp_path / "t.json").write_text(written(data, "perfetto"))
    query = "select count(*) from slice;"
    (tmp_path / "q").write_text(query)
    done = subprocess.run([shell, "-q", tmp_path / "q", tmp_path / "t.json"], check=True,
                          capture_output=True, text=True)  # fmt: skip
    assert str(len(data)) in done.stdout


def test_strace_text_can_be_imported(data: Dataset, tmp_path: Path) -> None:
    text = written(data, "strace")
    with StreamWriter(tmp_path / "s") as records:
        importer = Importer(records)
        for _ in importer.read(text.encode().splitlines(keepends=True)):
            pass
    assert importer.unread == 0
    meta = {"backend": "strace", "kernel": "", "clock": "", "command": importer.command}
    meta |= {"recorded": "", "wall_ns": 0, "tool_version": ""}
    with Writer(tmp_path / "d") as out:
        write_dataset(read_stream(tmp_path / "s"), out, meta, importer.inherited)
    again = Dataset(tmp_path / "d")
    assert importer.command == data.meta["command"]

    def essence(of: Dataset) -> Counter[tuple[Any, ...]]:
        columns = ["tid", "nr", "ret", "path", "path2", "st_mode", "st_size"]
        return Counter(
            (e["tid"], name_of(e["nr"]), e["ret"], e["path"], e["path2"], e["st_mode"])
            for e in of.events(columns).to_pylist()
            if not name_of(e["nr"]).startswith("exec")
        )

    assert essence(again) == essence(data)


def test_csv_has_a_line_for_each_call(data: Dataset) -> None:
    rows = list(csv.DictReader(io.StringIO(written(data, "csv"))))
    assert len(rows) == len(data)
    nr = data.events(["nr"])["nr"].to_pylist()
    assert Counter(row["call"] for row in rows) == Counter(map(name_of, nr))
    assert sum(int(row["dur_ns"]) for row in rows) == total_ns(data)
    failed = [row for row in rows if row["error"]]
    assert failed
    assert all(int(row["ret"]) < 0 for row in failed)


def test_stacks_hold_all_the_time(data: Dataset) -> None:
    lines = [line.rsplit(" ", 1) for line in written(data, "folded").splitlines()]
    us = sum(int(count) for _, count in lines)
    assert us * 1000 >= total_ns(data) * 0.95 - 1000 * len(lines)
    assert all(";" not in count for _, count in lines)
    document = json.loads(written(data, "speedscope"))
    (profile,) = document["profiles"]
    assert len(profile["samples"]) == len(profile["weights"])
    assert sum(profile["weights"]) == profile["endValue"] >= total_ns(data)
    frames = len(document["shared"]["frames"])
    assert all(0 <= at < frames for sample in profile["samples"] for at in sample)


# By object of speedscope's file format (its file-format-spec.ts): what must be there, and what may.
SPEEDSCOPE: dict[str, tuple[dict[str, type], dict[str, type]]] = {
    "file": (
        {"$schema": str, "shared": dict, "profiles": list},
        {"name": str, "activeProfileIndex": int, "exporter": str},
    ),
    "shared": ({"frames": list}, {}),
    "frame": ({"name": str}, {"file": str, "line": int, "col": int}),
    "sampled": (
        {"type": str, "name": str, "unit": str, "startValue": int, "endValue": int,
         "samples": list, "weights": list},
        {},
    ),
}  # fmt: skip
UNITS = {"none", "nanoseconds", "microseconds", "milliseconds", "seconds", "bytes"}


def check_object(found: dict[str, Any], name: str) -> None:
    must, may = SPEEDSCOPE[name]
    assert set(must) <= set(found) <= set(must) | set(may)
    for key, value in found.items():
        assert type(value) is (must | may)[key], key


def test_speedscope_is_the_file_format(data: Dataset) -> None:
    document = json.loads(written(data, "speedscope"))
    check_object(document, "file")
    assert document["$schema"] == "https://www.speedscope.app/file-format-schema.json"
    check_object(document["shared"], "shared")
    for frame in document["shared"]["frames"]:
        check_object(frame, "frame")
    (profile,) = document["profiles"]
    check_object(profile, "sampled")
    assert profile["type"] == "sampled"
    assert profile["unit"] in UNITS
    assert all(type(frame) is int for sample in profile["samples"] for frame in sample)
    assert all(type(weight) is int and weight > 0 for weight in profile["weights"])


def test_files_are_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    dataset = str(ROOT / "datasets" / "gcc.cosytrace")
    run = CliRunner().invoke
    assert run(export.main, ["--format", "csv", dataset]).exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["gcc.csv"]
    again = run(export.main, ["--format", "csv", dataset])
    assert again.exit_code == 1
    assert "--force" in again.output
    assert run(export.main, ["--format", "csv", "--force", dataset]).exit_code == 0
    packed = run(export.main, ["--format", "perfetto", "-o", "t.json.gz", dataset])
    assert packed.exit_code == 0
    assert (tmp_path / "t.json.gz").read_bytes()[:2] == b"\x1f\x8b"
    assert run(export.main, ["--format", "csv", "none"]).exit_code == 1
    assert run(export.main, ["--format", "csv", "-o", "no/such/x", dataset]).exit_code == 1
    assert run(export.main, ["--format", "nothing", dataset]).exit_code == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gcc.csv", "t.json.gz"]
