# SPDX-License-Identifier: MIT
"""The kernel module's list of allowed calls against the system call table."""

from __future__ import annotations

import re
from pathlib import Path

from tracer.syscalls import SyscallClass, by_name

ROOT = Path(__file__).parents[2]


def test_allowed_calls_are_as_the_system_call_table_says() -> None:
    """Number of arguments and class of each call that a program may make."""
    source = (ROOT / "kmod" / "module" / "calls.c").read_text()
    calls = re.findall(r"\t(PURE|IMPURE)\((\w+)((?:, \w+)*)\),", source)
    assert len(calls) > 50
    for kind, name, arguments in calls:
        call = by_name()[name]
        assert len(arguments.split(",")) - 1 == len(call.args), name
        assert (kind == "PURE") == (call.cls == SyscallClass.PURE), name
        assert call.cls != SyscallClass.PROCESS, name
