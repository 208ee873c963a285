# SPDX-License-Identifier: MIT
"""Every attribute that the eBPF executor tells is the one that the kernel tells."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.native import dirscan
from tests.native.dirscan import Child, Program, Result
from tests.native.linux_calls import statx

FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_NODUMP_FL = 0x80086601, 0x40086602, 0x40
ACL_FOR_NOBODY = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, permission, who)
    for tag, permission, who in [
        (0x01, 7, 0xFFFFFFFF),
        (0x02, 0, 65534),
        (0x04, 5, 0xFFFFFFFF),
        (0x10, 5, 0xFFFFFFFF),
        (0x20, 5, 0xFFFFFFFF),
    ]
)


def scan(program: Program, path: Path) -> Result:
    """One run over a folder."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return program.run(fd)
    finally:
        os.close(fd)


def told(child: Child, result: Result) -> tuple[int, ...]:
    """Everything that a stat call reports, from the program."""
    return (
        *(child.ino, child.mode, child.nlink, child.uid, child.gid, child.size, child.blocks),
        *(child.atime_ns, child.mtime_ns, child.ctime_ns),
        *(child.rdev >> 20, child.rdev & 0xFFFFF, result.dev >> 20, result.dev & 0xFFFFF),
        result.blksize,
    )


def truth(st: os.stat_result) -> tuple[int, ...]:
    """The same from the kernel."""
    return (
        *(st.st_ino, st.st_mode, st.st_nlink, st.st_uid, st.st_gid, st.st_size, st.st_blocks),
        *(st.st_atime_ns, st.st_mtime_ns, st.st_ctime_ns),
        *(os.major(st.st_rdev), os.minor(st.st_rdev)),
        *(os.major(st.st_dev), os.minor(st.st_dev), st.st_blksize),
    )


def check_child(fd: int, name: bytes, child: Child, result: Result) -> None:
    """One child's attributes and claims against the kernel's."""
    assert told(child, result) == truth(os.lstat(name, dir_fd=fd)), name
    more = statx(fd, name)
    assert more.mnt_id == result.mnt_id
    assert bool(child.flags & dirscan.ATTR_PLAIN) == (more.attributes == 0), name
    if child.flags & dirscan.XATTR_NONE:
        path = f"/proc/self/fd/{fd}/{os.fsdecode(name)}"
        assert os.listxattr(path, follow_symlinks=False) == [], name


