# SPDX-License-Identifier: MIT
"""The system call table against the kernel's own header, and against itself."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tracer.syscalls import ArgKind, Syscall, SyscallClass, by_name, by_nr, name_of

HEADERS = [
    Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    Path("/usr/include/asm/unistd_64.h"),
]


@pytest.fixture(scope="module")
def kernel_numbers() -> dict[str, int]:
    for header in HEADERS:
        if header.exists():
            found = re.findall(r"#define __NR_(\w+) (\d+)", header.read_text())
            return {name: int(nr) for name, nr in found}
    pytest.skip("no asm/unistd_64.h: apt-get install linux-libc-dev")


def test_every_call_of_the_header_is_in_the_table(kernel_numbers: dict[str, int]) -> None:
    ours = {name: call.nr for name, call in by_name().items()}
    assert len(kernel_numbers) > 330
    assert {name: ours.get(name) for name in kernel_numbers} == kernel_numbers


def test_numbers_are_distinct_and_ascending() -> None:
    numbers = [call.nr for call in by_name().values()]
    assert numbers == sorted(set(numbers))
    assert len(by_nr()) == len(by_name())


def test_unknown_numbers_have_a_name_too() -> None:
    assert name_of(262) == "newfstatat"
    assert name_of(500) == "syscall_500"


def calls(*classes: SyscallClass) -> list[Syscall]:
    return [call for call in by_name().values() if call.cls in classes]


def test_pure_calls_take_nothing_into_the_kernel_and_make_no_descriptor() -> None:
    for call in calls(SyscallClass.PURE):
        assert not {ArgKind.BUF_IN, ArgKind.IOV_IN, ArgKind.PATH2} & set(call.args), call.name
        assert not call.returns_fd, call.name


def test_calls_that_take_data_are_not_harmless() -> None:
    harmless = {call.name for call in calls(SyscallClass.PURE, SyscallClass.POSITIONAL)}
    for call in by_name().values():
        if {ArgKind.BUF_IN, ArgKind.IOV_IN} & set(call.args):
            assert call.name not in harmless


@pytest.mark.parametrize(
    ("cls", "names"),
    [
        (SyscallClass.PURE, "stat lstat fstat newfstatat statx getxattr lgetxattr fgetxattr"),
        (SyscallClass.PURE, "readlink readlinkat access faccessat faccessat2 getcwd pread64"),
        (SyscallClass.POSITIONAL, "read getdents64 lseek open openat close dup mmap munmap brk"),
        (SyscallClass.MUTATING, "unlink rename renameat2 link chmod fchmodat2 chown utimensat"),
        (SyscallClass.MUTATING, "write pwrite64 truncate ftruncate mkdir setxattr mount fallocate"),
        (SyscallClass.SYNC, "wait4 poll ppoll select epoll_wait recvmsg recvfrom accept futex"),
        (SyscallClass.SYNC, "flock nanosleep clock_nanosleep rt_sigsuspend inotify_add_watch"),
        (SyscallClass.PROCESS, "fork vfork clone clone3 execve execveat exit exit_group setuid"),
        (SyscallClass.PROCESS, "unshare setns chroot prctl seccomp capset chdir fchdir"),
    ],
)
def test_class(cls: SyscallClass, names: str) -> None:
    for name in names.split():
        assert by_name()[name].cls == cls, name


def test_two_paths_stand_in_the_order_of_the_manual() -> None:
    for name in ("rename", "link", "symlink", "renameat", "linkat", "renameat2", "symlinkat"):
        args = by_name()[name].args
        assert args.index(ArgKind.PATH) < args.index(ArgKind.PATH2)
