# SPDX-License-Identifier: MIT
"""Explicit compounds, handed over: what a program of one's own would see, call by call.

As plain calls here; tests/vm/test_submit.py compares them with the module.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from synth import submit
from synth.errors import SynthError
from synth.explicit import Context
from synth.submit import Ready, Result
from tests.conftest import ROOT, built
from tests.native.explicit import check_layout

VECTORS = ROOT / "tests" / "vectors" / "explicit.cosy"
LIMIT = "  limit ops 65536, bytes 64M, time 900ms\n"


@pytest.fixture(scope="module", autouse=True)
def library(native_dir: Path) -> None:
    """The library must be built."""
    assert native_dir
    built("build", "kmod/user/libcosy-compound.so")


@pytest.fixture
def context() -> Iterator[Context]:
    """Plain calls, and little room: results come in many pieces."""
    with Context(1 << 18, plain=True) as c:
        yield c


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: files of many sizes, a directory, links."""
    monkeypatch.chdir(tmp_path)
    for number in range(150):
        (tmp_path / f"file-{number}").write_bytes(bytes([number]) * (number * 97))
    (tmp_path / "large").write_bytes(b"large" * 20000)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inner").write_bytes(b"inner")
    (tmp_path / "link").symlink_to("file-7")
    (tmp_path / "broken").symlink_to("nowhere")
    return tmp_path


def explicit(body: str, clauses: str = "  once\n", limit: str = LIMIT) -> str:
    """A compound with that body."""
    return f"explicit compound test\n{clauses}{body}{limit}"


def by_item(results: tuple[Result, ...], op: int) -> dict[bytes, Result]:
    """The results of one call of the body; it made one in each iteration at most."""
    found = {}
    for result in results:
        if result.op == op:
            assert result.item not in found
            found[result.item] = result
    return found


def contents(results: tuple[Result, ...], op: int) -> dict[bytes, bytes]:
    """What an `until` call read."""
    found: dict[bytes, bytes] = {}
    for result in results:
        if result.op == op:
            assert len(result.data) == max(result.ret, 0)
            found[result.item] = found.get(result.item, b"") + result.data
    return found


ENTRIES = "  where scanned(D) and child(D, name)\n  each e in entries(D)\n"
SLURP = """\
    call   openat(D, e.name, O_CLOEXEC|O_NOFOLLOW|O_NONBLOCK)
    call   fstat(result(0))
    until  read(result(0), out(4096), 4096) if type(1) == S_IFREG and size(1) <= 50000
    call   close(result(0))
"""


def test_every_entry_of_a_directory(context: Context, tree: Path) -> None:
    directory = os.open(tree, os.O_RDONLY)
    done = Ready(context, explicit(SLURP, ENTRIES)).run(directory)
    os.close(directory)
    assert done.status == 0
    opened = by_item(done.results, 0)
    assert {os.fsdecode(name) for name in opened} == set(os.listdir(tree))
    assert {name for name, r in opened.items() if r.ret == -errno.ELOOP} == {b"link", b"broken"}
    sizes = {
        name: int.from_bytes(r.data[48:56], "little")
        for name, r in by_item(done.results, 1).items()
    }
    assert sizes == {
        os.fsencode(p.name): p.stat().st_size for p in tree.iterdir() if not p.is_symlink()
    }
    small = {os.fsencode(p.name): p.read_bytes() for p in tree.glob("file-*")}
    assert contents(done.results, 2) == small
    assert all(r.ret == 0 for r in by_item(done.results, 3).values())
    # All descriptors are closed: the next one is as low as before.
    assert os.dup(0) == directory
    os.close(directory)


def test_it_runs_again(context: Context, tree: Path) -> None:
    ready = Ready(
        context, explicit("    call stat(p)\n", '  path "large", "none"\n  each p in paths\n')
    )
    for _ in range(3):
        done = ready.run()
        found = by_item(done.results, 0)
        assert found[b"none"].ret == -errno.ENOENT
        assert found[b"large"].data[48:56] == (100000).to_bytes(8, "little")
        (tree / "none").unlink(missing_ok=True)


