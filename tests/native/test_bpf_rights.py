# SPDX-License-Identifier: MIT
"""The eBPF executor gives nobody what the kernel would not give, and races nobody into a lie."""

from __future__ import annotations

import os
import random
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.native import dirscan
from tests.native.conftest import fresh_bpffs
from tests.native.dirscan import Program, Result, open_pin
from tests.native.linux_calls import (
    CLONE_NEWNS,
    CLONE_NEWUSER,
    MS_BIND,
    MS_NOATIME,
    MS_REMOUNT,
    NOBODY,
    become,
    idmapped_directory,
    in_child,
    mount,
    seccomp_allow_all,
    trace_me,
    unshare,
)
from tests.native.test_bpf_conformance import ACL_FOR_NOBODY


@pytest.fixture(params=[None, "/dev/shm"])
def place(request: pytest.FixtureRequest, program: Program) -> Iterator[Path]:
    """A folder that every user can reach, with a file and two levels below."""
    path = Path(tempfile.mkdtemp(prefix="cosy-test-", dir=request.param))
    path.chmod(0o755)
    (path / "file").write_text("x")
    for name in ("open", "closed"):
        (path / name).mkdir(mode=0o755)
        (path / name / "inner").touch()
    (path / "closed").chmod(0o700)
    for each in path.rglob("*"):
        each.lstat()
    if scan(program, path).status == dirscan.FS:
        pytest.skip(f"{path} is on a file system that the program does not tell")
    yield path
    shutil.rmtree(path)


