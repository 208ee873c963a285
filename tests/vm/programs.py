# SPDX-License-Identifier: MIT
"""Builds the C programs that run in the guests."""

from __future__ import annotations

import subprocess
from pathlib import Path

FOLDER = Path(__file__).parent / "programs"
FLAGS = ("-O2", "-g", "-Wall", "-Wextra", "-Werror", "-static", "-pthread")
UAPI = Path(__file__).parents[2] / "kmod" / "uapi"


def build_program(name: str, target: Path) -> Path:
    """programs/NAME.c, statically linked, in the folder `target`; its path."""
    program = target / name
    subprocess.run(
        ["gcc", *FLAGS, f"-I{UAPI}", "-o", str(program), str(FOLDER / f"{name}.c")],
        check=True,
    )
    return program