@pytest.mark.usefixtures("tree")
def test_paths_are_joined(context: Context) -> None:
    body = '    call newfstatat(AT_FDCWD, p/"inner", 0)\n    call access(p, 4)\n'
    done = Ready(
        context, explicit(body, '  path "folder", "file-1", "absent"\n  each p in paths\n')
    ).run()
    first, second = by_item(done.results, 0), by_item(done.results, 1)
    assert [first[name].ret for name in (b"folder", b"file-1", b"absent")] == [
        0,
        -errno.ENOTDIR,
        -errno.ENOENT,
    ]
    assert [second[name].ret for name in (b"folder", b"file-1", b"absent")] == [
        0,
        0,
        -errno.ENOENT,
    ]


def test_a_path_below_d(context: Context, tree: Path) -> None:
    body = '    call readlink(D/e.name)\n    call stat(D/e.name/"inner")\n'
    ready = Ready(context, explicit(body, ENTRIES))
    directory = os.open(tree, os.O_RDONLY)
    os.chdir("/")
    links = by_item(ready.run(directory).results, 0)
    os.close(directory)
    assert {n: r.data for n, r in links.items() if r.ret >= 0} == {
        b"link": b"file-7",
        b"broken": b"nowhere",
    }
    assert links[b"large"].ret == -errno.EINVAL
    os.chdir(tree)
    directory = os.open(".", os.O_RDONLY)
    inner = by_item(ready.run(directory).results, 1)
    os.close(directory)
    assert [name for name, r in inner.items() if r.ret == 0] == [b"folder"]


def test_it_changes_things(context: Context, tree: Path) -> None:
    """Old calls by name, as those that the module makes."""
    body = """\
    call mkdir("made", 0o750)
    call rename("file-1", "made/moved") if ret(0) == 0
    call symlink("moved", "made/link")
    call open("made/new", 0o301, 0o600)
    call close(result(3))
    call link("made/new", "made/hard")
    call unlink("file-2") if errno(1) == 0
    call rmdir("folder")
    call chmod("file-3", 0o600)
    call unlink("file-4") if errno(0) != 0
"""
    done = Ready(context, explicit(body)).run()
    assert [r.ret for r in done.results if r.op != 3] == [0, 0, 0, 0, 0, 0, -errno.ENOTEMPTY, 0]
    assert (tree / "made" / "moved").read_bytes() == b"\1" * 97
    assert os.readlink(tree / "made" / "link") == "moved"
    assert (tree / "made" / "hard").stat().st_nlink == 2
    assert stat.S_IMODE((tree / "file-3").stat().st_mode) == 0o600
    assert not (tree / "file-2").exists()
    assert (tree / "file-4").exists()


CONDITIONS = [
    ("ret(0) == 0", True),
    ("ret(0) != 0", False),
    ("ret(0) >= -5", True),
    ("ret(0) <= -1", False),
    ("errno(0) == 0", True),
    ("errno(1) == 2", True),
    ("errno(1) >= 3", False),
    ("ret(1) == -2", True),
    ("ret(1) <= -2", True),
    ("ret(1) >= 0", False),
    ("type(0) == S_IFREG", True),
    ("type(0) == S_IFDIR", False),
    ("mode(0) == 0o640", True),
    ("size(0) == 679", True),
    ("size(0) <= 678", False),
    ("size(0) >= 680", False),
    ("size(1) >= 0", False),  # of a call that failed
    ("ret(2) >= -100", False),  # of one that did not run
    ("size(0) >= 1 and errno(1) == 2 and ret(0) == 0", True),
    ("size(0) >= 1 and errno(1) == 1", False),
]


@pytest.mark.parametrize(("condition", "holds"), CONDITIONS)
def test_conditions(context: Context, tree: Path, condition: str, holds: bool) -> None:
    (tree / "file-7").chmod(0o640)
    body = f"""\
    call stat("file-7")
    call stat("absent")
    call access("file-1", 0) if ret(0) == 1
    call access("file-2", 0) if {condition}
"""
    done = Ready(context, explicit(body)).run()
    assert [r.op for r in done.results] == ([0, 1, 3] if holds else [0, 1])