def scan(program: Program, path: Path, **options: int) -> Result:
    """One run over a folder."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return program.run(fd, **options)
    finally:
        os.close(fd)


def names(result: Result) -> list[set[bytes]]:
    """Names in each block."""
    return [set(block.by_name) for block in result.blocks]


@pytest.mark.parametrize("file_flags", [0, 0x8], ids=["none", "BPF_F_RDONLY"])
def test_anyone_may_run_it(place: Path, loader: Path, file_flags: int) -> None:
    """A user without any capability opens the pin and runs what it holds."""

    def work() -> Result:
        fresh_bpffs()
        subprocess.run([loader], check=True)
        become(NOBODY)
        with Program("dirscan_large", open_pin("dirscan_large", file_flags)) as program:
            return scan(program, place, depth=8)

    result = in_child(work)
    assert result.status == dirscan.OK
    assert names(result) == [{b"file", b"open", b"closed"}, {b"inner"}]


def test_inherited_descriptor_gives_no_search_permission(place: Path, program: Program) -> None:
    """The owner's descriptor in another user's hands: fstatat fails there, so do we."""
    fd = os.open(place / "closed", os.O_RDONLY)

    def work() -> tuple[bool, int, int]:
        become(NOBODY)
        try:
            os.stat("inner", dir_fd=fd)
            allowed = True
        except PermissionError:
            allowed = False
        result = program.run(fd)
        return allowed, result.status, len(result.blocks)

    assert in_child(work) == (False, dirscan.PERM, 0)
    assert program.run(fd).status == dirscan.OK
    os.close(fd)


@pytest.mark.parametrize("mode", [0o000, 0o100, 0o010, 0o001, 0o700, 0o710, 0o711, 0o755, 0o677])
@pytest.mark.parametrize("owner", [0, NOBODY, 12345])
def test_never_told_without_search_permission(
    place: Path, program: Program, mode: int, owner: int
) -> None:
    """All modes and owners: what the kernel refuses, the program refuses."""
    folder = place / "open"
    os.chown(folder, owner, owner)
    folder.chmod(mode)
    fd = os.open(folder, os.O_RDONLY)

    def work() -> tuple[bool, int]:
        become(NOBODY)
        return os.access("inner", os.F_OK, dir_fd=fd), program.run(fd).status

    allowed, status = in_child(work)
    os.close(fd)
    assert status in ((dirscan.OK, dirscan.PERM) if allowed else (dirscan.PERM,))
    if allowed and (owner == NOBODY or mode & 0o111 == 0o111):
        assert status == dirscan.OK


def test_access_control_list(place: Path, program: Program) -> None:
    """A list may take away what the mode bits give."""
    os.setxattr(place / "open", "system.posix_acl_access", ACL_FOR_NOBODY)
    fd = os.open(place / "open", os.O_RDONLY)

    def work() -> tuple[bool, int]:
        become(NOBODY)
        return os.access("inner", os.F_OK, dir_fd=fd), program.run(fd).status

    assert in_child(work) == (False, dirscan.PERM)
    os.close(fd)
    assert len(scan(program, place, depth=1).blocks) == 3


def in_own_process(program: Program, place: Path, change: Callable[[], object]) -> int:
    """Status of a run in a process that did `change` first."""
    fd = os.open(place, os.O_RDONLY)

    def work() -> int:
        change()
        return program.run(fd).status

    try:
        return in_child(work)
    finally:
        os.close(fd)


def test_watched(program: Program, place: Path) -> None:
    """Under seccomp or ptrace each call means something to somebody."""
    assert in_own_process(program, place, seccomp_allow_all) == dirscan.WATCHED
    assert in_own_process(program, place, trace_me) == dirscan.WATCHED


def test_user_namespace(program: Program, place: Path) -> None:
    """There, user numbers would have to be mapped."""
    status = in_own_process(program, place, lambda: unshare(CLONE_NEWUSER))
    assert status == dirscan.USERNS


def test_idmapped_mount(program: Program, place: Path) -> None:
    """There too."""
    fd = idmapped_directory(str(place))
    assert os.stat("file", dir_fd=fd).st_uid == 1000
    assert program.run(fd).status == dirscan.IDMAP
    os.close(fd)


def test_mount_point(program: Program, place: Path) -> None:
    """What a mount covers is not told, neither as a child nor as a block."""

    def work() -> Result:
        unshare(CLONE_NEWNS)
        mount("none", str(place / "open"), "tmpfs", 0)
        return scan(program, place, depth=8)

    assert names(in_child(work)) == [{b"file", b"closed"}, {b"inner"}]
    assert len(scan(program, place, depth=8).blocks) == 3


def test_noatime_mount(program: Program, place: Path) -> None:
    """Nothing there changes a time of access."""

    def work() -> set[int]:
        unshare(CLONE_NEWNS)
        mount(str(place), str(place), None, MS_BIND)
        mount(None, str(place), None, MS_BIND | MS_REMOUNT | MS_NOATIME)
        return {c.flags & dirscan.ATIME_STABLE for c in scan(program, place).root.children}

    assert in_child(work) == {dirscan.ATIME_STABLE}


def test_descriptors(program: Program, place: Path) -> None:
    """Numbers that are no open directory, and directories open for their path only."""
    for fd in (-1, -100, 9999, 1 << 30, -(1 << 31)):
        assert program.run(fd).status == dirscan.BADFD
    file = os.open(place / "file", os.O_RDONLY)
    path_only = os.open(place, os.O_PATH)
    assert program.run(file).status == dirscan.NOTDIR
    assert program.run(path_only).status == dirscan.BADFD
    reader, writer = os.pipe()
    assert program.run(reader).status == dirscan.NOTDIR
    for fd in (file, path_only, reader, writer):
        os.close(fd)


@pytest.mark.parametrize("path", ["/proc", "/proc/self", "/sys", "/sys/kernel"])
def test_other_file_systems(program: Program, path: str) -> None:
    """File systems with a getattr of their own."""
    result = scan(program, Path(path), depth=3)
    assert (result.status, result.blocks) == (dirscan.FS, [])


def test_abi(program: Program, place: Path) -> None:
    """A caller built against another header is told so and nothing else."""
    fd = os.open(place, os.O_RDONLY)
    for abi in (0, dirscan.ABI + 1, 0xFFFFFFFF):
        assert program.run(fd, abi=abi).status == dirscan.ABI_MISMATCH
    os.close(fd)


def test_no_kernel_pointers(program: Program) -> None:
    """Nothing in the context but what belongs there, the unused end included."""
    fd = os.open("/usr", os.O_RDONLY)
    for depth in (0, 1, 8):
        context = program.run_raw(fd, depth=depth)
        (used,) = struct.unpack_from("<I", context, 20)
        words = struct.unpack(f"<{len(context) // 8}Q", context)
        assert not [hex(word) for word in words if 0xFFFF8000 << 32 <= word < 0xFFFFFFFF << 32]
        assert used < len(context)
    os.close(fd)


def test_results_belong_to_one_process(program: Program, place: Path) -> None:
    """Many processes at once, each over a folder of its own: no name ever crosses."""
    folders = [place / f"own-{i}" for i in range(6)]
    for i, folder in enumerate(folders):
        (folder / "below").mkdir(parents=True)
        for j in range(40):
            for each in (folder, folder / "below"):
                (each / f"own-{i}-{j}").touch()
                (each / f"own-{i}-{j}").stat()

    def work(i: int) -> int:
        runs, deadline = 0, time.monotonic() + 0.5
        while time.monotonic() < deadline:
            result = scan(program, folders[i], depth=2)
            assert result.status == dirscan.OK
            assert len(result.root.children) == 41
            for block in result.blocks:
                assert all(
                    c.name.startswith(b"own-%d-" % i) or c.name == b"below" for c in block.children
                )
            runs += 1
        return runs

    children = []
    for i in range(6):
        pid = os.fork()
        if pid == 0:
            try:
                os._exit(0 if work(i) else 1)
            finally:
                os._exit(1)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 6


CHURNED_PREFIXES = ["a", "bb" * 12, "c" * 39, "d" * 60, "e" * 200, "f" * 37]


def churn(folder: Path, current: dict[int, Path]) -> None:
    """Renames, replaces, deletes and creates for ever; a name ends in -SIZE of its file."""
    rng = random.Random(1)
    while True:
        size = rng.randrange(60)
        target = folder / f"{rng.choice(CHURNED_PREFIXES)}-{size}"
        if rng.random() < 0.8:
            os.rename(current[size], target)
        else:
            current[size].unlink()
            # The size is there before the name is.
            temporary = folder.parent / "temporary"
            temporary.write_bytes(b"x" * size)
            temporary.stat()
            os.rename(temporary, target)
        current[size] = target


@pytest.mark.parametrize("seconds", [1.0, pytest.param(60.0, marks=pytest.mark.soak)])
def test_concurrent_renames(program: Program, place: Path, seconds: float) -> None:
    """Every record told is a name and the attributes of its own file, whatever goes on."""
    folder = place / "churn"
    folder.mkdir()
    current = {size: folder / f"{CHURNED_PREFIXES[0]}-{size}" for size in range(60)}
    for size, path in current.items():
        path.write_bytes(b"x" * size)
        path.stat()
    pid = os.fork()
    if pid == 0:
        try:
            churn(folder, current)
        finally:
            os._exit(1)
    children = runs = 0
    try:
        deadline = time.monotonic() + seconds
        fd = os.open(folder, os.O_RDONLY)
        while time.monotonic() < deadline:
            result = program.run(fd, depth=runs % 2)
            assert result.status in (dirscan.OK, dirscan.MOVED, dirscan.FULL, dirscan.LIMIT)
            for child in result.root.children:
                assert child.size == int(child.name.rpartition(b"-")[2]), child
            children, runs = children + len(result.root.children), runs + 1
        os.close(fd)
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    assert children > 30 * runs
