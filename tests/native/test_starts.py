# SPDX-License-Identifier: MIT
"""How programs start others: at limits, from bad memory, and where somebody watches."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.conftest import Compiler, Runner, built

LIBRARY = b"libcosy.so"
MAPS = ["cat", "/proc/self/maps"]
# Calls of the shim's start: bpf, madvise, pidfd_open, prctl, openat's kin, getuid's, clock_gettime,
# faccessat, getpid. What the C library's own start needs is not among them.
SHIM_CALLS = [321, 28, 434, 157, 439, 4, 269, 228, 107, 39, 186, 267, 118, 120]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to have other effective ids")


@pytest.fixture
def starts(compiled: Compiler) -> Path:
    # Bound at the start: binding takes stack, too.
    return compiled("starts.c", "-Wl,-z,now")


@pytest.fixture
def image() -> Path:
    return built("build", "synth/default.img")


@pytest.mark.parametrize(
    "words",
    [
        ["bad-environment"],
        ["longest"],
        ["many-variables"],
        ["auxv"],
        ["small-handler", "900"],
        ["two-preloads", "/usr/bin/env"],
        ["stops", "/bin/true"],
    ],
    ids=lambda words: words[0],
)
def test_no_difference(runner: Runner, starts: Path, words: list[str]) -> None:
    assert runner.both([starts, *words]).returncode == 0


@pytest.mark.parametrize("preload", ["libdl.so.2", ""])
def test_a_users_preload_leaves_the_auxiliary_vector_in_place(
    runner: Runner, starts: Path, preload: str
) -> None:
    command = ["env", f"LD_PRELOAD={preload}", "sh", "-c", f"{starts} auxv; env"]
    done = runner.both(command)
    assert f"\nLD_PRELOAD={preload}\n".encode() in done.stdout
    assert LIBRARY in runner.cosy([*command[:2], *MAPS]).stdout


def test_the_loader_obeys_the_last_preload(runner: Runner, starts: Path) -> None:
    assert LIBRARY in runner.cosy([starts, "two-preloads", "/bin/cat", MAPS[1]]).stdout


# What runs native


@pytest.mark.parametrize("mode", ["pass", "exec", "trace"])
def test_a_filter_sees_the_programs_calls_only(
    runner: Runner, starts: Path, image: Path, mode: str, tmp_path: Path
) -> None:
    orders = {"pass": {}, "exec": {"image": str(image)}, "trace": {"dir": str(tmp_path)}}[mode]
    for nr in SHIM_CALLS:
        for command in ([], MAPS):
            words = [starts, "filter", str(nr), *command]
            native = runner.native(words)
            done = runner.cosy(words, mode, orders)
            assert (done.returncode, done.stderr) == (native.returncode, native.stderr), nr
            assert LIBRARY not in done.stdout


def test_a_filter_that_failed_changes_nothing(runner: Runner) -> None:
    perl = shutil.which("perl")
    if not perl:
        pytest.skip("perl is not installed")
    # prctl(PR_SET_SECCOMP, 2, NULL): probing for support, as many programs do.
    script = "syscall(157, 22, 2, 0); exec 'cat', '/proc/self/maps'"
    assert LIBRARY in runner.cosy([perl, "-e", script]).stdout


@pytest.mark.parametrize("word", ["address-space", "data"])
def test_no_library_under_limits_of_memory(runner: Runner, starts: Path, word: str) -> None:
    done = runner.cosy([starts, word, *MAPS])
    assert (done.returncode, done.stderr) == (0, b"")
    assert LIBRARY not in done.stdout


@needs_root
def test_other_effective_ids(runner: Runner, starts: Path) -> None:
    # ld.so drops LD_PRELOAD there: nobody would take the orders out again.
    assert runner.both([starts, "effective-ids", "env"]).returncode == 0


@pytest.mark.parametrize("variable", ["LD_TRACE_LOADED_OBJECTS=1", "LD_DEBUG=libs"])
def test_the_loader_names_no_library_of_ours(runner: Runner, variable: str) -> None:
    done = runner.cosy(["env", variable, "true"])
    assert done.stdout or done.stderr
    assert LIBRARY not in done.stdout + done.stderr
