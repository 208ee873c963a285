# SPDX-License-Identifier: MIT
"""Builds the kernel module for one of the harness's kernels, outside of the source tree."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from kmod.vm.errors import UnavailableError, VmError
from kmod.vm.kernels import Kernel
from kmod.vm.place import FOLDER, ROOT

# What one kernel's build sees: the module's Makefile finds the uapi headers beside its folder.
SOURCES = ("module", "uapi")


def build_module(kernel: Kernel, source: Path = ROOT / "kmod", target: Path | None = None) -> Path:
    """Build `source`/module for `kernel` in `target` and return its .ko.

    Only what changed is built again.
    """
    if shutil.which("make") is None or shutil.which("gcc") is None:
        raise UnavailableError("a module is built with make and gcc: apt-get install make gcc")
    target = target or FOLDER / "modules" / kernel.release
    for name in SOURCES:
        if (source / name).is_dir():
            _mirror(source / name, target / name)
    done = subprocess.run(
        ["make", "-s", "-j2", "-C", str(kernel.build), f"M={target / 'module'}", "modules"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise VmError(f"the module does not build for {kernel.release}:\n{done.stderr[-4000:]}")
    return next((target / "module").glob("*.ko"))


def _mirror(source: Path, target: Path) -> None:
    """Copy what is newer, times included, so that make sees what changed."""
    target.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        copy = target / file.name
        if file.is_dir():
            _mirror(file, copy)
        elif not copy.exists() or copy.stat().st_mtime != file.stat().st_mtime:
            shutil.copy2(file, copy)
