# SPDX-License-Identifier: MIT
"""Names of motifs against labels by people who know the programs.

Recall: labels that some motif of the program bears. Precision: motifs of at least a tenth of the
program's boundary time whose kind is among its labels.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from miner.motifs import MotifFile

MAJOR = 0.1
"""Share of a program's boundary time from which on a motif should be named as labelled."""


def read(path: Path) -> dict[str, dict[str, Any]]:
    """By program: `motifs` (label to the reason for it), and what else the file says of it."""
    with path.open("rb") as file:
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


def own_shares(found: MotifFile) -> dict[str, float]:
    """By name of a motif its own share of the boundary time."""
    time_ns = sum(t.time_ns for t in found.traces)
    return {m.name: m.own_ns / max(time_ns, 1) for m in found.motifs}


@dataclass
class Score:
    """Counts over programs, and what is wrong."""

    right: int = 0
    wrong: int = 0
    found: int = 0
    missed: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def precision(self) -> float:
        """Of the large motifs, those that are named as labelled."""
        return self.right / max(self.right + self.wrong, 1)

    @property
    def recall(self) -> float:
        """Of the labels, those that a motif bears."""
        return self.found / max(self.found + self.missed, 1)

    def add(self, program: str, expected: Collection[str], shares: dict[str, float]) -> None:
        """A program's motifs, by name with their share of its time."""
        kinds = {kind_of(name) for name in shares}
        self.found += len(kinds.intersection(expected))
        self.missed += len(set(expected) - kinds)
        self.notes += [f"{program}: no {k}" for k in sorted(set(expected) - kinds)]
        for name, share in shares.items():
            if share < MAJOR:
                continue
            if kind_of(name) in expected:
                self.right += 1
            else:
                self.wrong += 1
                self.notes.append(f"{program}: {name} {share:.0%}")

    def __str__(self) -> str:
        return f"precision {self.precision:.2f}, recall {self.recall:.2f}: {self.notes}"
