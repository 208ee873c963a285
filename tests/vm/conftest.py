# SPDX-License-Identifier: MIT
"""Virtual machines for tests; a skip says what lacks. Nothing here needs root."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from kmod.vm import Kernel, UnavailableError, build_module, obtain
from kmod.vm.machine import QEMU

NEEDED = (QEMU, "busybox", "modprobe", "mke2fs", "apt-get", "make", "gcc")


def kernel_or_skip(version: str) -> Kernel:
    """Debian's kernel of this version, downloaded at the first call."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    missing = [name for name in NEEDED if shutil.which(name, path=path) is None]
    if missing:
        pytest.skip(f"no virtual machine without {', '.join(missing)}: make setup as root")
    try:
        return obtain(version)
    except UnavailableError as error:
        pytest.skip(f"no kernel {version} for a virtual machine: {error}")


@pytest.fixture(scope="session")
def kernel() -> Kernel:
    """Debian 12's kernel."""
    return kernel_or_skip("6.1")


@pytest.fixture(scope="session")
def cosy_module(kernel: Kernel) -> Path:
    """kmod/module built for that kernel."""
    return build_module(kernel)
