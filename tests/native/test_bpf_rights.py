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


def scan(program: Program, path: Path) -> Result:
    """One run over a folder."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return program.run(fd)
    finally:
        os.close(fd)


def test_anyone_may_run_it(place: Path, loader: Path) -> None:
    """A user without any capability opens the pin and runs what it holds."""

    def work() -> Result:
        fresh_bpffs()
        subprocess.run([loader], check=True)
        become(NOBODY)
        return scan(Program(open_pin("buffers")), place)

    result = in_child(work)
    assert result.status == dirscan.OK
    assert set(result.by_name) == {b"file", b"open", b"closed"}


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
        return allowed, result.status, len(result.children)

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
    """What a mount covers is not told."""

    def work() -> Result:
        unshare(CLONE_NEWNS)
        mount("none", str(place / "open"), "tmpfs", 0)
        return scan(program, place)

    assert set(in_child(work).by_name) == {b"file", b"closed"}
    assert len(scan(program, place).children) == 3


def test_noatime_mount(program: Program, place: Path) -> None:
    """Nothing there changes a time of access."""

    def work() -> set[int]:
        unshare(CLONE_NEWNS)
        mount(str(place), str(place), None, MS_BIND)
        mount(None, str(place), None, MS_BIND | MS_REMOUNT | MS_NOATIME)
        return {c.flags & dirscan.ATIME_STABLE for c in scan(program, place).children}

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
    result = scan(program, Path(path))
    assert (result.status, result.children) == (dirscan.FS, [])


def test_abi(program: Program, place: Path) -> None:
    """A caller built against another header is not served."""
    fd = os.open(place, os.O_RDONLY)
    for option in (0, dirscan.OPTION - 1, dirscan.OPTION + 1, 0x7FFFFFFF):
        assert program.run(fd, option=option).status == dirscan.NOT_RUN
    assert program.run(fd).status == dirscan.OK
    os.close(fd)


def test_no_kernel_pointers(program: Program) -> None:
    """Nothing is written but what belongs there."""
    fd = os.open("/usr/bin", os.O_RDONLY)
    memory = program.run_raw(fd)
    os.close(fd)
    words = struct.unpack(f"<{len(memory) // 8}Q", memory)
    assert not [hex(word) for word in words if 0xFFFF8000 << 32 <= word < 0xFFFFFFFF << 32]


def test_nothing_behind_what_is_used(program: Program, place: Path) -> None:
    """The rest of each page is as it was, but for a record that was left out."""
    fd = os.open(place, os.O_RDONLY)
    memory = program.run_raw(fd)
    os.close(fd)
    used = dirscan.RUN.unpack_from(memory)[9:19]
    assert 0 < used[0] < dirscan.PAGE
    assert set(memory[dirscan.PAGE + used[0] :]) == {0xA5}


def test_memory_of_another(program: Program, place: Path) -> None:
    """Somebody registers memory of his own for our process: he learns nothing."""
    fd = os.open(place, os.O_RDONLY)
    theirs = dirscan.Memory(cookie=12345)
    theirs.clear()
    before = theirs.bytes[:]
    reader, writer = os.pipe()
    ready_reader, ready_writer = os.pipe()

    def work() -> tuple[int, int]:
        first = program.run(fd).status
        os.write(ready_writer, b"x")
        os.read(reader, 1)
        return first, program.run(fd).status

    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if work() == (dirscan.OK, dirscan.NOT_RUN) else 1)
        finally:
            os._exit(2)
    os.read(ready_reader, 1)
    theirs.register(program.map_fd, pid)
    os.write(writer, b"x")
    assert os.waitpid(pid, 0)[1] == 0
    assert theirs.bytes[:] == before
    for each in (fd, reader, writer, ready_reader, ready_writer):
        os.close(each)


def test_memory_that_is_gone(program: Program, place: Path) -> None:
    """What was unmapped since is written to by nobody who could read it."""
    fd = os.open(place, os.O_RDONLY)
    program.run(fd)
    fresh = dirscan.Memory(cookie=program.memory.cookie)
    program.memory = fresh
    assert program.run(fd).status == dirscan.NOT_RUN
    os.close(fd)


@pytest.mark.parametrize("shift", [8, 100, 4095])
def test_memory_across_pages(program: Program, shift: int) -> None:
    """The kernel refuses what does not lie in one page."""
    memory = dirscan.Memory()
    memory.address += shift
    with pytest.raises(OSError, match="not supported"):
        memory.register(program.map_fd, os.getpid())


def test_results_belong_to_one_process(program: Program, place: Path) -> None:
    """Many processes at once, each over a folder of its own: no name ever crosses."""
    folders = [place / f"own-{i}" for i in range(6)]
    for i, folder in enumerate(folders):
        folder.mkdir()
        for j in range(40):
            (folder / f"own-{i}-{j}").touch()
            (folder / f"own-{i}-{j}").stat()

    def work(i: int) -> int:
        runs, deadline = 0, time.monotonic() + 0.5
        while time.monotonic() < deadline:
            result = scan(program, folders[i])
            assert result.status == dirscan.OK
            assert len(result.children) == 40
            assert all(c.name.startswith(b"own-%d-" % i) for c in result.children)
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
            result = program.run(fd)
            assert result.status in (dirscan.OK, dirscan.MOVED, dirscan.FULL, dirscan.LIMIT)
            for child in result.children:
                assert child.size == int(child.name.rpartition(b"-")[2]), child
            children, runs = children + len(result.children), runs + 1
        os.close(fd)
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    assert children > 30 * runs
