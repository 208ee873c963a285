# SPDX-License-Identifier: MIT
"""The harness itself: what a guest's command says and does comes out, and so does its end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kmod.vm import (
    CrashError,
    Disk,
    FailedError,
    Kernel,
    Machine,
    TimedOutError,
    build_module,
    make_ext4,
)
from kmod.vm.kernels import locked

PROBE = """
#include <linux/module.h>
static int number = 1;
module_param(number, int, 0444);
static int __init probe_init(void)
{
	WARN_ON(number == 13);
	return 0;
}
static void __exit probe_exit(void) {}
module_init(probe_init);
module_exit(probe_exit);
MODULE_LICENSE("GPL");
"""


@pytest.fixture(scope="session")
def probe(kernel: Kernel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A module that warns about an unlucky number."""
    folder = tmp_path_factory.mktemp("probe")
    (folder / "module").mkdir()
    (folder / "module" / "probe.c").write_text(PROBE)
    (folder / "module" / "Makefile").write_text("obj-m := probe.o\n")
    return build_module(kernel, folder, folder / "build")


def test_output_exit_code_and_kernel(kernel: Kernel) -> None:
    """Both outputs byte by byte, the exit code, and a dynamically linked program of the host."""
    script = "ls --version | head -n 1; printf '\\000\\r\\n\\377'; uname -r >&2; exit 7"
    result = Machine(kernel, programs=["ls"]).run(script)
    first, _, rest = result.stdout.partition(b"\n")
    assert first.startswith(b"ls (GNU coreutils)")
    assert rest == b"\0\r\n\xff"
    assert result.stderr.decode().strip() == kernel.release
    assert result.returncode == 7
    assert result.complaints == []


def test_module_is_inserted_and_its_warning_is_a_complaint(kernel: Kernel, probe: Path) -> None:
    """A module of ours gets its parameters; what the kernel complains about is found."""
    machine = Machine(kernel, own_modules=[(probe, "number=13")])
    result = machine.run(["cat", "/sys/module/probe/parameters/number"])
    assert result.stdout == b"13\n"
    assert any("WARNING:" in line for line in result.complaints)
    with pytest.raises(FailedError, match=r"(?s)complained:.*WARNING:.*Call Trace:.*probe_init"):
        result.check()


def test_a_failed_command_is_told_with_its_output(kernel: Kernel) -> None:
    """What it printed, and the kernel's last lines, though nothing in them is a complaint."""
    result = Machine(kernel).run("echo '<4>cosy-test-mark' >/dev/kmsg; echo said >&2; exit 3")
    assert result.check(returncode=3) is result
    with pytest.raises(FailedError, match=r"(?s)exit code 3.*said.*cosy-test-mark"):
        result.check()


def test_disk_keeps_nothing(kernel: Kernel, tmp_path: Path) -> None:
    """A folder as an ext4 disk, writable; the image stays as it was."""
    folder = tmp_path / "content"
    (folder / "below").mkdir(parents=True)
    (folder / "below" / "file").write_text("text")
    (folder / "link").symlink_to("below/file")
    image = make_ext4(folder, tmp_path / "disk.img", 16)
    before = image.read_bytes()
    script = "cat /mnt/link; stat -f -c %T /mnt; echo more >/mnt/new && sync && cat /mnt/new"
    result = Machine(kernel, disks=[Disk(image)]).run(script)
    assert result.stdout == b"textext2/ext3\nmore\n"
    assert image.read_bytes() == before


def test_instructions_are_counted(kernel: Kernel) -> None:
    """With icount a loop of twice the length takes twice the virtual time on any host."""
    script = """
    now() { awk '/^now at/ { print $3 }' /proc/timer_list; }
    now; awk 'BEGIN { for (i = 0; i < 40000; i++); }'
    now; awk 'BEGIN { for (i = 0; i < 80000; i++); }'
    now
    """
    machine = Machine(kernel, icount=True)
    first, second = machine.run(script).stdout, machine.run(script).stdout
    t0, t1, t2 = map(int, first.split())
    assert (t2 - t1) / (t1 - t0) == pytest.approx(2, rel=0.2)
    u0, u1, u2 = map(int, second.split())
    assert (u1 - u0, u2 - u1) == pytest.approx((t1 - t0, t2 - t1), rel=0.1)


def test_page_table_isolation_can_be_asked_for(kernel: Kernel) -> None:
    """Words for the kernel's command line arrive."""
    result = Machine(kernel, append="pti=on").run("grep -wo pti /proc/cpuinfo")
    assert result.stdout == b"pti\n"


def test_panic_is_told_with_the_console(kernel: Kernel) -> None:
    """A kernel that dies is no result, and its last words are in the message."""
    with pytest.raises(CrashError, match="sysrq triggered crash"):
        Machine(kernel).run("echo c >/proc/sysrq-trigger; sleep 30")


def test_timeout_ends_the_guest(kernel: Kernel) -> None:
    """A guest that hangs tells what it was doing and is killed; nothing of it stays behind."""
    with pytest.raises(TimedOutError, match=r"(?s)killed after.* S +sleep +[0-9]+"):
        Machine(kernel, append="cosy_test_timeout").run("sleep 1000", timeout_s=12)
    processes = subprocess.run(["ps", "-A", "-o", "args"], capture_output=True, text=True).stdout
    assert not [line for line in processes.splitlines() if "cosy_test_timeout" in line]


def test_command_line(kernel: Kernel) -> None:
    """`python -m kmod.vm run` passes output and exit code on; 125 is its own failure."""
    assert kernel.release
    harness = [sys.executable, "-m", "kmod.vm", "run"]
    done = subprocess.run([*harness, "sh", "-c", "echo out; exit 3"], capture_output=True)
    assert (done.returncode, done.stdout) == (3, b"out\n")
    done = subprocess.run([*harness, "--kernel", "1.0", "true"], capture_output=True)
    assert done.returncode == 125
    assert done.stderr.startswith(b"vm: no Debian kernel 1.0: apt-get offers ")


def test_a_kernel_is_not_waited_for_while_another_is_built(tmp_path: Path) -> None:
    """6.1, 6.12 and 6.1-debug shared one lock: everything stood still for a build."""
    for version in ("6.1", "6.12", "6.1-debug"):
        with locked(tmp_path / version):
            pass
    assert len(list(tmp_path.iterdir())) == 3
