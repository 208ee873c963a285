# SPDX-License-Identifier: MIT
"""`cosy-doctor`: what works here, what does not, why, and the command that would change it."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from synth import store
from synth.errors import SynthError
from tracer import native
from tracer.command import Command
from tracer.interrupt import promised

BPFFS: Final = Path("/sys/fs/bpf")
DEVICE = Path("/dev/cosy")
PINS: Final = BPFFS / "cosy"  # COSY_BPF_PIN_DIR of kmod/uapi/cosy_bpf.h
PIN_NAMES: Final = ("buffers", "dirscan")
BPF_FS_MAGIC: Final = "bpf"
MINIMUM_KERNEL: Final = (6, 13)  # the dirscan program's tracepoint and map
# Modules that may answer differently for a program than for the record of a scan.
HARMLESS_MODULES: Final = frozenset({"capability", "lockdown", "yama", "landlock", "bpf", "ipe"})


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; `command` would change what is not `ok`."""

    what: str
    ok: bool
    detail: str
    command: str = ""


def architecture() -> Finding:
    """The shim patches x86-64 code of the GNU C library."""
    machine, libc = platform.machine(), platform.libc_ver()
    ok = machine == "x86_64" and libc[0] == "glibc"
    name = " ".join(libc) if libc[0] else "another C library"
    return Finding("machine", ok, f"{machine}, {name}" + ("" if ok else ": x86_64 and glibc only"))


def shim() -> Finding:
    """The library is built, and the cache of patched text can be written."""
    try:
        return Finding("shim", True, str(native.library()))
    except native.NativeFileError as error:
        return Finding("shim", False, str(error), "make setup")