@pytest.mark.usefixtures("tree")
def test_what_comes_from_a_call_that_failed_does_not_run(context: Context) -> None:
    body = """\
    call openat(AT_FDCWD, "absent", 0)
    call fstat(result(0))
    call pread64(result(0), out(100), 100, size(1))
"""
    assert [r.op for r in Ready(context, explicit(body)).run().results] == [0]


def test_a_size_that_a_call_told(context: Context, tree: Path) -> None:
    """Never more than the buffer, whatever the file's size is."""
    body = """\
    call open(p, 0)
    call fstat(result(0))
    call read(result(0), out(1000), size(1)+1)
    call close(result(0))
"""
    done = Ready(context, explicit(body, '  path "file-3", "large"\n  each p in paths\n')).run()
    read = by_item(done.results, 2)
    assert read[b"file-3"].data == b"\3" * 291
    assert read[b"large"].data == (tree / "large").read_bytes()[:1000]


@pytest.mark.parametrize(
    ("limit", "status"),
    [
        ("  limit ops 17, bytes 64M, time 900ms\n", errno.E2BIG),
        ("  limit ops 65536, bytes 9K, time 900ms\n", errno.ENOBUFS),
        ("  limit ops 65536, bytes 64M, time 1us\n", errno.ETIME),
    ],
)
def test_limits(context: Context, tree: Path, limit: str, status: int) -> None:
    whole = Ready(context, explicit(SLURP, ENTRIES))
    short = Ready(context, explicit(SLURP, ENTRIES, limit))
    directory = os.open(tree, os.O_RDONLY)
    everything = whole.run(directory)
    os.lseek(directory, 0, os.SEEK_SET)
    done = short.run(directory)
    for descriptor in range(directory + 1, directory + 3):  # what was open when it ended
        try:
            os.close(descriptor)
        except OSError:
            continue
    os.close(directory)
    assert done.status == -status
    assert len(done.results) < len(everything.results)
    assert [(r.op, r.item) for r in done.results] == [
        (r.op, r.item) for r in everything.results[: len(done.results)]
    ]
    if status == errno.E2BIG:
        assert len(done.results) == 17


def test_d_that_cannot_be_read(context: Context, tree: Path) -> None:
    ready = Ready(context, explicit(SLURP, ENTRIES))
    with open(tree / "large") as file:
        assert ready.run(file.fileno()).status == -errno.ENOTDIR
    for wrong in (None, -1):
        with pytest.raises(OSError, match="Bad file descriptor"):
            ready.run(wrong)
    plain = Ready(context, explicit("    call getpid()\n"))
    with pytest.raises(OSError, match="Bad file descriptor"):
        plain.run(0)


REFUSED = {
    "a call off the list": explicit('    call truncate("file-1", 0)\n'),
    "call 1: uname": explicit('    call stat("x")\n    call uname(out(400))\n'),
    "no explicit compound": (ROOT / "synth" / "profiles" / "default.cosy").read_text(),
    "no compound may hold it": explicit("    call fork()\n"),
    "triggering call": explicit(
        "    call stat(trigger(0))\n", "  on stat(path)\n  when nth 1, entries 0\n  once\n"
    ),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_cannot_be_handed_over(context: Context, why: str) -> None:
    with pytest.raises(SynthError) as caught:
        Ready(context, REFUSED[why])
    assert "\n" not in str(caught.value)
    if why != "a call off the list":
        assert why in str(caught.value)


def test_one_of_several(context: Context, tree: Path) -> None:
    text = VECTORS.read_text()
    (tree / "in").write_bytes(b"some")
    (tree / "out").write_bytes(b"old")
    done = Ready(context, text, "replace").run()
    assert [r.ret for r in done.results if r.op != 0] == [4, 0, 0, 0]
    assert not (tree / "out").exists()
    with pytest.raises(SynthError, match="no explicit compound absent"):
        Ready(context, text, "absent")


def test_a_buffer_that_is_too_small() -> None:
    with Context(4096, plain=True) as c, pytest.raises(OSError, match="No buffer space"):
        Ready(c, explicit("    call getpid()\n"))


def test_structures_are_the_headers(tmp_path: Path) -> None:
    check_layout(submit.STRUCTURES, "cosy_compound.h", tmp_path)
