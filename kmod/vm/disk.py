# SPDX-License-Identifier: MIT
"""Disk images with a file system on them, made without mounting anything."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from kmod.vm.errors import UnavailableError, VmError


def make_ext4(folder: Path | None, image: Path, size_mib: int) -> Path:
    """Write an ext4 image of `size_mib` with the content of `folder`, and return its path."""
    tool = shutil.which("mke2fs", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if tool is None:
        raise UnavailableError("mke2fs is not installed: apt-get install e2fsprogs")
    # The same hash order of directories every time: instruction counts depend on it.
    seed = "c05ec05e-c05e-4c05-8c05-ec05ec05ec05"
    command = [tool, "-q", "-F", "-t", "ext4", "-U", seed, "-E", f"hash_seed={seed},nodiscard"]
    if folder is not None:
        command += ["-d", str(folder)]
    done = subprocess.run(
        [*command, str(image), f"{size_mib}M"], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise VmError(f"{image} was not made: {done.stderr.strip()}")
    return image
