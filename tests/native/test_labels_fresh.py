# SPDX-License-Identifier: MIT
"""Names of motifs in programs that nothing of the miner was chosen with, recorded here and now."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import labels
from tests.native.test_mine_real import mined

LABELS = Path(__file__).with_name("fresh_labels.toml")
DIRECTORIES, FILES = 40, 40  # so many that the programs' start is no large part
LEAST = 0.8
"""Of precision and recall; what they were when first measured is in docs/cosy-mine.md."""


def words(command: list[str], folder: Path) -> Iterator[str]:
    """The command with the places of this run."""
    tree, new = folder / "tree", folder / "new"
    files = [str(tree / f"d{i}" / f"f{j}") for i in range(DIRECTORIES) for j in range(FILES)]
    for word in command:
        if word == "{files}":
            yield from files
        elif word == "{new-files}":
            yield from (str(new / f"n{i}") for i in range(len(files)))
        else:
            large = folder / "large"
            yield (
                word.replace("{tree}", str(tree))
                .replace("{new}", str(new))
                .replace("{large}", str(large))
            )


def make(folder: Path) -> None:
    for i in range(DIRECTORIES):
        (folder / "tree" / f"d{i}").mkdir(parents=True)
        for j in range(FILES):
            (folder / "tree" / f"d{i}" / f"f{j}").write_text(f"{i} x\n{j}\n" * 20)
    (folder / "new").mkdir()
    (folder / "large").write_bytes(b"12345678\n" * 5000)


def test_programs_that_nobody_looked_at(tmp_path: Path) -> None:
    score = labels.Score()
    for program, label in labels.read(LABELS).items():
        if not shutil.which(label["command"][0]):
            continue
        folder = tmp_path / program
        make(folder)
        found = mined(folder, *words(label["command"], folder))
        score.add(program, label["motifs"], labels.own_shares(found))
    print(score)
    if not score.found:
        pytest.skip("none of the programs is here")
    assert min(score.precision, score.recall) >= LEAST, str(score)