def patching() -> Finding:
    """A real program under the shim in pass-through mode: does the loader take the library?"""
    import subprocess

    try:
        library = native.library()
    except native.NativeFileError:
        return Finding("patching", False, "no shim to try", "make setup")
    env = {**os.environ, "LD_PRELOAD": str(library), "COSY_SHIM": "mode=pass"}
    probe = shutil.which("grep") or "/bin/grep"
    # The library's own mapping in the program's memory map tells that it was loaded and stayed.
    command = [probe, "-c", native.LIBRARY, "/proc/self/maps"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return Finding("patching", True, "programs run under the shim")
    reason = done.stderr.strip().splitlines()
    return Finding("patching", False, reason[0] if reason else "the loader ignores the library")


def cache() -> Finding:
    """Patched library text is kept between runs."""
    try:
        folder = native.cache_folder()
    except OSError as error:
        return Finding("cache", False, f"none: {error}", "export XDG_CACHE_HOME=/a/folder/of/yours")
    if not os.access(folder, os.W_OK):
        return Finding("cache", False, f"{folder} is not writable", f"chown {os.getuid()} {folder}")
    problem = store.refusal(folder)
    if problem:
        return Finding("cache", False, f"{folder}: {problem}", f"chmod 700 {folder}")
    return Finding("cache", True, str(folder))


def profiles() -> Finding:
    """What `cosy-auto` would use."""
    try:
        shipped = store.find(None)
    except SynthError as error:
        return Finding("profiles", False, str(error), "make setup")
    try:
        own = store.stored()
    except SynthError as error:
        return Finding("profiles", True, f"{shipped}; none can be learnt: {error}")
    refused = [path for path in own if store.refusal(path)]
    if refused:
        return Finding("profiles", False, f"{refused[0]} is refused: {store.refusal(refused[0])}")
    return Finding("profiles", True, f"{shipped}; {len(own)} learnt in {store.folder()}")


def kernel() -> Finding:
    """Kernel release, for reports; features are probed, never derived from it."""
    return Finding("kernel", True, platform.release())


def btf() -> Finding:
    """The eBPF program finds the kernel's structures through BTF."""
    path = Path("/sys/kernel/btf/vmlinux")
    if path.exists():
        return Finding("kernel types", True, str(path))
    return Finding("kernel types", False, "no BTF: this kernel lacks CONFIG_DEBUG_INFO_BTF")


def bpffs() -> Finding:
    """Where loaded programs are pinned."""
    try:
        mounts = Path("/proc/self/mounts").read_text(errors="replace").splitlines()
    except OSError as error:
        return Finding("bpf file system", False, str(error))
    mounted = any(line.split()[1:3] == [str(BPFFS), BPF_FS_MAGIC] for line in mounts)
    command = "" if mounted else f"sudo mount -t bpf bpf {BPFFS}"
    return Finding("bpf file system", mounted, str(BPFFS), command)


def lockdown() -> Finding:
    """Kernel lockdown in confidentiality mode refuses programs that read kernel memory."""
    try:
        text = Path("/sys/kernel/security/lockdown").read_text()
    except OSError:
        return Finding("lockdown", True, "not in force")
    mode = text.partition("[")[2].partition("]")[0]
    ok = mode != "confidentiality"
    return Finding("lockdown", ok, mode, "" if ok else "boot with lockdown=integrity")


def security_modules() -> Finding:
    """A module that confines programs may answer them otherwise than a scan's record does."""
    try:
        modules = Path("/sys/kernel/security/lsm").read_text().strip().split(",")
    except OSError:
        return Finding("security modules", True, "not listed here (no securityfs)")
    confining = sorted(set(modules) - HARMLESS_MODULES)
    if not confining:
        return Finding("security modules", True, ", ".join(modules))
    detail = f"{', '.join(confining)}: programs that it confines run native"
    return Finding("security modules", True, detail)


def executor_bpf() -> Finding:
    """The eBPF executor: built, loaded, usable."""
    load = "cosy-bpf-load" if os.geteuid() == 0 else "sudo cosy-bpf-load"
    try:
        loader = native.find("cosy-bpf-load")
    except native.NativeFileError:
        command = "sudo apt-get install clang-19 libbpf-dev && make setup"
        return Finding("executor bpf", False, "not built", command)
    load = load.replace("cosy-bpf-load", str(loader))
    if not os.access(BPFFS, os.X_OK):
        detail = f"{BPFFS} is closed to this user"
        return Finding("executor bpf", False, detail, f"sudo chmod 755 {BPFFS} && {load}")
    missing = [name for name in PIN_NAMES if not (PINS / name).exists()]
    if missing:
        return Finding("executor bpf", False, "not loaded since boot (root loads it once)", load)
    if not os.access(PINS / PIN_NAMES[0], os.R_OK | os.W_OK):
        return Finding("executor bpf", False, f"the pins in {PINS} are closed to this user", load)
    return Finding("executor bpf", True, f"loaded: {PINS}")


def executor_module() -> Finding:
    """The kernel module: loaded, and open to this user."""
    if not DEVICE.exists():
        command = "sudo make -C kmod/module install"
        return Finding("executor module", False, "not loaded (docs/kernel-module.md)", command)
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        detail = f"{DEVICE} is closed to this user"
        return Finding("executor module", False, detail, "sudo adduser $USER cosy, log in again")
    return Finding("executor module", True, f"loaded: {DEVICE}")


def executor_ahead() -> Finding:
    """Directories read ahead by a thread on another processor, where eBPF runs."""
    if len(os.sched_getaffinity(0)) < 2:
        return Finding("executor ahead", False, "this process may use one processor only")
    how = "beside bpf, where asked for: cosy-auto --executor bpf,inline,ahead"
    return Finding("executor ahead", True, how)


def executor_inline() -> Finding:
    """Answers that follow from what is known: needs nothing."""
    return Finding("executor inline", True, "the ends of directories, while there are results")


def costs() -> Finding:
    """What predictions rest on: measured here, by this kernel, with page tables as they are now."""
    from miner import cost
    from synth import calibrate

    command = "cosy-doctor --calibrate"
    try:
        stored = cost.here().machine
    except cost.CalibrationError as error:
        return Finding("costs", False, str(error), command)
    if not stored:
        return Finding("costs", False, "not measured here: predictions are rough", command)
    if stored != calibrate.machine():
        return Finding("costs", False, f"measured elsewhere, or before: {stored}", command)
    return Finding("costs", True, f"measured: {stored}")


CHECKS: Final[tuple[Callable[[], Finding], ...]] = (
    architecture,
    shim,
    patching,
    cache,
    profiles,
    kernel,
    btf,
    bpffs,
    lockdown,
    security_modules,
    executor_bpf,
    executor_module,
    executor_ahead,
    executor_inline,
    costs,
)


def findings() -> Iterator[Finding]:
    """All checks, one after the other."""
    for check in CHECKS:
        yield check()


def render(finding: Finding) -> str:
    """One or two lines: the state, and the command that would change it."""
    line = f"{'yes' if finding.ok else 'no ':<4}{finding.what:<18}{finding.detail}"
    return f"{line}\n{'':<22}to change it: {finding.command}" if finding.command else line


def measure() -> None:
    """Calibrate, store and print; exits 1 with a line when it cannot."""
    from miner import cost
    from synth import calibrate

    path = cost.stored_path()
    if path is None:
        raise click.ClickException("no home folder: set XDG_DATA_HOME to an absolute path")
    try:
        with promised(path):
            costs = calibrate.calibrate()
            cost.save_calibration(costs, path)
    except (SynthError, OSError) as error:
        raise click.ClickException(str(error)) from None
    for line in calibrate.describe(costs):
        click.echo(line)
    click.echo(f"kept in {path}")


@click.command(cls=Command, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="cosy", prog_name="cosy-doctor")
@click.option("--calibrate", is_flag=True, help="Measure what calls cost here, and keep that.")
def main(calibrate: bool) -> None:
    """Say what of Cosy works here, what does not, why, and the command that would change it.

    Changes nothing, except that it makes the cache folder. With --calibrate it measures what calls
    and executors cost on this machine (half a minute) and keeps that for cosy-mine. Exit code: 0
    programs can run faster here, 1 they cannot (each `no` says why), or could not be measured.
    """
    if calibrate:
        measure()
        return
    results = {finding.what: finding for finding in findings()}
    for finding in results.values():
        click.echo(render(finding))
    needed = ("machine", "shim", "patching", "profiles", "executor bpf")
    raise SystemExit(0 if all(results[what].ok for what in needed) else 1)


if __name__ == "__main__":
    main()