def check_directory(program: Program, path: str | Path) -> tuple[int, int]:
    """All of a folder, cached by stat calls first. Returns (children, told and certain)."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        names = [os.fsencode(name) for name in os.listdir(fd)]
        points = {name for name in names if os.lstat(name, dir_fd=fd).st_dev != os.fstat(fd).st_dev}
        result = program.run_all(fd)
        if result.status == dirscan.FS:
            return 0, 0
        assert result.status == dirscan.OK, path
        assert result.dir_ino == os.fstat(fd).st_ino
        found = result.by_name
        assert set(found) <= set(names)
        certain = 0
        for name in set(found) - points:
            if not found[name].flags & dirscan.DECLINE:
                check_child(fd, name, found[name], result)
                certain += 1
        assert not points & set(found)
        return len(names), certain
    finally:
        os.close(fd)


def check_tree(program: Program, top: str, limit: int) -> None:
    """Folders below `top` until `limit` children were seen; nearly all must be told."""
    children = certain = 0
    for path, _, _ in os.walk(top):
        n, told_n = check_directory(program, path)
        children, certain = children + n, certain + told_n
        if children >= limit:
            break
    if children == 0:
        pytest.skip(f"{top} is on a file system that the program does not tell")
    assert certain >= 0.98 * children


def test_tree_of_the_system(program: Program) -> None:
    """A few thousand files that were not made for this test."""
    check_tree(program, "/usr", 4000)


@pytest.mark.soak
def test_whole_system(program: Program) -> None:
    """Everything below /usr."""
    check_tree(program, "/usr", 1 << 60)


@pytest.fixture(params=["temporary folder", "tmpfs"])
def zoo(request: pytest.FixtureRequest, tmp_path: Path, program: Program) -> Iterator[Path]:
    """A folder with one file of each kind."""
    if request.param == "tmpfs":
        subprocess.run(["mount", "-t", "tmpfs", "cosy-test", tmp_path], check=True)
    try:
        yield populate(tmp_path, program)
    finally:
        if request.param == "tmpfs":
            subprocess.run(["umount", "-l", tmp_path], check=True)


def populate(tmp_path: Path, program: Program) -> Path:
    """Makes the files; skips where the program does not tell."""
    if scan(program, tmp_path).status == dirscan.FS:
        pytest.skip(f"{tmp_path} is on a file system that the program does not tell")
    (tmp_path / "plain").write_bytes(b"x" * 5000)
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
    os.symlink("short", tmp_path / "link")
    os.symlink("long" * 50, tmp_path / "long-link")
    os.link(tmp_path / "plain", tmp_path / "hard-link")
    for length in (7, 8, 9, 31, 32, 33, 39, 40, 41, 63, 64, 254, 255):
        (tmp_path / ("n" * length)).touch()
    with open(os.fsencode(tmp_path) + b"/\xff\xfe\x80 \n\\", "w"):
        pass
    with open(tmp_path / "hole", "wb") as hole:
        hole.truncate(1 << 33)
    with open(tmp_path / "far", "wb") as far:
        far.seek(1 << 30)
        far.write(b"x")
    (tmp_path / "attribute").touch()
    os.setxattr(tmp_path / "attribute", "user.test", b"x" * 10)
    (tmp_path / "many-attributes").touch()
    os.setxattr(tmp_path / "many-attributes", "user.test", b"x" * 2000)
    (tmp_path / "acl").touch()
    os.setxattr(tmp_path / "acl", "system.posix_acl_access", ACL_FOR_NOBODY)
    (tmp_path / "secret").touch(mode=0)
    os.chown(tmp_path / "secret", 4_000_000_000, 12345)
    for name, mode in (("chr", stat.S_IFCHR), ("blk", stat.S_IFBLK)):
        os.mknod(tmp_path / name, mode | 0o600, os.makedev(240, 70000))
    with open(tmp_path / "no-dump", "wb") as file:
        flags = struct.unpack("<I", fcntl.ioctl(file, FS_IOC_GETFLAGS, b"\0" * 8)[:4])[0]
        fcntl.ioctl(file, FS_IOC_SETFLAGS, struct.pack("<Q", flags | FS_NODUMP_FL))
    return tmp_path


def test_every_kind(zoo: Path, program: Program) -> None:
    """Kinds of files, names of all lengths, extended attributes, flags."""
    names = os.listdir(zoo)
    n, certain = check_directory(program, zoo)
    assert n == certain == len(names)
    found = scan(program, zoo).by_name
    none = {name for name, child in found.items() if child.flags & dirscan.XATTR_NONE}
    assert {b"plain", b"folder", b"link", b"fifo"} <= none
    assert not {b"attribute", b"many-attributes", b"acl"} & none
    assert not found[b"no-dump"].flags & dirscan.ATTR_PLAIN
    assert scan(program, zoo).sb_flags & dirscan.SB_ACL


def test_delayed_allocation(zoo: Path, program: Program) -> None:
    """Blocks that are promised but not yet placed count, as in the kernel's answer."""
    with open(zoo / "fresh", "wb") as file:
        for _ in range(4):
            file.write(os.urandom(300_000))
            file.flush()
            os.stat(zoo / "fresh")
            assert check_directory(program, zoo)[1] == len(os.listdir(zoo))
    os.sync()
    assert check_directory(program, zoo)[1] == len(os.listdir(zoo))


def has_multigrain_times(folder: Path) -> bool:
    """Do changes between two stat calls show, be they in the same tick of the clock?"""
    path = folder / "probe"
    path.touch()
    times = set()
    for _ in range(50):
        path.chmod(0o600)
        times.add(path.stat().st_ctime_ns)
    return len(times) == 50


def test_unread_ctime_is_declined(zoo: Path, program: Program) -> None:
    """A stat would mark the time as read, so that the next change gets a finer one."""
    if not has_multigrain_times(zoo):
        pytest.skip(f"{zoo} is on a file system without multigrain timestamps")
    os.close(os.open(zoo / "new", os.O_CREAT | os.O_WRONLY))
    assert scan(program, zoo).by_name[b"new"].flags & dirscan.DECLINE
    os.stat(zoo / "new")
    assert not scan(program, zoo).by_name[b"new"].flags & dirscan.DECLINE


def test_deleted_and_renamed(zoo: Path, program: Program) -> None:
    """Names that are gone are not told, held open or not."""
    held = os.open(zoo / "plain", os.O_RDONLY)
    os.unlink(zoo / "plain")
    os.unlink(zoo / "empty")
    os.rename(zoo / "hole", zoo / "far")
    found = scan(program, zoo).by_name
    os.close(held)
    assert not {b"plain", b"empty", b"hole"} & set(found)
    assert found[b"far"].size == 1 << 33
    assert check_directory(program, zoo)[1] == len(os.listdir(zoo))
    os.unlink(zoo / "hard-link")
    (zoo / "plain").write_bytes(b"again")
    os.stat(zoo / "plain")
    assert scan(program, zoo).by_name[b"plain"].size == 5


def test_unlinked_folder(zoo: Path, program: Program) -> None:
    """A descriptor of a folder that is gone: nothing below it."""
    fd = os.open(zoo / "folder", os.O_RDONLY)
    os.rmdir(zoo / "folder")
    result = program.run(fd)
    os.close(fd)
    assert result.children == []


