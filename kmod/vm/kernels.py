# SPDX-License-Identifier: MIT
"""Debian's kernels, downloaded and unpacked beside the sources instead of installed.

The kernel is booted as the ELF file inside vmlinuz (QEMU's PVH entry): that leaves out its
decompressor, which takes half of a boot under emulation, and address randomization.
"""

from __future__ import annotations

import fcntl
import gzip
import lzma
import os
import re
import shutil
import struct
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kmod.vm.errors import UnavailableError
from kmod.vm.place import FOLDER

META_IMAGE = "linux-image-amd64"
BACKPORTS = "backports"
# Hundreds of megabytes that no virtual machine of ours has hardware for.
LEFT_OUT = ("drivers/gpu", "drivers/media", "drivers/infiniband", "net/wireless", "sound")


@dataclass(frozen=True)
class Kernel:
    """A kernel that can be booted, and that modules can be built for.

    `root` holds its unpacked packages, `build` is what `make -C` takes.
    """

    release: str
    image: Path
    root: Path
    build: Path

    def modules(self, names: Sequence[str]) -> list[Path]:
        """Files of the modules `names` and of all that they need, in the order of insertion."""
        found: dict[Path, None] = {}
        for name in names:
            command = ["modprobe", "-d", str(self.root), "-S", self.release, "--show-depends", name]
            for line in command_output(command).splitlines():
                kind, *rest = line.split()
                if kind == "insmod":
                    found[Path(rest[0])] = None
        return list(found)


def obtain(version: str) -> Kernel:
    """Debian's newest kernel of `version` ("6.1"), downloaded at the first call.

    Raises UnavailableError where apt-get offers no such kernel, neither in the machine's own suites
    nor in their backports.
    """
    place = FOLDER / "kernels" / version
    place.parent.mkdir(parents=True, exist_ok=True)
    with locked(place):
        if not place.exists():
            _fetch(version, place)
    return _unpacked(place)


