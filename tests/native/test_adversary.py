# SPDX-License-Identifier: MIT
"""A profile that fires at the first call everywhere, and programs for which that is a waste.

Counts of results, not times. A directory at hand may be wasted, some 1,024 entries of it
(shim/firing.c), others after rests, and what 75 us to 0.3 ms are enough for (shim/account.c).
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from bench.never_slower import SHAPES, adversary, tree
from synth.language import Reach
from tests.conftest import DEADLINE_S, Compiler, built, plain_environment

MOST_WASTED = 4_000
TURNS = 12


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """For each shape its directories."""
    return {name: tree(tmp_path_factory.mktemp(name), shape) for name, shape in SHAPES.items()}


class Adversary:
    """Runs tests/native/programs/adversary.c natively and under the eager profile."""

    def __init__(self, program: Path, home: Path) -> None:
        self.program = program
        self.auto = built("build", "shim/launcher/cosy-auto")
        self.image = adversary(home)
        self.env = {**plain_environment(), "HOME": str(home)}

    def report(self, how: str, folders: list[Path], turns: int = TURNS) -> str:
        """What --stats says; the output is checked on the way."""
        command = [str(self.program), how, str(turns), *map(str, folders)]
        native = subprocess.run(command, capture_output=True, timeout=DEADLINE_S, check=True)
        # On a busy machine results may grow old before they are asked for.
        options = ["--stats", "--max-age", "60000", "--profile", self.image]
        done = subprocess.run(
            [self.auto, *options, *command],
            env=self.env,
            capture_output=True,
            timeout=DEADLINE_S,
            check=True,
        )
        assert done.stdout == native.stdout
        return done.stderr.decode()

    def __call__(self, how: str, folders: list[Path]) -> tuple[int, int]:
        """Results and answers."""
        ((_, results, served),) = rows(self.report(how, folders), "dirscan-stat")
        return results, served


def rows(report: str, name: str) -> list[tuple[int, ...]]:
    """The numbers of the lines that begin with this."""
    found = re.findall(rf"^  {name} +([\d,]+) +([\d,]+) +([\d,]+)$", report, re.M)
    return [tuple(int(number.replace(",", "")) for number in row) for row in found]


@pytest.fixture
def run(compiled: Compiler, executor: Path, tmp_path: Path) -> Adversary:
    assert executor.exists()
    return Adversary(compiled("adversary.c"), tmp_path)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("how", ["one", "epochs", "directories", "subset"])
def test_what_wastes_is_left_alone(
    run: Adversary, trees: dict[str, list[Path]], how: str, shape: str
) -> None:
    results, served = run(how, trees[shape])
    assert results - served <= MOST_WASTED


def seen(report: str) -> int:
    """Calls that the shim looked at."""
    found = re.search(r"^  calls +([\d,]+) seen", report, re.M)
    assert found is not None
    return int(found[1].replace(",", ""))


def test_directories_of_another_size_are_no_reason_to_look(
    run: Adversary, trees: dict[str, list[Path]], tmp_path: Path
) -> None:
    """A profile of larger directories than there are: calls are let pass soon."""
    run.image = adversary(tmp_path, least=1 << 14)
    report = run.report("all", trees["large"])
    assert rows(report, "dirscan-stat") == [(0, 0, 0)]
    assert seen(report) <= 1000


def test_who_reads_much_and_asks_little_is_left_alone(
    run: Adversary, trees: dict[str, list[Path]]
) -> None:
    """A third of the entries is asked about, which pays; but all are opened, read and closed."""
    report = run.report("reader", trees["large"])
    count, files = SHAPES["large"]
    assert seen(report) < count * files * TURNS / 3


def test_nothing_fires_for_who_opens_what_it_asks_about(
    run: Adversary, trees: dict[str, list[Path]]
) -> None:
    """As diff -r and cp do: each answer is paid back when the file is opened."""
    report = run.report("opener", trees["large"])
    assert rows(report, "dirscan-stat") == [(0, 0, 0)]
    assert seen(report) <= 1000


@pytest.mark.parametrize("shape", SHAPES)
def test_no_more_is_wasted_than_was_gained(
    run: Adversary, trees: dict[str, list[Path]], shape: str
) -> None:
    """The program asks about everything once, and from then on about one entry of each."""
    results, served = run("turncoat", trees[shape])
    assert served
    # A record costs half of what an answer saves, or less.
    assert results - served <= 2 * served + MOST_WASTED


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("how", "share"), [("all", 0.8), ("penitent", 0.25)])
def test_what_gains_goes_on_or_comes_back(
    run: Adversary, trees: dict[str, list[Path]], how: str, share: float, shape: str
) -> None:
    """Penitent: about one entry of each directory at first, then about all of them."""
    count, files = SHAPES[shape]
    _, served = run(how, trees[shape])
    assert served >= share * count * files * TURNS


def test_a_directory_above_the_limit_is_left_alone(
    run: Adversary, trees: dict[str, list[Path]], tmp_path: Path
) -> None:
    """A part of it was told, the newest entries, and du asks about the oldest first."""
    _, most = SHAPES["large"]
    run.image = adversary(tmp_path, most // 2)
    assert run("all", trees["large"]) == (0, 0)
    run.image = adversary(tmp_path, 2 * most)
    results, served = run("all", trees["large"])
    assert results
    assert served


@pytest.mark.parametrize(
    ("how", "near", "far"),
    [
        # Half of a directory would have to go unanswered before the third firing in it, or next to
        # nothing before the second.
        ("all", Reach(chunk=370, grow=2, miss=1), Reach(chunk=370, grow=1024, miss=64)),
        # One entry in twenty is asked for: too few for one in four, enough for one in sixty-four.
        ("subset", Reach(chunk=370, grow=64, miss=4), Reach(chunk=370, grow=64, miss=64)),
        ("subset", Reach(chunk=370, grow=2, miss=1), Reach(chunk=30_000, grow=2, miss=1)),
    ],
)
def test_runs_reach_as_far_as_the_image_says(
    run: Adversary, trees: dict[str, list[Path]], tmp_path: Path, how: str, near: Reach, far: Reach
) -> None:
    folder = trees["huge"][:1]
    _, files = SHAPES["huge"]
    run.image = adversary(tmp_path, reach=near)
    run.report(how, folder, turns=1)  # the first look at a new file is always the kernel's
    ((_, results, _),) = rows(run.report(how, folder, turns=1), "dirscan-stat")
    assert 0 < results < files / 2
    run.image = adversary(tmp_path, reach=far)
    ((_, results, _),) = rows(run.report(how, folder, turns=1), "dirscan-stat")
    assert results >= files


def test_old_news_ends_an_epoch(run: Adversary, trees: dict[str, list[Path]]) -> None:
    found = re.search(r"([\d,]+) epochs ended", run.report("epochs", trees["small"], turns=1))
    assert found is not None
    assert int(found[1].replace(",", "")) > 0


@pytest.mark.parametrize("how", ["all", "one", "turncoat"])
def test_call_sites_are_told_apart(run: Adversary, trees: dict[str, list[Path]], how: str) -> None:
    """The program has one call site that asks: all that is gained and wasted is gained there."""
    report = run.report(how, trees["large"])
    ((fired, results, served),) = rows(report, "dirscan-stat")
    ((at_fired, at_wasted, at_served),) = rows(report, r"[\w.]+\+0x[0-9a-f]+")
    assert (at_fired, at_served) == (fired, served)
    # The compound's body asks twice: a result may answer two calls, and be wasted only once.
    assert results - served <= at_wasted <= results - served // 2
