# SPDX-License-Identifier: MIT
"""Whether a compound pays, as the shim reckons it (shim/account.c), without a program around it."""

from __future__ import annotations

import subprocess

from tests.conftest import ROOT, Compiler


def test_what_a_walk_comes_back_to_is_not_lost(compiled: Compiler) -> None:
    """A depth-first walk leaves a large directory for a small one, and comes back."""
    folders = (f"-I{ROOT / 'shim'}", f"-I{ROOT / 'kmod' / 'uapi'}")
    program = compiled("account.c", "-ffreestanding", *folders)
    done = subprocess.run([program], capture_output=True, check=True, text=True)
    assert done.stdout.splitlines() == [
        "half asked, half to come: 1",
        "half asked, nothing to come: 0",
        "one asked, the rest never: 0",
    ]
