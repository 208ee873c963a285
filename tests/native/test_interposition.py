# SPDX-License-Identifier: MIT
"""The shim in pass-through mode under programs that are hard to interpose."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Compiler, Runner

LIBRARY = b"libcosy.so"


@pytest.fixture
def calls(compiled: Compiler) -> Path:
    return compiled("calls.c", "-pthread", "-rdynamic")


@pytest.mark.parametrize(
    "word",
    [
        "fork",
        "vfork",
        "spawn",
        "threads",
        "small-stack",
        "signals",
        "close-all",
        "bad-exec",
        "null-env",
        "unwind",
        "red-zone",
        "thread-exec",
        "cancel",
    ],
)
def test_hard_programs_see_no_difference(runner: Runner, calls: Path, word: str) -> None:
    assert runner.both([calls, word]).returncode == 0


def test_cancellation_runs_destructors(runner: Runner, compiled: Compiler) -> None:
    done = runner.both([compiled("cancel.cc", "-pthread")])
    assert (done.returncode, done.stdout) == (0, b"200 of 200 destructors ran\n")


def test_the_library_is_there_at_all(runner: Runner) -> None:
    assert LIBRARY in runner.cosy(["cat", "/proc/self/maps"]).stdout
    assert LIBRARY not in runner.native(["cat", "/proc/self/maps"]).stdout


@pytest.mark.parametrize(
    "command",
    [
        ["env", "-i", "cat", "/proc/self/maps"],
        ["sh", "-c", "unset LD_PRELOAD COSY_SHIM; cat /proc/self/maps"],
        ["sh", "-c", "exec env -i sh -c 'cat /proc/self/maps'"],
        ["find", "/dev/null", "-exec", "cat", "/proc/self/maps", ";"],
        ["xargs", "-a", "/dev/null", "cat", "/proc/self/maps"],
    ],
)
def test_exec_is_followed(runner: Runner, command: list[str]) -> None:
    assert LIBRARY in runner.cosy(command).stdout


def test_exec_with_an_empty_environment_is_followed(runner: Runner, calls: Path) -> None:
    assert LIBRARY in runner.cosy([calls, "empty-env"]).stdout


def test_scripts_are_followed(runner: Runner, tmp_path: Path) -> None:
    outer, inner = tmp_path / "outer", tmp_path / "inner"
    inner.write_text("#!/bin/sh\ncat /proc/self/maps\n")
    outer.write_text(f"#!/usr/bin/env -S -i {inner}\n")
    for script in (inner, outer):
        script.chmod(0o755)
        assert LIBRARY in runner.cosy([script]).stdout


@pytest.mark.parametrize("command", [["env"], ["sh", "-c", "env"], ["env", "-i", "A=b", "env"]])
def test_the_environment_looks_untouched(runner: Runner, command: list[str]) -> None:
    done = runner.both(command)
    assert b"COSY" not in done.stdout
    assert b"LD_PRELOAD" not in done.stdout


def test_a_users_own_preload_stays(runner: Runner, compiled: Compiler) -> None:
    mine = str(compiled("own_calls.c", "-shared", "-fPIC", name="libmine.so"))
    env = runner.environment("pass", {})
    env["LD_PRELOAD"] += f":{mine}"
    done = subprocess.run(
        ["sh", "-c", "echo $LD_PRELOAD; cat /proc/self/maps"], env=env, capture_output=True
    )
    assert done.stdout.splitlines()[0].decode() == mine
    assert b"libmine.so" in done.stdout
    assert LIBRARY in done.stdout


def test_static_programs_run_native(runner: Runner, compiled: Compiler) -> None:
    static = compiled("calls.c", "-static", "-pthread", "-Wno-error", name="calls-static")
    assert runner.both([static, "fork"]).returncode == 0
    done = runner.cosy(["sh", "-c", f"{static} empty-env"])
    # Nobody put the library back behind the static program's back ...
    assert LIBRARY not in done.stdout
    # ... and what a static program executes gets no strange variables.
    assert b"COSY" not in runner.cosy(["sh", "-c", f"{static} null-env"]).stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make a set-id program of another user")
def test_set_id_programs_run_native(runner: Runner, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    program = tmp_path / "cat"
    shutil.copy("/bin/cat", program)
    os.chown(program, 65534, 65534)
    program.chmod(0o4755)
    done = runner.cosy(["sh", "-c", f"{program} /proc/self/maps; echo $?"])
    assert LIBRARY not in done.stdout
    assert done.stdout.splitlines()[-1] == b"0"
    assert done.stderr == b""


def test_dlopened_libraries_are_patched(runner: Runner, calls: Path, compiled: Compiler) -> None:
    # By its name it is one that is known to hold system calls.
    library = compiled("own_calls.c", "-shared", "-fPIC", name="liburing.so.9")
    assert runner.native([calls, "dlopen", library]).stdout == b"same answer\nas compiled\n"
    assert runner.cosy([calls, "dlopen", library]).stdout == b"same answer\npatched\n"


def test_unknown_libraries_are_left_alone(runner: Runner, calls: Path, compiled: Compiler) -> None:
    library = compiled("own_calls.c", "-shared", "-fPIC", name="libunknown.so.9")
    assert runner.cosy([calls, "dlopen", library]).stdout == b"same answer\nas compiled\n"


@pytest.mark.parametrize("orders", ["mode=nonsense", "mode=pass;colour=red", "mode=exec", "", "="])
def test_orders_that_make_no_sense_do_nothing(runner: Runner, orders: str) -> None:
    env = {**runner.environment("pass", {}), "COSY_SHIM": orders}
    done = subprocess.run(["cat", "/etc/passwd"], env=env, capture_output=True)
    assert done.stdout == Path("/etc/passwd").read_bytes()
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_cache_is_filled_and_used(runner: Runner, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    orders = {"cache": str(tmp_path)}
    assert runner.cosy(["true"], orders=orders).returncode == 0
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names
    maps = runner.cosy(["cat", "/proc/self/maps"], orders=orders).stdout
    assert str(tmp_path).encode() in maps


@pytest.mark.parametrize("damage", ["cut", "zeroed", "writable by others", "not a folder"])
def test_a_damaged_cache_is_refused(runner: Runner, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o700)
    orders = {"cache": str(folder)}
    runner.cosy(["true"], orders=orders)
    for path in folder.iterdir():
        size = path.stat().st_size
        if damage == "cut":
            os.truncate(path, size // 2)
        elif damage == "zeroed":
            path.write_bytes(bytes(size))
        elif damage == "writable by others":
            path.chmod(0o666)
    if damage == "not a folder":
        shutil.rmtree(folder)
        folder.write_bytes(b"")
    done = runner.cosy(["cat", "/etc/passwd", "/proc/self/maps"], orders=orders)
    assert done.stdout.startswith(Path("/etc/passwd").read_bytes())
    assert (done.returncode, done.stderr) == (0, b"")
    assert LIBRARY in done.stdout
    if damage == "writable by others":
        assert str(folder).encode() not in done.stdout


def test_text_is_patched_once(runner: Runner, tmp_path: Path) -> None:
    """Wherever libraries land: their order changes from run to run."""
    script = f"for i in $(seq 150); do cat /dev/null; stat -c '%n %i' {tmp_path}/*.text; done"
    done = runner.cosy(["sh", "-c", script], orders={"cache": str(tmp_path)})
    files = set(done.stdout.splitlines())
    names = [file.split()[0] for file in files]
    assert names
    assert len(names) == len(set(names)), "a file was written again"
