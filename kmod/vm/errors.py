# SPDX-License-Identifier: MIT
"""What can go wrong with a virtual machine."""

CONSOLE_TAIL_LINES = 60


class VmError(Exception):
    """Any failure of the harness itself, as opposed to that of a command in the guest."""


class UnavailableError(VmError):
    """QEMU, a tool or a kernel cannot be had here; the message says what to do."""


class GuestError(VmError):
    """The guest ended without a result; `console` is all that its kernel printed."""

    def __init__(self, what: str, console: str) -> None:
        tail = "\n".join(console.splitlines()[-CONSOLE_TAIL_LINES:])
        super().__init__(f"{what}; the console's last lines:\n{tail}")
        self.console = console


class CrashError(GuestError):
    """The guest's kernel panicked or its init failed."""


class TimedOutError(GuestError):
    """The guest had to be killed."""
