# SPDX-License-Identifier: MIT
"""Boots Debian's kernels under QEMU's software emulation and runs commands in them.

Nothing here needs root or touches the machine: kernels are downloaded by apt-get and unpacked into
build-vm/, and KVM is never used, so that results do not depend on the host's kernel.
"""

from kmod.vm.disk import make_ext4
from kmod.vm.errors import (
    CrashError,
    FailedError,
    GuestError,
    TimedOutError,
    UnavailableError,
    VmError,
)
from kmod.vm.kernels import Kernel, obtain
from kmod.vm.machine import Disk, Machine, Result
from kmod.vm.modules import build_module

__all__ = [
    "CrashError",
    "Disk",
    "FailedError",
    "GuestError",
    "Kernel",
    "Machine",
    "Result",
    "TimedOutError",
    "UnavailableError",
    "VmError",
    "build_module",
    "make_ext4",
    "obtain",
]
