# SPDX-License-Identifier: MIT
"""A virtual machine: what is in it, and one run of a command."""

from __future__ import annotations

import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kmod.vm.errors import CrashError, FailedError, TimedOutError, UnavailableError
from kmod.vm.initramfs import Initramfs
from kmod.vm.kernels import Kernel
from kmod.vm.log import complaints

QEMU = "qemu-system-x86_64"
INIT = Path(__file__).with_name("init")
PORTS = ("stdout", "stderr", "status", "dmesg")
BASE_MODULES = ("virtio_pci", "virtio_console")
DISK_MODULES = ("virtio_blk",)
KILL_AFTER_S = 5
LAST_WORDS_S = 30
# All tasks, locks and CPUs: a guest whose time is over tells whether it hangs, and where.
LAST_WORDS = "unknown_nmi_panic panic_print=0x49"


@dataclass(frozen=True)
class Disk:
    """A disk image. What the guest writes is thrown away when it ends.

    `options` are mount's. Where `mount` is None the guest sees the device only.
    """

    image: Path
    mount: str | None = "/mnt"
    filesystem: str = "ext4"
    options: str = "rw,noatime"


@dataclass(frozen=True)
class Result:
    """What a command did in the guest, and what the guest's kernel said meanwhile."""

    returncode: int
    stdout: bytes
    stderr: bytes
    console: str
    dmesg: str
    wall_s: float

    @property
    def complaints(self) -> list[str]:
        """Lines of the kernel's log that tell of a bug: oops, warning, lockdep report..."""
        return complaints(self.dmesg)

    def check(self, returncode: int = 0) -> Result:
        """This result. Raises FailedError if there are complaints or the exit code is another."""
        if self.returncode == returncode and not self.complaints:
            return self
        said = (self.stdout + self.stderr).decode(errors="replace")
        raise FailedError(f"exit code {self.returncode}, output:\n{said}", self.dmesg)


