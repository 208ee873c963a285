# SPDX-License-Identifier: MIT
"""The ways to see a program's calls, and which one suits a program.

All write raw events (kmod/uapi/cosy_trace.h), so that one converter makes the dataset.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from tracer import elf

AUTO, SHIM, BCC, PTRACE = "auto", "shim", "bcc", "ptrace"
NAMES = (AUTO, SHIM, BCC, PTRACE)
# Of the calls that the kernel begins again after a signal, which are seen (meta.json, restarts).
ALL, AFTER_HANDLERS = "all", "after handlers"
RING_BYTES = 64 << 20  # between the kernel and bcc


class BackendError(Exception):
    """Nothing can be recorded in this way here; the message says what to do."""


@dataclass(frozen=True)
class Choice:
    """A backend, None: none will do; and why."""

    name: str | None
    why: str


def choose(program: str, wanted: str = AUTO) -> Choice:
    """Return the backend for a program file."""
    reason = elf.why_native(program)
    if wanted == SHIM and reason:
        return Choice(None, f"{program} {reason}")
    if wanted != AUTO:
        return Choice(wanted, "as asked")
    if reason is None:
        return Choice(SHIM, "a dynamic program")
    root = os.geteuid() == 0
    if root:
        from tracer.backends import bcc

        lacks = bcc.why_not()
        if lacks is None:
            return Choice(BCC, f"{program} {reason}")
        return Choice(PTRACE, f"{program} {reason}, and no bcc: {lacks}")
    if elf.is_set_id(program):
        return Choice(None, f"{program} {reason}, which ptrace would take away: as root it works")
    return Choice(PTRACE, f"{program} {reason}; as root bcc would do it faster")


def choose_attached(wanted: str = AUTO) -> Choice:
    """Return the backend for a process that runs already; raises BackendError."""
    if wanted == SHIM:
        raise BackendError("the shim is there from a program's start: use --backend bcc or ptrace")
    if wanted != AUTO:
        return Choice(wanted, "as asked")
    if os.geteuid() != 0:
        return Choice(PTRACE, "a running process; as root bcc would do it faster")
    from tracer.backends import bcc

    lacks = bcc.why_not()
    if lacks is None:
        return Choice(BCC, "a running process")
    return Choice(PTRACE, f"a running process, and no bcc: {lacks}")
