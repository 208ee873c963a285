# SPDX-License-Identifier: MIT
"""Random calls, each question asked of the shim and of the kernel (programs/random_calls.c)."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from bench.never_slower import adversary
from tests.conftest import Compiler, Runner

ROUNDS = 300
SEEDS = range(1, 5)
# Those whose lack a random life meets soon; tests/native/test_fences.py has a test for each.
FENCES = ["mutate", "read_sync", "dup_fd", "atime", "wait+process"]
ALWAYS = "account"  # fires whatever it costs (shim/fence.h)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compounds that fire at the first call in any directory."""
    return adversary(tmp_path_factory.mktemp("profile"))


class Life:
    """Runs the program in a fresh folder under a shim."""

    def __init__(self, program: Path, image: Path, folder: Path) -> None:
        self.program = program
        self.orders = {"image": str(image)}
        self.folder = folder

    def __call__(
        self,
        runner: Runner,
        seed: int,
        threads: int = 1,
        rounds: int = ROUNDS,
        orders: Mapping[str, str] | None = None,
    ) -> list[str]:
        """Differences, a line each; the number of questions is checked on the way."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        done = runner.cosy(
            [self.program, str(seed), str(rounds), str(threads), folder],
            mode="exec",
            orders={**self.orders, **(orders or {})},
        )
        *differences, last = done.stdout.decode(errors="replace").splitlines()
        assert re.fullmatch(r"\d+ questions", last), done.stderr
        assert int(last.split()[0]) > 100 * rounds
        assert done.returncode == bool(differences)
        return differences


@pytest.fixture
def life(compiled: Compiler, image: Path, tmp_path: Path) -> Life:
    return Life(compiled("random_calls.c", "-pthread"), image, tmp_path)


@pytest.mark.usefixtures("executor")
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("seed", SEEDS)
def test_answers_are_the_kernels(
    runner: Runner, fence_runner: Runner, life: Life, seed: int, threads: int
) -> None:
    """As users run it, and firing at every chance."""
    assert life(runner, seed, threads) == []
    assert life(fence_runner, seed, threads, orders={"nofence": ALWAYS}) == []


@pytest.mark.parametrize("seed", SEEDS)
def test_answers_of_the_reference_executor(runner: Runner, life: Life, seed: int) -> None:
    assert life(runner, seed, orders={"executors": "reference"}) == []


@pytest.mark.soak
@pytest.mark.usefixtures("executor")
@pytest.mark.parametrize("seed", range(100, 140))
def test_answers_over_a_long_life(fence_runner: Runner, life: Life, seed: int) -> None:
    orders = {"nofence": ALWAYS}
    assert life(fence_runner, seed, 1 + seed % 4, rounds=10 * ROUNDS, orders=orders) == []


@pytest.mark.usefixtures("executor")
@pytest.mark.parametrize("fence", FENCES)
def test_a_fence_left_out_shows(fence_runner: Runner, life: Life, fence: str) -> None:
    """The lives above are full enough to meet what the fences are there for."""
    orders = {"nofence": f"{ALWAYS}+{fence}"}
    assert any(life(fence_runner, seed, orders=orders) for seed in SEEDS)
