# SPDX-License-Identifier: MIT
"""What can go wrong with a virtual machine."""

from kmod.vm.log import excerpt, keep


class VmError(Exception):
    """Any failure of the harness itself, as opposed to that of a command in the guest."""


class UnavailableError(VmError):
    """QEMU, a tool or a kernel cannot be had here; the message says what to do."""


class GuestError(VmError):
    """The guest did not do what it should; `log` is all that its kernel said.

    The message shows what in it matters, and in which file all of it is kept.
    """

    def __init__(self, what: str, log: str) -> None:
        super().__init__(f"{what}\n{excerpt(log)}\nall of its log: {keep(log)}")
        self.log = log


class CrashError(GuestError):
    """The guest's kernel panicked or its init failed."""


class TimedOutError(GuestError):
    """The guest had to be killed; its log ends with its tasks, if its kernel could still tell."""


class FailedError(GuestError):
    """The command failed, or the kernel complained meanwhile."""
