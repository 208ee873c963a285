# SPDX-License-Identifier: MIT
"""The dataset: what is written is read again, and there is no half of one."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.conftest import ROOT
from tests.unit.raw_builder import Event, RawBuilder, module, process, trace
from tracer import dataset
from tracer.convert import write_dataset
from tracer.dataset import Dataset, Writer, path_bytes, path_text
from tracer.events import DONE, NO_RETURN
from tracer.summary import render, summarize
from tracer.target import DatasetError

META = {
    "backend": "shim",
    "kernel": "6.1",
    "clock": "tsc",
    "command": ["x"],
    "recorded": "2024-01-01T00:00:00+00:00",
    "wall_ns": 10_000,
    "tool_version": "1",
}


def record(folder: Path, *events: Event, lost: int = 0, name: str = "t.cosytrace") -> Dataset:
    raw_folder = folder / "raw"
    raw_folder.mkdir(exist_ok=True)
    first = [process(b"/bin/x", b"x", b"arg"), module(0x1000, b"/lib/libc.so.6")]
    raw = trace(raw_folder, RawBuilder(flushed=[first, list(events)], lost=lost))
    with Writer(folder / name) as writer:
        write_dataset(raw, writer, META)
    return Dataset(folder / name)


def frame(data: Dataset) -> pd.DataFrame:
    return data.events().to_pandas(types_mapper=pd.ArrowDtype)


def test_readers_are_told_how_far_they_are(tmp_path: Path) -> None:
    data = record(tmp_path, *(Event("getpid") for _ in range(10)))
    told: list[tuple[int, int]] = []
    data.progress = lambda done, total: told.append((done, total))
    assert [batch.num_rows for batch in data.batches(["nr"], 4)] == [4, 4, 2]
    assert told == [(4, 10), (8, 10), (10, 10)]


def test_sites_of_programs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    raw_folder = tmp_path / "raw"
    raw_folder.mkdir()
    files = []
    for pid, exe in ((100, b"/a/m1/prog"), (200, b"/a/m2/prog"), (300, b"/b/m2/prog")):
        live = [process(exe, b"prog"), module(0, exe), Event("getpid", site=0x1234)]
        files.append(RawBuilder(pid=pid, tid=pid, start_tsc=1000 + pid, live=live))
    with Writer(tmp_path / "d") as writer:
        write_dataset(trace(raw_folder, *files), writer, META)
    data = Dataset(tmp_path / "d")
    sites = ["prog+0x1234", "m2/prog+0x1234", "b/m2/prog+0x1234"]
    assert data.events()["site"].to_pylist() == sites
    assert [(row["site"], row["module"]) for row in data.sites().to_pylist()] == [
        (sites[0], "/a/m1/prog"),
        (sites[1], "/a/m2/prog"),
        (sites[2], "/b/m2/prog"),
    ]


@pytest.mark.parametrize(
    ("key", "value"), [("wall_ns", "x"), ("lost_events", None), ("command", 3), ("user_ns", [])]
)
def test_metadata_of_another_kind_is_one_clear_line(
    tmp_path: Path, key: str, value: object
) -> None:
    path = shutil.copytree(ROOT / "datasets" / "gcc.cosytrace", tmp_path / "d")
    meta = json.loads((path / "meta.json").read_text())
    (path / "meta.json").write_text(json.dumps({**meta, key: value}))
    with pytest.raises(DatasetError, match=key):
        Dataset(path)


def test_columns(tmp_path: Path) -> None:
    st = struct.pack("<QQQII", 8, 77, 4096, 0o100644, 1)
    hashes = struct.pack("<III", 1, 2, 3)
    data = record(
        tmp_path,
        Event("openat", (2**64 - 100, 0, 0o2000000, 5, 9, 9), ret=3, path=b"dir", site=0x1234),
        Event("getdents64", (3, 0, 32768), ret=96, out=hashes, dur=50),
        Event("newfstatat", (3, 0, 0, 0x100), path=b"f", out=st),
        Event("newfstatat", (3, 0, 0, 0x100), ret=-2, path=b"g"),
        Event("exit_group", (7,), flags=DONE | NO_RETURN),
        lost=3,
    )
    assert data.events().schema.equals(dataset.EVENTS)
    table = frame(data)
    assert table["nr"].tolist() == [257, 217, 262, 262, 231]
    assert table["t_ns"].is_monotonic_increasing
    assert table["dur_ns"].tolist() == [20, 100, 20, 20, 20]
    assert table["ret"].isna().tolist() == [False, False, False, False, True]
    assert table["ret"].tolist()[:4] == [3, 96, 0, -2]
    assert table["path"].tolist() == ["dir", pd.NA, "f", "g", pd.NA]
    assert table["a0"].tolist() == [2**64 - 100, 3, 3, 3, 7]
    assert table[["a4", "a5"]].to_numpy().sum() == 0  # registers that are no arguments
    assert table["names"].tolist()[1] == [1, 2, 3]
    assert table["names"].isna().tolist() == [True, False, True, True, True]
    assert table["st_ino"].tolist() == [pd.NA, pd.NA, 77, pd.NA, pd.NA]
    assert table["st_mode"].tolist()[2] == 0o100644
    assert table["bytes_in"].tolist() == [4, 0, 2, 2, 0]
    assert table["bytes_out"].tolist() == [0, 96, 144, 0, 0]
    assert table["site"].tolist()[0] == "libc.so.6+0x234"
    objects = data.objects().to_pydict()
    assert objects["path"] == ["/home", "/home/dir"]
    assert objects["event"] == [None, 0]
    assert table["object_id"].tolist() == [0, 1, 1, 1, pd.NA]
    who = data.processes().to_pylist()[0]
    assert (who["exe"], who["argv"], who["cwd"], who["exit"]) == (
        "/bin/x",
        ["x", "arg"],
        "/home",
        7 << 8,
    )
    assert data.meta["lost_events"] == 3
    assert data.meta["schema"] == 3


@pytest.mark.parametrize(
    ("call", "args", "ret", "moved"),
    [
        ("read", (3, 0, 100), 40, (0, 40)),
        ("write", (1, 0, 100), 40, (40, 0)),
        ("write", (1, 0, 100), -32, (0, 0)),
        ("writev", (1, 0, 2), 4096, (4096, 0)),
        ("getxattr", (0, 0, 0, 0), 30, (0, 0)),  # asked for the size only
        ("setxattr", (0, 0, 0, 12), 0, (12, 0)),
        ("recvmsg", (3, 0), 25, (0, 25)),
        ("statx", (3, 0), 0, (0, 256)),
        ("lseek", (3, 500), 500, (0, 0)),
        ("mmap", (0, 100, 1, 2, 3), 0x7F0000000000, (0, 0)),
    ],
)
def test_bytes_moved(
    tmp_path: Path, call: str, args: tuple[int, ...], ret: int, moved: tuple[int, int]
) -> None:
    table = frame(record(tmp_path, Event(call, args, ret=ret)))
    assert (table["bytes_in"][0], table["bytes_out"][0]) == moved


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"plain", "plain"),
        ("größe".encode(), "größe"),
        (b"100%", "100%25"),
        (b"%41", "%2541"),
        (b"\xff\xfe/x", "%FF%FE/x"),
        (b"\xc3", "%C3"),
    ],
)
def test_names_that_are_no_text(tmp_path: Path, raw: bytes, text: str) -> None:
    assert path_text(raw) == text
    assert path_bytes(text) == raw
    data = record(tmp_path, Event("unlink", path=raw))
    assert frame(data)["path"][0] == text


@pytest.mark.parametrize(("row_group", "codecs"), [(7, {"ZSTD", "LZ4"}), (41, {"ZSTD"})])
def test_more_events_than_a_row_group(tmp_path: Path, row_group: int, codecs: set[str]) -> None:
    data = record(tmp_path, *[Event("unlink", path=b"%d" % (i % 5)) for i in range(40)])
    with Writer(tmp_path / "small", row_group=row_group) as writer:
        for at in range(0, 40, 9):
            writer.write_events(data.events().slice(at, 9))
        writer.finish(data.processes(), data.objects(), data.meta, data.sites())
    found = Dataset(tmp_path / "small")
    assert found.events() == data.events()
    assert frame(found)["path"].tolist() == [str(i % 5) for i in range(40)]
    assert sum(batch.num_rows for batch in found.batches(["nr"], 7)) == len(found) == 40
    groups = found.events_file.metadata
    sizes = [groups.row_group(i).num_rows for i in range(groups.num_row_groups)]
    assert sizes == [row_group] * (40 // row_group) + [40 % row_group]
    # Many take little time, few little room.
    columns = range(groups.num_columns)
    assert {groups.row_group(0).column(i).compression for i in columns} == codecs


def test_nothing_at_all(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    with Writer(tmp_path / "t") as writer:
        write_dataset(trace(tmp_path / "raw"), writer, META)
    data = Dataset(tmp_path / "t")
    assert len(data) == 0
    assert "0 calls" in render(summarize(data))


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "raw")


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), Writer(tmp_path / "t"):
        raise RuntimeError
    assert leftovers(tmp_path) == []


def test_an_existing_dataset_is_replaced_only_with_force(tmp_path: Path) -> None:
    record(tmp_path, Event("close"), name="t")
    with pytest.raises(DatasetError, match="--force"):
        Writer(tmp_path / "t")
    raw = trace(tmp_path / "raw", RawBuilder(live=[Event("close"), Event("close")]))
    with Writer(tmp_path / "t", force=True) as writer:
        write_dataset(raw, writer, META)
    assert len(Dataset(tmp_path / "t")) == 2
    assert leftovers(tmp_path) == ["t"]


def test_what_is_no_dataset_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "thesis.txt").write_text("years of work")
    with pytest.raises(DatasetError, match="no trace dataset"):
        Writer(tmp_path / "t", force=True)
    assert leftovers(tmp_path) == ["t"]


def damage(path: Path, **changes: Any) -> None:
    meta = json.loads((path / "meta.json").read_text())
    meta.update(changes)
    text = json.dumps({key: value for key, value in meta.items() if value is not None})
    (path / "meta.json").write_text(text)


def test_other_schemas_and_broken_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no trace dataset"):
        Dataset(tmp_path / "t")
    path = record(tmp_path, Event("close"), name="t").path
    damage(path, schema=4)
    with pytest.raises(DatasetError, match="schema 4"):
        Dataset(path)
    damage(path, schema=1, lost_events=None)
    with pytest.raises(DatasetError, match="lost_events"):
        Dataset(path)
    damage(path, lost_events=0)
    (path / "events.parquet").write_bytes(b"PAR1")
    with pytest.raises(DatasetError, match="cannot read"):
        Dataset(path)
    (path / "meta.json").write_text("{")
    with pytest.raises(DatasetError, match="cannot read"):
        Dataset(path)


def test_summary_adds_up(tmp_path: Path) -> None:
    loop = [Event("openat", ret=3), Event("read"), Event("read"), Event("close", (3,))] * 5
    events = [Event(e.nr, e.args, ret=e.ret, dur=50) for e in loop]
    data = record(tmp_path, *events, Event("stat", ret=-2, dur=0))
    summary = summarize(data)
    assert {row.call: row.calls for row in summary.rows} == {
        "openat": 5,
        "read": 10,
        "close": 5,
        "stat": 1,
    }
    assert (summary.calls, summary.errors, summary.inside_ns) == (21, 1, 20 * 100)
    assert sum(row.share for row in summary.rows) == pytest.approx(1)
    best = summary.sequences[0]
    assert (best.calls, best.count) == (["openat", "read+", "close"], 5)
    assert best.calls_covered == pytest.approx(20 / 21)
    assert best.time_covered == pytest.approx(1)


def test_summary_fits_a_terminal(tmp_path: Path) -> None:
    events = [
        Event("getdents64", (3, 0, 1 << 40), ret=1 << 39, dur=1 << 38),
        Event("inotify_add_watch", ret=-1),
        Event("rt_sigtimedwait"),
    ] * 3
    text = render(summarize(record(tmp_path, *events, lost=12345678)))
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "lost events: 12,345,678" in text
