# SPDX-License-Identifier: MIT
"""What many tests need: a tracer, and the eBPF programs of this build in a bpffs of their own."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Compiler, built
from tests.native.dirscan import PINS, Program, open_pin
from tests.native.linux_calls import CLONE_NEWNS, in_child, mount, unshare
from tests.native.tracing import OUTSIDE, Tracer, environment, usable


def fresh_bpffs() -> None:
    """A mount namespace with an empty bpffs."""
    unshare(CLONE_NEWNS)
    mount("bpf", "/sys/fs/bpf", "bpf", 0)


@pytest.fixture(scope="session")
def loader() -> Path:
    """cosy-bpf-load of this build, where it may do its work."""
    path = built("build", "kmod/bpf/cosy-bpf-load")
    if os.geteuid() != 0:
        pytest.skip("loading the eBPF executor needs root")
    return path


@pytest.fixture(scope="session")
def programs(loader: Path) -> dict[str, int]:
    """Descriptors of both programs; a skip says why they cannot be had."""
    here, there = socket.socketpair(socket.AF_UNIX)

    def work() -> tuple[int, str]:
        fresh_bpffs()
        done = subprocess.run([loader], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            socket.send_fds(there, [b"x"], [open_pin(name) for name in PINS])
        return done.returncode, done.stderr.strip()

    code, message = in_child(work)
    if code in (3, 4):
        pytest.skip(f"no eBPF executor here: {message}")
    assert code == 0, message
    fds = socket.recv_fds(here, 1, len(PINS))[1]
    here.close()
    there.close()
    return dict(zip(PINS, fds, strict=True))


@pytest.fixture
def program(programs: dict[str, int]) -> Program:
    """The executor of this build."""
    return Program(programs["buffers"])


@pytest.fixture
def tracer(native_dir: Path, tmp_path: Path) -> Tracer:
    return Tracer(environment(native_dir), tmp_path)


@pytest.fixture(params=OUTSIDE)
def backend(request: pytest.FixtureRequest) -> str:
    return usable(request.param)


@pytest.fixture
def static_program(compiled: Compiler) -> Path:
    return compiled("walk.c", "-static", name="walk-static")


@pytest.fixture
def calls(compiled: Compiler) -> Path:
    return compiled("calls.c", "-pthread", "-rdynamic")


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    for i in range(8):
        (root / f"d{i}").mkdir()
        for n in range(20):
            (root / f"d{i}" / f"file {n}").write_bytes(b"x" * 10 * n)
    (root / "größe 100%").write_text("odd")
    return root
