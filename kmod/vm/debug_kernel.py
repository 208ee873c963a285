# SPDX-License-Identifier: MIT
"""A kernel that finds bugs: Debian's source with KASAN, lockdep and kmemleak (debug.config).

It starts from nothing (allnoconfig), so that two cores build it in minutes: only what the virtual
machine and the module's tests need is in it, and nothing is a module.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from kmod.vm.errors import UnavailableError
from kmod.vm.kernels import Kernel, apt_options, command_output, locked
from kmod.vm.place import FOLDER

FRAGMENT = Path(__file__).with_name("debug.config")
SUFFIX = "-debug"
TOOLS = ("make", "gcc", "flex", "bison", "bc", "xz")


def obtain_debug(version: str = "6.1") -> Kernel:
    """The debug kernel made from Debian's source of `version`, built at the first call.

    That takes ten minutes on two cores and 2 GB of disk.
    Raises UnavailableError where it cannot be.
    """
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        raise UnavailableError(f"no kernel is built without: apt-get install {' '.join(missing)}")
    place = FOLDER / "kernels" / (version + SUFFIX)
    place.mkdir(parents=True, exist_ok=True)
    with locked(place):
        source = place / "source"
        if not source.exists():
            _fetch_source(version, place, source)
        config = FRAGMENT.read_text()
        done = place / "built.config"
        if not done.exists() or done.read_text() != config:
            _build(place, source)
            done.write_text(config)
    release = (source / "include" / "config" / "kernel.release").read_text().strip()
    # Not vmlinux: the PVH entry runs code that KASAN instruments before there is a shadow.
    return Kernel(release, source / "arch" / "x86" / "boot" / "bzImage", place, source)


def _fetch_source(version: str, place: Path, source: Path) -> None:
    scratch = place / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    command_output(
        ["apt-get", *apt_options(backports=False), "download", f"linux-source-{version}"],
        cwd=scratch,
    )
    package = next(scratch.glob("*.deb"))
    command_output(["dpkg-deb", "-x", str(package), str(scratch)])
    archive = scratch / "usr" / "src" / f"linux-source-{version}.tar.xz"
    command_output(["tar", "-xf", str(archive), "-C", str(scratch)])
    (scratch / f"linux-source-{version}").rename(source)
    shutil.rmtree(scratch)


def _build(place: Path, source: Path) -> None:
    jobs = f"-j{len(os.sched_getaffinity(0))}"
    make = ["nice", "-n", "10", "make", "-s", jobs, "-C", str(source)]
    _logged([*make, f"KCONFIG_ALLCONFIG={FRAGMENT}", "allnoconfig"], place)
    _check_config((source / ".config").read_text())
    _logged([*make, "bzImage", "modules"], place)
    _logged([*make, f"INSTALL_MOD_PATH={place}", "modules_install"], place)


def _check_config(config: str) -> None:
    """kconfig drops without a word what depends on something that is missing."""
    lines = set(config.splitlines())
    wanted = [line for line in FRAGMENT.read_text().splitlines() if line.startswith("CONFIG_")]
    dropped = [line for line in wanted if line not in lines]
    if dropped:
        raise UnavailableError(f"this source's configuration refuses {', '.join(dropped)}")


def _logged(command: list[str], place: Path) -> None:
    log = place / "build.log"
    with open(log, "ab") as file:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    if done.returncode != 0:
        raise UnavailableError(f"the debug kernel does not build, see {log}")