@dataclass(frozen=True)
class Machine:
    """A virtual machine to be booted, once per run.

    programs: of the host, by name or path, with their libraries, at the same path in the guest.
    files: path in the guest -> file or directory of the host.
    modules: of the kernel, by name. own_modules: .ko files, with parameters, inserted last.
    icount: count instructions; the guest's clocks advance 1 ns per instruction, on one CPU.
    """

    kernel: Kernel
    programs: Sequence[str] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
    modules: Sequence[str] = ()
    own_modules: Sequence[tuple[Path, str]] = ()
    disks: Sequence[Disk] = ()
    append: str = ""
    memory_mib: int = 512
    cpus: int = 1
    icount: bool = False

    def run(self, command: Sequence[str] | str, timeout_s: float = 180) -> Result:
        """Boot, run `command` (words, or a script for sh) as root, power off.

        Raises CrashError if a kernel bug ends the guest, TimedOutError after `timeout_s` in all.
        """
        if shutil.which(QEMU) is None:
            raise UnavailableError(f"{QEMU} is not installed: apt-get install qemu-system-x86")
        with tempfile.TemporaryDirectory(prefix="cosy-vm-") as name:
            folder = Path(name)
            self._initramfs(command).write(folder / "initramfs")
            start = time.monotonic()
            returncode = self._boot(folder, timeout_s)
            wall_s = time.monotonic() - start
            return self._collect(folder, returncode, wall_s)

    def arguments(self, folder: Path) -> list[str]:
        """QEMU's command line; its files are in `folder`."""
        words = [QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
        if self.icount:
            # erms and fsrm off: each byte of a string instruction would count as one instruction.
            words += ["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"]
            words += ["-cpu", "max,-erms,-fsrm"]
        else:
            words += ["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", str(self.cpus)]
        words += ["-machine", "q35", "-m", str(self.memory_mib), "-kernel", str(self.kernel.image)]
        words += ["-initrd", str(folder / "initramfs"), "-serial", f"file:{folder}/console"]
        # no_timer_check: on a busy host the timer's test at boot comes too late, and panics.
        append = "console=ttyS0 quiet loglevel=5 panic=-1 oops=panic random.trust_cpu=on "
        append += LAST_WORDS
        # notests: on newer kernels a thread that tests ciphers takes the CPU for ticks on end.
        append += " no_timer_check cryptomgr.notests=1"
        words += ["-append", f"{append} {self.append}".rstrip()]
        words += ["-chardev", f"socket,id=monitor,path={folder}/monitor,server=on,wait=off"]
        words += ["-mon", "chardev=monitor", "-device", "virtio-serial-pci"]
        for number, port in enumerate(PORTS, 1):
            words += ["-chardev", f"file,id={port},path={folder}/{port}"]
            words += ["-device", f"virtserialport,nr={number},chardev={port},name={port}"]
        for number, disk in enumerate(self.disks):
            drive = f"file={disk.image},format=raw,if=none,id=disk{number},snapshot=on"
            words += ["-drive", drive, "-device", f"virtio-blk-pci,drive=disk{number}"]
        return words

    def _boot(self, folder: Path, timeout_s: float) -> int | None:
        """QEMU's exit code; None: the time was over."""
        # timeout(1) ends the guest even if we are killed first.
        limit = ["timeout", f"--kill-after={KILL_AFTER_S}", str(timeout_s + LAST_WORDS_S)]
        with (
            open(folder / "qemu", "wb") as log,
            subprocess.Popen(
                [*limit, *self.arguments(folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            ) as guest,
        ):
            try:
                return guest.wait(timeout_s)
            except subprocess.TimeoutExpired:
                with socket.socket(socket.AF_UNIX) as monitor:
                    monitor.connect(str(folder / "monitor"))
                    monitor.sendall(b"nmi\n")
                    guest.wait()
                return None

    def _initramfs(self, command: Sequence[str] | str) -> Initramfs:
        archive = Initramfs()
        archive.busybox()
        archive.data("/init", INIT.read_bytes(), 0o755)
        for folder in ("/proc", "/sys", "/dev", "/tmp", "/root", "/run", "/mnt"):
            archive.directory(folder)
        archive.data(
            "/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n"
        )
        archive.data("/etc/group", "root:x:0:\nuser:x:1000:\ncosy:x:990:user\n")
        # Not busybox's shell: that prefers its own commands to those in PATH.
        archive.program("/bin/sh")
        for program in self.programs:
            archive.program(program)
        for path, source in self.files.items():
            archive.copy(source, path)
        self._add_modules(archive)
        mounts = [
            f"vd{chr(ord('a') + number)} {disk.mount} {disk.filesystem} {disk.options}\n"
            for number, disk in enumerate(self.disks)
            if disk.mount is not None
        ]
        archive.data("/vm/disks", "".join(mounts))
        script = command if isinstance(command, str) else "exec " + shlex.join(command) + "\n"
        archive.data("/vm/command", script)
        return archive

    def _add_modules(self, archive: Initramfs) -> None:
        names = [*BASE_MODULES]
        if self.disks:
            names += [*DISK_MODULES, *dict.fromkeys(disk.filesystem for disk in self.disks)]
        order = []
        for path in self.kernel.modules([*names, *self.modules]):
            name = path.name.removesuffix(".xz")
            archive.copy(path, f"/vm/modules/{name}")
            order.append(f"{name}\n")
        archive.data("/vm/module-order", "".join(order))
        for path, _ in self.own_modules:
            archive.copy(path, f"/vm/own/{path.name}")
        own = [f"{path.name} {parameters}\n" for path, parameters in self.own_modules]
        archive.data("/vm/own-order", "".join(own))

    def _collect(self, folder: Path, qemu_code: int | None, wall_s: float) -> Result:
        def text(name: str) -> str:
            path = folder / name
            return path.read_text(errors="replace") if path.exists() else ""

        console, status = text("console"), text("status").strip()
        if not status:
            if qemu_code is None:
                raise TimedOutError(f"the guest was killed after {wall_s:.0f} s", console)
            said = text("qemu").strip() or f"QEMU exited with {qemu_code}"
            raise CrashError(f"the guest ended without a result ({said})", console)
        stdout, stderr = (folder / "stdout").read_bytes(), (folder / "stderr").read_bytes()
        return Result(int(status), stdout, stderr, console, text("dmesg"), wall_s)
