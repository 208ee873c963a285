# SPDX-License-Identifier: MIT
"""Compounds by hand, as plain calls: the documented examples do what they say."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from synth import explicit
from synth.explicit import Context, Op, Program, RefusedError, Want
from tests.conftest import ROOT, built
from tests.native.explicit import (
    EXAMPLES,
    c_numbers,
    check_layout,
    files_of,
    python_examples,
    request,
)
from tests.vm.programs import FOLDER as VM_PROGRAMS
from tests.vm.programs import build_program

PLAIN = {**os.environ, "PLAIN": "1"}
OUTPUTS = [
    "/etc/passwd {size}\n/etc/no-such-file No such file or directory\n",
    "5050\n",
    None,
    "True\n",
    "{size}\n",
]


@pytest.fixture(scope="module", autouse=True)
def library(native_dir: Path) -> None:
    """The library must be built."""
    built("build", "kmod/user/libcosy-compound.so")
    assert native_dir


@pytest.fixture
def context() -> Context:
    """Plain calls, wherever the tests run."""
    return Context(1 << 20, plain=True)


def test_structures_are_the_headers(tmp_path: Path) -> None:
    """Each structure and field has the size and the place that the C headers give it."""
    check_layout(explicit.STRUCTURES, "cosy.h", tmp_path)
    constants = c_numbers("cosy.h", ["COSY_I_MAX", "COSY_N_REGS"], tmp_path)
    assert constants == [len(Op), explicit.N_REGISTERS]


@pytest.mark.parametrize("number", range(len(OUTPUTS)))
def test_documented_python(number: int) -> None:
    """The page's programs run as they stand, and print what they should."""
    examples = python_examples()
    assert len(examples) == len(OUTPUTS)
    done = subprocess.run(
        [sys.executable, "-c", examples[number]], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    expected = OUTPUTS[number]
    if expected is None:
        assert int(done.stdout.removeprefix("lines: ")) > 0
    else:
        assert done.stdout == expected.format(size=os.path.getsize("/etc/passwd"))


def test_grep(tmp_path: Path) -> None:
    """Lines as grep's, in files of every size; a file that is not there is told."""
    files = files_of(tmp_path / "files")
    program = build_program("grep", tmp_path, EXAMPLES)
    ours = subprocess.run([program, "needle", *files], env=PLAIN, capture_output=True)
    theirs = subprocess.run(["grep", "-F", "needle", *files], capture_output=True)
    assert theirs.stdout.count(b"\n") == 3
    assert (ours.stdout, ours.returncode) == (theirs.stdout, 0)
    missing = subprocess.run([program, "x", tmp_path / "no"], env=PLAIN, capture_output=True)
    assert (missing.returncode, missing.stderr.count(b"No such file")) == (2, 1)


def test_copy(tmp_path: Path) -> None:
    """The copy is whole; what is there is not written over."""
    source = files_of(tmp_path / "files")[2]
    program, target = build_program("copy", tmp_path, EXAMPLES), tmp_path / "copied"
    assert subprocess.run([program, source, target], env=PLAIN).returncode == 0
    assert target.read_bytes() == source.read_bytes()
    again = subprocess.run([program, source, target], env=PLAIN, capture_output=True)
    assert (again.returncode, again.stderr.count(b"File exists")) == (1, 1)


def test_serve(tmp_path: Path) -> None:
    """Files are served whole; what is not there, or elsewhere, is 404."""
    large = files_of(tmp_path / "files")[2]
    program = build_program("serve", tmp_path, EXAMPLES)
    command = [program, large.parent, "3"]
    with subprocess.Popen(command, env=PLAIN, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        head = b"HTTP/1.0 200 OK\r\n\r\n"
        assert request(port, "/large") == head + large.read_bytes()
        for path in ("/absent", "/../files/large"):
            assert request(port, path).startswith(b"HTTP/1.0 404 ")
    assert server.returncode == 0


def test_limits_and_resuming(context: Context) -> None:
    """A run that uses up its operations goes on where it ended."""
    program = Program()
    program.set(1, 100)
    with program.loop(1):
        program.emit(Op.ADD, dst=2, a=2, b=1)
    program.exit()
    with context as c:
        number = c.load(program)
        first = c.run(number, ops=40)
        assert (first.status, first.ops) == (-7, 40)  # E2BIG
        second = c.run(number, resume=first)
        assert (second.status, second.registers[2]) == (0, 5050)
        c.unload(number)
        with pytest.raises(FileNotFoundError):
            c.run(number)


def test_addresses_are_checked(context: Context) -> None:
    """Nothing outside of the buffer is read or written, by instructions or by calls."""
    with context as c:
        end = len(c.buffer)
        for address, good in ((end - 8, True), (end - 7, False), (-8, False), (1 << 63, False)):
            program = Program()
            program.set(1, address)
            program.emit(Op.LD64, 2, 1)
            program.exit()
            assert (c.run(c.load(program)).status == 0) is good
        program = Program()
        program.call(1, "pread64", 0, end - 10, 11, 0)
        program.call(2, "openat", explicit.AT_FDCWD, end - 1, 0)
        program.exit()
        c.buffer[end - 1] = ord("x")  # a name that does not end
        done = c.run(c.load(program))
        assert [done.signed(1), done.signed(2)] == [-14, -14]  # EFAULT


def test_what_is_not_allowed(context: Context) -> None:
    """Calls off the list, writes in a pure program, jumps out, and a program without an end."""
    with context as c:
        for write, pure in (("kill", False), ("execve", False), ("write", True)):
            program = Program()
            program.call(0, write)
            program.exit()
            with pytest.raises(RefusedError):
                c.load(program, pure=pure)
        endless = Program()
        endless.set(1, 1)
        with pytest.raises(RefusedError) as caught:
            c.load(endless)
        assert caught.value.at == 0
        jump = Program()
        jump.emit(Op.JMP, imm=5)
        jump.exit()
        with pytest.raises(RefusedError):
            c.load(jump)


def test_files_in_several_crossings(tmp_path: Path) -> None:
    """More files than the buffer holds come all the same, each once and in order."""
    names = []
    for number in range(300):
        path = tmp_path / f"file-{number}"
        path.write_text("x" * number)
        names.append(path)
    with Context(1 << 16, plain=True) as c:
        found = list(c.files([*map(str, names), str(tmp_path / "no")]))
    assert [entry.data for entry in found] == [b"x" * number for number in range(300)] + [b""]
    assert found[-1].error == -2
    assert all(entry.whole for entry in found[:-1])


def test_entries_in_several_crossings(tmp_path: Path) -> None:
    """Every name once, with attributes, and where a link leads."""
    for number in range(200):
        (tmp_path / f"name-{number}").write_bytes(b"y" * number)
    (tmp_path / "link").symlink_to("name-7")
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    with Context(1 << 13, plain=True) as c:
        found = list(c.entries(directory, want=Want.LINK))
    os.close(directory)
    assert len(found) == 201
    sizes = {entry.name.decode(): entry.size for entry in found}
    assert sizes == {path.name: path.lstat().st_size for path in tmp_path.iterdir()}
    assert [entry.data for entry in found if entry.name == b"link"] == [b"name-7"]


def test_a_socket_is_served(context: Context) -> None:
    """Calls on sockets, with NULL where there is no address."""
    here, there = socket.socketpair()
    program = Program()
    program.call(1, "recvfrom", there.fileno(), 0, 100, 0, -1, -1)
    program.emit(Op.MOV, 18, 1)
    program.set(16, there.fileno())
    program.set(17, 0)
    program.set(19, 0)
    program.set(20, -1)
    program.set(21, 0)
    program.call(2, "sendto")
    program.exit()
    with context as c, here, there:
        here.sendall(b"hello")
        done = c.run(c.load(program))
        assert (done.signed(1), done.signed(2)) == (5, 5)
        assert here.recv(100) == b"hello"


def test_many_sockets_at_once(tmp_path: Path) -> None:
    """Accepting, receiving and sending in batches do what the calls do one by one."""
    program = build_program("sockets", tmp_path, VM_PROGRAMS)
    ran = subprocess.run([program, "plain"], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout
    assert re.fullmatch(r"[1-9]\d* checks\n", ran.stdout)