def test_atime(zoo: Path, program: Program) -> None:
    """`stable` is never claimed where a read changes the time."""
    now = time.time_ns()
    os.utime(zoo / "plain", ns=(now - 10**10, now - 10**9))
    (zoo / "plain2").write_bytes(b"x")
    os.utime(zoo / "plain2", ns=(now + 60 * 10**9, now - 10**9))
    os.utime(zoo / "far", ns=(now - 2 * 86400 * 10**9, now - 3 * 86400 * 10**9))
    for path in zoo.iterdir():
        path.lstat()
    before = scan(program, zoo).by_name
    stable = {name for name, child in before.items() if child.flags & dirscan.ATIME_STABLE}
    for name, child in before.items():
        if stat.S_ISREG(child.mode) and child.size < 1 << 20:
            (zoo / os.fsdecode(name)).read_bytes()
        if name in stable:
            assert (zoo / os.fsdecode(name)).lstat().st_atime_ns == child.atime_ns, name
    if os.statvfs(zoo).f_flag & os.ST_NOATIME:
        assert stable == set(before)
    else:
        assert b"plain2" in stable
        assert not {b"plain", b"far"} & stable


def test_resume(zoo: Path, program: Program) -> None:
    """A folder larger than the memory comes in parts, and no part twice."""
    for i in range(900):
        (zoo / f"file-{i}").touch()
        (zoo / f"file-{i}").stat()
    fd = os.open(zoo, os.O_RDONLY)
    first = program.run(fd)
    assert first.status == dirscan.FULL
    whole = program.run_all(fd)
    assert whole.status == dirscan.OK
    assert set(whole.by_name) == {os.fsencode(name) for name in os.listdir(fd)}
    beyond = program.run(fd, skip=whole.seen)
    assert (beyond.status, beyond.children, beyond.seen) == (dirscan.OK, [], whole.seen)
    far = program.run(fd, skip=1 << 30)
    os.close(fd)
    assert (far.children, far.seen) == ([], whole.seen)


def fill(folder: Path) -> int:
    """More files than one run tells, all of them cached; returns the folder's descriptor."""
    folder.mkdir()
    for i in range(900):
        (folder / f"file-{i}").touch()
        (folder / f"file-{i}").stat()
    return os.open(folder, os.O_RDONLY)


def names(result: dirscan.Result) -> list[bytes]:
    return [child.name for child in result.children]


def test_resume_where_the_list_changed(zoo: Path, program: Program) -> None:
    """A run goes on at the child that it was cut at, or counts again if that is no longer there."""
    fd = fill(zoo / "many")
    first = program.run(fd)
    rest = names(program.run(fd, skip=first.seen))
    # Others before it: new children come to the front.
    program.run(fd)
    for name in ("new", "newer"):
        (zoo / "many" / name).touch()
        (zoo / "many" / name).stat()
    assert names(program.run(fd, skip=first.seen)) == rest
    # It has gone; where missing names are cached, it stays in the list without an inode.
    again = program.run(fd)
    rest = names(program.run(fd, skip=again.seen))
    program.run(fd)
    (zoo / "many" / os.fsdecode(rest[0])).unlink()
    assert names(program.run(fd, skip=again.seen))[: len(rest) - 1] == rest[1:]
    # It has moved to another directory: what is before it is counted again.
    again = program.run(fd)
    rest = names(program.run(fd, skip=again.seen))
    program.run(fd)
    (zoo / "many" / os.fsdecode(rest[0])).rename(zoo / "elsewhere")
    assert names(program.run(fd, skip=again.seen))[: len(rest) - 1] == rest[1:]
    os.close(fd)


def test_resume_after_another_directory(zoo: Path, program: Program) -> None:
    one, other = fill(zoo / "one"), fill(zoo / "other")
    first = program.run(one)
    rest = names(program.run(one, skip=first.seen))
    program.run(one)
    assert program.run(other).status == dirscan.FULL
    assert names(program.run(one, skip=first.seen)) == rest
    os.close(one)
    os.close(other)


def test_limit(zoo: Path, program: Program) -> None:
    """Names that do not exist are cached, too: a run ends after so many, and is resumed."""
    missing = zoo / "folder"
    for i in range(1500):
        with pytest.raises(FileNotFoundError):
            (missing / f"missing-{i}").stat()
    (missing / "there").touch()
    for i in range(1500):
        with pytest.raises(FileNotFoundError):
            (missing / f"also-missing-{i}").stat()
    fd = os.open(missing, os.O_RDONLY)
    first = program.run(fd)
    if first.seen == 1:
        pytest.skip(f"{zoo} is on a file system that does not cache missing names")
    assert first.status == dirscan.LIMIT
    whole = program.run_all(fd)
    os.close(fd)
    assert (whole.status, set(whole.by_name)) == (dirscan.OK, {b"there"})
