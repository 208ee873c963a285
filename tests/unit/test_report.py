# SPDX-License-Identifier: MIT
"""cosy-report: one page that needs nothing else, says what was lost, and trusts no name."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner

from miner import cost, mine, motifs
from miner.flow import edges
from miner.page import page
from miner.report_cli import main
from tests.unit.test_bodies import slurp
from tests.unit.trace_builder import TraceBuilder, run

ROOT = Path(__file__).resolve().parents[2]
DATASETS = ROOT / "datasets"
_VOID = {"meta", "path", "rect", "br"}


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


class Checker(HTMLParser):
    """Tags are closed in order, and no attribute leads out of the page."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in _VOID:
            self.open.append(tag)
        for name, value in attrs:
            assert name not in ("src", "onclick", "onload"), (tag, name)
            if name == "href":
                self.links.append(value or "")
            if name == "id":
                self.ids.add(value or "")

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID:
            assert self.open.pop() == tag


def checked(text: str) -> Checker:
    checker = Checker()
    checker.feed(text)
    checker.close()
    assert not checker.open
    assert all(link.startswith("#") and link[1:] in checker.ids for link in checker.links)
    assert not checker.tags & {"script", "link", "img", "iframe", "object"}
    assert not re.search(r"url\((?!#)|@import|https?:", text)
    return checker


def test_a_page_of_real_traces(tmp_path: Path) -> None:
    target = tmp_path / "r.html"
    sources = [str(DATASETS / f"{n}.cosytrace") for n in ("du", "md5sum", "lighttpd")]
    done = CliRunner().invoke(main, [*sources, "--html", str(target), "--top", "9"])
    assert done.exit_code == 0, done.output
    text = target.read_text()
    checker = checked(text)
    assert {"dirscan-stat", "slurp"} <= checker.ids
    assert len(text) < 300_000
    assert 'marker-end="url(#tip)"' in text
    assert "covered by the top 10" in text
    again = CliRunner().invoke(main, [*sources, "--html", str(target)])
    assert (again.exit_code, target.read_text()) == (1, text)
    assert "use --force" in again.output


def test_arrows_are_the_data_flow() -> None:
    found = mine.mine([DATASETS / "md5sum.cosytrace"], cost.Calibration(), workers=1)
    motif = next(m for m in found.motifs if m.name == "slurp")
    of = [c.syscall for c in motif.calls]
    drawn = {(of[e.source], of[e.target]) for e in edges(motif) if e.source >= 0}
    assert {("openat", "read"), ("openat", "close")} <= drawn
    assert all(a == "openat" for a, _ in drawn)


def hostile(path: Path) -> motifs.MotifFile:
    builder = TraceBuilder()
    builder.lost_events = 77
    program = builder.program("/tmp/<script>alert(1)</script>")
    builder.processes[-1]["exit"] = None
    run(*(slurp(program, f"/data/<img src=x onerror=alert({i})>&\"'", 5) for i in range(9)))
    return mine.mine([builder.write(path / "a<b>.cosytrace")], cost.Calibration(), workers=1)


def test_lost_events_and_hostile_names(tmp_path: Path) -> None:
    text = page(hostile(tmp_path), 5)
    checked(text)
    assert "LOSSY: " in text
    assert "lacks 77 events" in text
    assert "TRUNCATED: " in text
    assert "<script>" not in text
    assert "<img" not in text


def test_terminal_table_names_what_is_wrong(tmp_path: Path) -> None:
    motifs.save(hostile(tmp_path), tmp_path / "m.json")
    done = CliRunner().invoke(main, [str(tmp_path / "m.json")])
    assert done.exit_code == 0
    text = " ".join(done.output.split())
    assert "lacks 77 events" in text
    assert "1 of its processes were still running" in text
    assert "slurp" in text
    assert all(len(line) <= 80 for line in done.output.splitlines())


@pytest.mark.parametrize("name", ["absent.cosytrace", "absent.json", "bad.json"])
def test_bad_input_is_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("[]")
    done = CliRunner().invoke(main, [str(tmp_path / name), "--html", str(tmp_path / "x.html")])
    assert done.exit_code == 1
    assert done.output.startswith("cosy-report: ")
    assert done.output.count("\n") == 1
    assert not (tmp_path / "x.html").exists()


def test_json_and_the_page_show_what_is_asked_for(tmp_path: Path) -> None:
    source = tmp_path / "m.json"
    paths = [DATASETS / f"{name}.cosytrace" for name in ("du", "md5sum")]
    motifs.save(mine.mine(paths, cost.Calibration(), workers=1), source)
    every = [m.name for m in motifs.load(source).motifs]

    def run(*options: str) -> str:
        done = CliRunner().invoke(main, [str(source), *options])
        assert done.exit_code == 0
        return done.output

    def names(*options: str) -> list[str]:
        return [m.name for m in motifs.from_json(json.loads(run("--json", *options))).motifs]

    assert names() == every
    assert names("--top", "2") == every[:2]
    savers = names("--min-saving", "1us")
    assert 0 < len(savers) < len(every)
    run("--html", str(tmp_path / "r.html"), "--min-saving", "1us")
    text = (tmp_path / "r.html").read_text()
    checked(text)
    assert text.count('<section class="motif"') == len(savers)
    assert "no motif would save" in run("--min-saving", "1000s")
    done = CliRunner().invoke(main, [str(source), "--json", "--html", str(tmp_path / "y.html")])
    assert done.exit_code == 2


@pytest.mark.parametrize("other", ["b.json", "b.cosytrace"])
def test_a_motif_file_stands_alone(other: str, tmp_path: Path) -> None:
    sources = [str(tmp_path / "a.json"), str(tmp_path / other)]
    done = CliRunner().invoke(main, sources)
    assert (done.exit_code, done.output.count("\n")) == (1, 1)
    assert done.output.startswith("cosy-report: one motif file at a time")


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['cosy-report', '--help']\n"
        "from miner.report_cli import main\n"
        "try: main()\n"
        "finally: assert not {'numpy', 'pandas', 'pyarrow'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr
