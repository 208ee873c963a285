# SPDX-License-Identifier: MIT
"""Explicit compounds in the kernel: the same as by plain calls, and nothing less."""

from __future__ import annotations

from pathlib import Path

from kmod.vm import Kernel, Machine
from synth.compile import compile_profile, load_profile
from tests.conftest import ROOT
from tests.vm.programs import build_program

VECTORS = ROOT / "tests" / "vectors" / "explicit.cosy"


def test_same_in_the_kernel_and_by_plain_calls(
    kernel: Kernel, cosy_module: Path, tmp_path: Path
) -> None:
    image = tmp_path / "explicit.img"
    image.write_bytes(compile_profile(load_profile(VECTORS), "test"))
    machine = Machine(
        kernel,
        programs=["cmp"],
        files={
            "/submit": build_program("submit", tmp_path),
            "/explicit.img": image,
        },
        own_modules=[(cosy_module, "")],
        icount=True,  # a busy host cannot make one of the two miss a deadline
    )
    # Each works on a place of its own, which looks the same; slurp reads one that nobody changes.
    script = """set -e
    for way in kernel plain; do
        [ $way = plain ] && export PLAIN=1
        mkdir -p /tmp/$way /tmp/tree/folder
        k=0
        while [ $way = kernel -a $k -lt 200 ]; do
            k=$((k + 1))
            echo $k $k $k >/tmp/tree/file-$k
        done
        [ $way = plain ] || ln -s file-3 /tmp/tree/link
        cd /tmp/$way
        for name in replace arrange; do
            echo some >in
            echo old >out
            /submit /explicit.img $name >$name.txt
            ls -R . | grep -v txt >after-$name
        done
        /submit /explicit.img slurp /tmp/tree >slurp.txt
        /submit /explicit.img probe >probe.txt
    done
    cd /tmp
    for name in replace arrange slurp probe; do
        cmp kernel/$name.txt plain/$name.txt
        grep 'status 0' kernel/$name.txt
    done
    cmp kernel/after-replace plain/after-replace
    cmp kernel/after-arrange plain/after-arrange
    """
    result = machine.run(script).check()
    lines = result.stdout.decode().splitlines()
    assert len(lines) == 4
    # openat, fstat, read twice, close for each file, and what is not one; entries as well
    assert int(lines[2].split()[2]) > 200 * 5
