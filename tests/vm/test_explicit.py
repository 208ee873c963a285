# SPDX-License-Identifier: MIT
"""Compounds by hand with the module: as by plain calls, bit by bit."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from kmod.vm import Disk, Kernel, Machine, make_ext4
from tests.conftest import ROOT, built
from tests.native.explicit import EXAMPLES, files_of, python_examples
from tests.vm.programs import build_program

ROUNDS = 400
STDLIB = Path("/usr/lib/python3.11")


@pytest.mark.parametrize("on", ["tmpfs", "ext4"])
def test_same_in_the_kernel_and_by_plain_calls(
    kernel: Kernel, cosy_module: Path, tmp_path: Path, on: str
) -> None:
    """Random programs and fused operations: outcome, registers and memory are the same."""
    disks = [Disk(make_ext4(None, tmp_path / "disk.img", 64), "/t")] if on == "ext4" else []
    mount = "mkdir /t; mount -t tmpfs t /t" if on == "tmpfs" else "true"
    machine = Machine(
        kernel,
        files={f"/{name}": build_program(name, tmp_path) for name in ("differ", "tree")},
        own_modules=[(cosy_module, "")],
        disks=disks,
        icount=True,  # a busy host cannot make one of the two miss a deadline
    )
    machine.run(f"{mount}; /tree /t 1 && /differ /t {ROUNDS} 1").check()


def test_many_sockets_at_once(kernel: Kernel, cosy_module: Path, tmp_path: Path) -> None:
    """Accepting, receiving and sending in batches do what the calls do, one by one."""
    program = build_program("sockets", tmp_path)
    machine = Machine(kernel, files={"/sockets": program}, own_modules=[(cosy_module, "")])
    machine.run("/sockets && /sockets plain").check()


def test_examples_in_the_kernel(kernel: Kernel, cosy_module: Path, tmp_path: Path) -> None:
    """The worked examples, in C: the outputs are those of grep, cp and cat."""
    folder = files_of(tmp_path / "files")[0].parent
    names = ("grep", "copy", "serve")
    machine = Machine(
        kernel,
        programs=["grep", "cmp"],
        files={
            **{f"/example/{name}": build_program(name, tmp_path, EXAMPLES) for name in names},
            "/files": folder,
        },
        own_modules=[(cosy_module, "")],
    )
    script = """set -e
    cd /files
    /example/grep needle * >/tmp/ours
    grep -F needle * >/tmp/theirs
    cmp /tmp/ours /tmp/theirs
    /example/copy large /tmp/copy
    cmp large /tmp/copy
    /example/copy large /tmp/copy 2>&1 | grep -q 'File exists'
    /example/serve /files 2 >/tmp/port &
    while [ ! -s /tmp/port ]; do sleep 0.1; done
    wget -q -O /tmp/page "http://127.0.0.1:$(cat /tmp/port)/large"
    cmp large /tmp/page
    ! wget -q -O /dev/null "http://127.0.0.1:$(cat /tmp/port)/absent"
    wait
    PLAIN=1 /example/grep needle * | cmp - /tmp/theirs
    [ "$(cut -d' ' -f3 /proc/modules | head -n 1)" != "" ]
    """
    machine.run(script).check()


@pytest.mark.skipif(not STDLIB.is_dir(), reason="needs Debian 12's python3 in /usr/lib/python3.11")
def test_documented_python_in_the_kernel(
    kernel: Kernel, cosy_module: Path, native_dir: Path
) -> None:
    """The page's programs, with the module."""
    assert native_dir
    library = built("build", "kmod/user/libcosy-compound.so")
    files = {f"/src/{name}": ROOT / name for name in ("tracer", "synth")}
    script = ["set -e", "export PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/src COSY_NATIVE_DIR=/native"]
    check = "from synth.explicit import Context; assert Context().in_kernel"
    for program in [check, *python_examples()]:
        script.append(f"python3 -c {shlex.quote(program)}")
    machine = Machine(
        kernel,
        programs=["/usr/bin/python3"],
        files={"/usr/lib/python3.11": STDLIB, "/native/" + library.name: library, **files},
        own_modules=[(cosy_module, "")],
        memory_mib=1024,
    )
    result = machine.run("\n".join(script), timeout_s=300).check()
    lines = result.stdout.decode().splitlines()
    assert lines[1:3] == ["/etc/no-such-file No such file or directory", "5050"]
    assert lines[-2] == "True"
    assert int(lines[-1]) > 0