@contextmanager
def locked(place: Path) -> Iterator[None]:
    """Nobody else makes this folder meanwhile; others may be made."""
    with open(place.with_name(place.name + ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _unpacked(place: Path) -> Kernel:
    release = next((place / "lib" / "modules").iterdir()).name
    build = place / "usr" / "src" / f"linux-headers-{release}"
    return Kernel(release, place / "boot" / "vmlinux", place, build)


def _fetch(version: str, place: Path) -> None:
    scratch = place.with_name(place.name + ".new")
    shutil.rmtree(scratch, ignore_errors=True)
    packages = scratch / "packages"
    packages.mkdir(parents=True)
    options, release = _find_release(version)
    headers = f"linux-headers-{release}"
    wanted = [f"linux-image-{release}", headers]
    wanted += [
        name
        for name in _depends(options, headers)
        if name.startswith(("linux-headers-", "linux-kbuild-"))
    ]
    # apt-get warns when its own user cannot write here; it downloads all the same.
    command_output(["apt-get", *options, "download", *wanted], cwd=packages)
    for package in sorted(packages.glob("*.deb")):
        _unpack(package, scratch)
    shutil.rmtree(packages)
    _relocate(scratch, place, release)
    vmlinuz = scratch / "boot" / f"vmlinuz-{release}"
    (scratch / "boot" / "vmlinux").write_bytes(extract_vmlinux(vmlinuz.read_bytes()))
    command_output(["depmod", "-b", str(scratch), release])
    scratch.rename(place)


def _find_release(version: str) -> tuple[list[str], str]:
    """Options of apt-get and the release, as in "6.1.0-56-amd64"."""
    offered = []
    for backports in (False, True):
        options = apt_options(backports)
        for name in _depends(options, META_IMAGE):
            release = name.removeprefix("linux-image-")
            if release.startswith(version + "."):
                return options, release
            offered.append(release)
    raise UnavailableError(
        f"no Debian kernel {version}: apt-get offers {', '.join(offered) or 'none'}"
    )


def apt_options(backports: bool) -> list[str]:
    """A state of apt's own in our folder, so that neither root nor the machine's lists matter."""
    state = FOLDER / ("apt-backports" if backports else "apt")
    for folder in ("lists/partial", "archives/partial"):
        (state / folder).mkdir(parents=True, exist_ok=True)
    machine = Path("/etc/apt/sources.list")
    sources = machine.read_text() if machine.exists() else ""
    if backports:
        sources += _backports_line()
    (state / "sources.list").write_text(sources)
    options = [f"Dir::Etc::SourceList={state}/sources.list", f"Dir::State::Lists={state}/lists"]
    options += [f"Dir::Cache={state}", "APT::Sandbox::User=", "Acquire::Languages=none"]
    arguments = [word for option in options for word in ("-o", option)]
    if backports:  # Lower priority than the suite's own: ask for it by name.
        arguments += ["-t", _codename() + "-" + BACKPORTS]
    # A source that cannot be reached is not always ours: what is missing shows later.
    subprocess.run(["apt-get", *arguments, "update"], capture_output=True, check=False)
    return arguments


def _codename() -> str:
    for line in Path("/etc/os-release").read_text().splitlines():
        key, _, value = line.partition("=")
        if key == "VERSION_CODENAME":
            return value.strip('"')
    raise UnavailableError("not a Debian system: /etc/os-release names no VERSION_CODENAME")


def _backports_line() -> str:
    """Backports stand on the server that the machine's own suite comes from."""
    codename = _codename()
    targets = command_output(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"]
    )
    for line in targets.splitlines():
        uri, _, suite = line.partition(" ")
        if suite == codename:
            key = "/usr/share/keyrings/debian-archive-keyring.gpg"
            return f"\ndeb [signed-by={key}] {uri} {codename}-{BACKPORTS} main\n"
    return ""


def _depends(options: Sequence[str], package: str) -> list[str]:
    """Names of the packages that `package` needs; empty if there is no such package."""
    text = subprocess.run(
        ["apt-cache", *options, "depends", "--important", package],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    return re.findall(r"^ *\|?(?:Pre)?Depends: ([^<\s]+)", text, re.MULTILINE)


def _unpack(package: Path, target: Path) -> None:
    left_out = [f"--exclude=./lib/modules/*/kernel/{folder}" for folder in LEFT_OUT]
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE
    ) as files:
        extract = ["tar", "-x", "--no-same-owner", *left_out, "-C", str(target)]
        command_output(extract, stdin=files.stdout)
    if files.returncode != 0:
        raise UnavailableError(f"{package.name} cannot be unpacked")


def _relocate(scratch: Path, place: Path, release: str) -> None:
    """The headers' one absolute path and the links to them, as they will be in `place`."""
    makefile = scratch / "usr" / "src" / f"linux-headers-{release}" / "Makefile"
    makefile.write_text(makefile.read_text().replace(" /usr/src/", f" {place}/usr/src/"))
    for name in ("build", "source"):
        link = scratch / "lib" / "modules" / release / name
        target = os.readlink(link)
        link.unlink()
        link.symlink_to(str(place) + target)


def extract_vmlinux(vmlinuz: bytes) -> bytes:
    """The ELF kernel inside a bzImage (Documentation/arch/x86/boot.rst, payload_offset)."""
    sectors = vmlinuz[0x1F1] or 4
    offset, length = struct.unpack_from("<II", vmlinuz, 0x248)
    start = (sectors + 1) * 512 + offset
    payload = vmlinuz[start : start + length]
    if payload.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMADecompressor().decompress(payload)
    if payload.startswith(b"\x1f\x8b"):
        return gzip.decompress(payload[:-4])  # The size follows.
    if payload.startswith(b"\x28\xb5\x2f\xfd"):
        if shutil.which("zstd") is None:
            raise UnavailableError("this kernel needs zstd to unpack: apt-get install zstd")
        return subprocess.run(
            ["zstd", "-dc"], input=payload[:-4], capture_output=True, check=True
        ).stdout
    raise UnavailableError(f"vmlinuz is compressed in an unknown way: {payload[:6].hex()}")


def command_output(command: Sequence[str], **options: object) -> str:
    # What an administrator's PATH has and a user's lacks: depmod, modprobe.
    env = {**os.environ, "LC_ALL": "C", "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}
    try:
        done = subprocess.run(  # type: ignore[call-overload]
            command, capture_output=True, text=True, env=env, check=False, **options
        )
    except FileNotFoundError:
        raise UnavailableError(f"{command[0]} is not installed: make setup as root") from None
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UnavailableError(f"{' '.join(command[:4])}...: {last}")
    return str(done.stdout)
