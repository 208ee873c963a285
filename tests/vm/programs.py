# SPDX-License-Identifier: MIT
"""Builds the C programs that run in the guests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent / "programs"
FLAGS = ("-O2", "-g", "-Wall", "-Wextra", "-Werror", "-static", "-pthread", "-D_GNU_SOURCE")
UAPI = Path(__file__).parents[2] / "kmod" / "uapi"
USER = UAPI.parent / "user"
ROOT = UAPI.parent.parent
VERIFIER = sorted((ROOT / "shim").glob("verify*.c"))


def build_program(name: str, target: Path, folder: Path = FOLDER) -> Path:
    """NAME.c in `folder`, statically linked, in the folder `target`; its path.

    A program that includes cosy.h or cosy_compound.h is linked with what is behind it.
    """
    program = target / name
    sources = [folder / f"{name}.c"]
    text = sources[0].read_text()
    includes = [UAPI, USER]
    if '#include "cosy.h"' in text or '#include "cosy_compound.h"' in text:
        sources += sorted(USER.glob("*.c"))
    if '#include "cosy_compound.h"' in text:
        sources += [*sorted((USER / "compound").glob("*.c")), *VERIFIER]
        includes += [ROOT / "shim", system_call_table(target)]
    words = [f"-I{folder}" for folder in includes] + ["-o", program, *sources]
    subprocess.run(["gcc", *FLAGS, *map(str, words)], check=True)
    return program


def system_call_table(target: Path) -> Path:
    """The folder in `target` that holds syscall_table.h, which the verifier includes."""
    folder = target / "include"
    folder.mkdir(exist_ok=True)
    command = [sys.executable, ROOT / "tracer" / "gen_table.py", folder / "syscall_table.h"]
    subprocess.run(list(map(str, command)), check=True)
    return folder
