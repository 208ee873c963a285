# SPDX-License-Identifier: MIT
"""The eBPF programs of this build, loaded into a bpffs that nobody else sees."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from tests.conftest import built
from tests.native.dirscan import PINS, Program, open_pin
from tests.native.linux_calls import CLONE_NEWNS, in_child, mount, unshare


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
