# SPDX-License-Identifier: MIT
"""New motifs become compounds without new C code: trace, mine, synthesize, run; nothing by hand.

Each shape is learnt from a trace of a real program on one tree, and then runs the same program on
another tree (a list of paths: the same) on the reference executor. The output must be the same, and
most of the calls that the compound is about must be answered.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.harness import script
from synth.compile import compile_profile, load_profile
from synth.language import Compound, Profile
from tests.conftest import DEADLINE_S, plain_environment
from tests.native.test_reference import PROBES, SERVER, settle

FILES = 30
PYTHON = [sys.executable, "-S", "-E", "-c"]


@dataclass(frozen=True)
class Shape:
    """A program that has the shape, what its compound must hold, and how much it must answer."""

    name: str
    command: tuple[str, ...]
    loop: str  # entries, paths or once
    calls: frozenset[str]  # in the body of one compound
    least: int  # answers


SHAPES = [
    Shape("stat", ("du", "-a"), "entries", frozenset({"newfstatat"}), FILES - 2),
    Shape("stat-xattr", ("ls", "-l"), "entries", frozenset({"statx", "lgetxattr"}), 2 * FILES),
    Shape("readlink", ("ls", "-l"), "entries", frozenset({"statx", "readlink"}), 2 * FILES),
    Shape(
        "slurp",
        ("sh", "-c", 'exec md5sum "$0"/f*'),
        "once",
        frozenset({"openat", "newfstatat", "read", "close"}),
        2 * FILES,
    ),
    Shape(
        "directory-slurp",
        ("grep", "-rc", "1"),
        "entries",
        frozenset({"openat", "newfstatat", "read", "close"}),
        2 * FILES,
    ),
    Shape("until-eof", ("sh", "-c", 'exec cat "$0"/f* | cat'), "once", frozenset({"read"}), FILES),
    Shape("probes", (*PYTHON, PROBES), "paths", frozenset({"newfstatat", "openat"}), FILES),
    Shape(
        "server",
        (*PYTHON, SERVER),
        "once",
        frozenset({"openat", "newfstatat", "read", "close"}),
        2 * FILES,
    ),
]


def make_tree(top: Path, links: bool) -> Path:
    """Files and, for what reads links, links; reading them moves no access time."""
    top.mkdir()
    for i in range(FILES):
        (top / f"f{i}").write_bytes(bytes([48 + i]) * (i * 900 + 1))
        if links:
            (top / f"l{i}").symlink_to(f"f{i}")
    settle(top)
    return top


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    home = tmp_path_factory.mktemp("home")
    home.chmod(0o700)
    kept = plain_environment()
    for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        kept.pop(name, None)
    return {**kept, "HOME": str(home)}


def call(env: dict[str, str], *words: str | Path) -> subprocess.CompletedProcess[bytes]:
    command = [script(str(words[0])), *map(str, words[1:])]
    return subprocess.run(command, env=env, capture_output=True, timeout=DEADLINE_S, check=False)


def loop_of(compound: Compound) -> str:
    return "entries" if compound.loop else "paths" if compound.paths else "once"


def fitting(compounds: tuple[Compound, ...], shape: Shape) -> list[Compound]:
    """Compounds that have the shape."""
    return [
        compound
        for compound in compounds
        if loop_of(compound) == shape.loop
        and shape.calls <= {made.name for made in compound.body}
        and (shape.name != "until-eof" or compound.regular)
    ]


def served(report: bytes, names: set[str]) -> int:
    """Answers of these compounds, as --stats reports them."""
    total = 0
    for line in report.decode().splitlines():
        words = line.replace(",", "").split()
        if words and words[0] in names:
            total += int(words[-1])
    return total


@pytest.mark.usefixtures("native_dir")
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_a_shape_is_learnt_and_runs(shape: Shape, env: dict[str, str], tmp_path: Path) -> None:
    learnt = make_tree(tmp_path / "learnt", shape.name == "readlink")
    other = learnt
    if shape.loop != "paths":
        other = make_tree(tmp_path / "other", shape.name == "readlink")
    trace, motifs, image = (tmp_path / f"x.{kind}" for kind in ("cosytrace", "motifs.json", "img"))
    # A list is known once it was met twice.
    times = 2 if shape.loop == "paths" else 1
    again = [*shape.command, learnt]
    if times > 1:
        again = ["sh", "-c", '"$@"; "$@"', "sh", *shape.command, str(learnt)]
    assert call(env, "cosy-trace", "-o", trace, *again).returncode == 0
    assert call(env, "cosy-mine", trace, "-o", motifs).returncode == 0
    done = call(env, "cosy-synth", motifs, "-o", image, "--executor", "reference")
    assert done.returncode == 0, done.stderr
    text = image.with_suffix(".cosy")
    found = fitting(load_profile(text).compounds, shape)
    assert found, text.read_text()
    # These alone: another compound of the same profile may answer the same calls first.
    image.write_bytes(compile_profile(Profile(tuple(found)), "test"))

    command = [*shape.command, str(other)]
    native = subprocess.run(command, env=env, capture_output=True, timeout=DEADLINE_S, check=False)
    options = ["--stats", "--executor", "reference", "--profile", image]
    cosy = call(env, "cosy-auto", *options, *command)
    assert (cosy.stdout, cosy.returncode) == (native.stdout, native.returncode)
    assert served(cosy.stderr, {compound.name for compound in found}) >= shape.least, cosy.stderr


@pytest.mark.usefixtures("native_dir")
def test_reasons_are_given(env: dict[str, str], tmp_path: Path) -> None:
    trace, motifs = tmp_path / "x.cosytrace", tmp_path / "x.motifs.json"
    tree = make_tree(tmp_path / "tree", links=False)
    (tree / "sub").mkdir()
    assert call(env, "cosy-trace", "-o", trace, "find", tree, "-name", "x").returncode == 0
    assert call(env, "cosy-mine", trace, "-o", motifs).returncode == 0
    done = call(env, "cosy-synth", motifs, "-o", tmp_path / "y.img", "--executor", "reference")
    assert b"no compound: " in done.stdout
    assert os.access(tmp_path / "y.img", os.R_OK) == (done.returncode == 0)
