# SPDX-License-Identifier: MIT
"""Programs of ours for the guest, linked statically."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from kmod.vm.errors import UnavailableError, VmError
from kmod.vm.kernels import FOLDER, ROOT

GUEST = Path(__file__).with_name("guest")
FLAGS = ("-O2", "-g", "-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-static")


def guest_program(name: str, *sources: Path) -> Path:
    """Compile kmod/vm/guest/NAME.c, with more sources or flags, and return the program's path."""
    if shutil.which("gcc") is None:
        raise UnavailableError("a program for the guest needs a compiler: apt-get install gcc")
    target = FOLDER / "guest" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    include = f"-I{ROOT / 'kmod' / 'uapi'}"
    source = GUEST / f"{name}.c"
    command = ["gcc", *FLAGS, include, "-pthread", "-o", target, source, *sources]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise VmError(f"{source.name} does not compile:\n{done.stderr}")
    return target
