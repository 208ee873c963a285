# SPDX-License-Identifier: MIT
"""Files that are answered from what the module read ahead: nobody can tell, watchers included."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from kmod.vm import Kernel, Machine, build_module
from tests.vm.programs import build_program
from tests.vm.stock import AUTO, stock_machine, tree_image
from tests.vm.test_module import any_kernel  # noqa: F401 (a fixture)

SLURPS = Path(__file__).parents[1] / "native" / "programs" / "slurps.c"
# Of what slurps.c knows; all of it runs in tests/native/test_files.py.
KINDS = (
    "none", "dup", "fork", "exec", "mmap", "pread", "stat", "another", "create", "signal", "list",
    "range", "path", "unlink", "replace", "append", "random:1", "random:2",
)  # fmt: skip
# What ahead.c says of each case.
CASES = """
file: ahead
empty: ahead
most: ahead
more: left
inotify: left
inotify on its folder: left
no more: ahead
fanotify: left
fanotify on the file system: left
no more: ahead
lock: left
lease: left
no more: ahead
access time would move: left
link: left
fifo: left
folder: left
none: left
folder/a: ahead
./folder/a: ahead
""".lstrip()
# 40 files of 100 to 4,000 bytes, and copies of them: a process for each would take long here.
MASTER = """mkdir /t; mount -t tmpfs -o relatime t /t; mkdir /t/master; i=0
while [ $i -lt 40 ]; do i=$((i+1)); head -c $((i*100)) /mnt/linux/fs.h >/t/master/file$i; done
make() { rm -rf $1; cp -r /t/master $1; touch -d 2020-01-01 $1/*; }
settle() { sleep 0.02; cat $1/* >/dev/null; sleep 0.02; }
"""


@pytest.fixture(scope="session")
def ahead(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tests/vm/programs/ahead.c."""
    return build_program("ahead", tmp_path_factory.mktemp("ahead"))


def answers(report: str, compound: str) -> int:
    """Calls that a compound answered, as --stats says."""
    found = re.search(rf"^ *{compound} +[\d,]+ +[\d,]+ +([\d,]+)$", report, re.M)
    assert found, report
    return int(found[1].replace(",", ""))


def test_only_what_leaves_no_trace_is_read_ahead(any_kernel: Kernel, ahead: Path) -> None:  # noqa: F811
    """Watches, leases, locks, access times, kinds of files."""
    own = [(build_module(any_kernel), "")]
    machine = Machine(any_kernel, files={"/ahead": ahead}, own_modules=own)
    script = """mkdir /t; mount -t tmpfs -o relatime t /t; mkdir /t/x
    /ahead cases /t/x; rmmod cosy && echo unloaded"""
    assert machine.run(script).check().stdout.decode() == f"{CASES}unloaded\n"


def slurping(
    kernel: Kernel, module: Path, native: Path, folder: Path, files: dict[str, Path]
) -> Machine:
    """The stock programs, and a folder of files at /t/d made by `make /t/d`."""
    machine = stock_machine(kernel, native, module, folder, tree_image(kernel, "uapi"))
    # counted, so that no answer gets too old on a busy host
    return replace(machine, icount=True, files={**machine.files, **files})


def test_nobody_can_tell(
    kernel: Kernel, cosy_module: Path, native_dir: Path, tmp_path: Path
) -> None:
    """What a program does with a descriptor in between, kind by kind; each is answered at first."""
    program = tmp_path / "slurps"
    command = ["cc", "-O2", "-pthread", "-o", program, SLURPS]
    subprocess.run([str(word) for word in command], check=True)
    machine = slurping(kernel, cosy_module, native_dir, tmp_path, {"/slurps": program})
    script = f"""chmod 666 /dev/cosy; {MASTER}
    for kind in {" ".join(KINDS)}; do
        words=$(echo $kind | tr : ' ')
        for auto in "" "{" ".join(AUTO)} --stats"; do
            make /t/d; settle /t/d; mv /tmp/out /tmp/native 2>/dev/null
            $auto /slurps /t/d $words >/tmp/out 2>/tmp/errors; echo $? >>/tmp/out
        done
        cmp /tmp/out /tmp/native &&
            echo $kind $(awk '$1 == "directory-slurp" {{ print $4 }}' /tmp/errors)
    done"""
    result = machine.run(script, timeout_s=300).check()
    assert result.stderr == b""
    lines = [line.split() for line in result.stdout.decode().splitlines()]
    assert [kind for kind, *_ in lines] == list(KINDS)
    assert min(int(served.replace(",", "")) for _, served in lines) >= 20


def test_access_times_and_watchers(
    kernel: Kernel, cosy_module: Path, native_dir: Path, tmp_path: Path, ahead: Path
) -> None:
    """Access times move as they do without us, and who watches sees the same."""
    machine = slurping(kernel, cosy_module, native_dir, tmp_path, {"/ahead": ahead})
    auto = " ".join(AUTO)
    script = f"""chmod 666 /dev/cosy; {MASTER}
    for auto in "" "{auto}"; do
        make /t/d; sleep 0.02; $auto grep -r xyz /t/d || :
        find /t/d -newer /t/d/file1 | wc -l; stat -c %x /t/d/file* | grep -c ^2020
        for i in 1 2; do /ahead events /t/d $auto grep -r xyz /t/d | sort >/tmp/events; done
        wc -l </tmp/events; md5sum </tmp/events
    done
    {auto} --stats grep -r xyz /t/d || :"""
    result = machine.run(script).check()
    lines = result.stdout.decode().split("\n")
    half = len(lines) // 2
    assert lines[:half] == lines[half : 2 * half]
    assert lines[1] == "0"
    assert int(lines[2]) > 100
    assert answers(result.stderr.decode(), "directory-slurp") > 120
