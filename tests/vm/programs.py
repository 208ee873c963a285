# SPDX-License-Identifier: MIT
"""Builds the C programs that run in the guests."""

from __future__ import annotations

import subprocess
from pathlib import Path

FOLDER = Path(__file__).parent / "programs"
FLAGS = ("-O2", "-g", "-Wall", "-Wextra", "-Werror", "-static", "-pthread", "-D_GNU_SOURCE")
UAPI = Path(__file__).parents[2] / "kmod" / "uapi"


USER = UAPI.parent / "user"


def build_program(name: str, target: Path, folder: Path = FOLDER) -> Path:
    """NAME.c in `folder`, statically linked, in the folder `target`; its path.

    A program that includes cosy.h is linked with what is behind it.
    """
    program = target / name
    sources = [folder / f"{name}.c"]
    if '#include "cosy.h"' in sources[0].read_text():
        sources += sorted(USER.glob("*.c"))
    subprocess.run(
        ["gcc", *FLAGS, f"-I{UAPI}", f"-I{USER}", "-o", str(program), *map(str, sources)],
        check=True,
    )
    return program
