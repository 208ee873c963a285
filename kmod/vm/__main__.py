# SPDX-License-Identifier: MIT
"""`python -m kmod.vm`: the harness by hand."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import click

from kmod.vm import Disk, Kernel, Machine, VmError, make_ext4, obtain
from kmod.vm.debug_kernel import SUFFIX, obtain_debug

HARNESS_FAILED = 125


@click.group()
def main() -> None:
    """Boot Debian's kernels under QEMU's software emulation."""


@main.command()
@click.argument("version")
def kernel(version: str) -> None:
    """Download Debian's kernel VERSION and print its release, image and build folder.

    VERSION is 6.1 or 6.12; 6.1-debug is built from source.
    The folder is for `make -C FOLDER M=$PWD modules`.
    """
    found = _kernel(version)
    print(f"release={found.release}\nimage={found.image}\nbuild={found.build}")


@main.command()
@click.argument("image", type=click.Path(path_type=Path))
@click.argument("size_mib", type=int)
@click.option("--from", "folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def disk(image: Path, size_mib: int, folder: Path | None) -> None:
    """Write an ext4 IMAGE of SIZE_MIB MiB, with the content of --from."""
    make_ext4(folder, image, size_mib)


@main.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--kernel", "version", default="6.1", show_default=True)
@click.option("--program", "programs", multiple=True, help="Of the host, with its libraries.")
@click.option("--file", "files", multiple=True, metavar="HOST:GUEST", help="A file or a folder.")
@click.option("--module", "modules", multiple=True, help="Of the kernel, by name.")
@click.option("--insert", "own", multiple=True, metavar="KO", help="A module of ours: 'a.ko x=1'.")
@click.option("--disk", "disks", multiple=True, metavar="IMAGE[:MOUNT]", help="ext4; /mnt.")
@click.option("--append", default="", help="Words for the kernel's command line, as pti=on.")
@click.option("--memory", default=512, show_default=True, help="MiB.")
@click.option("--cpus", default=1, show_default=True)
@click.option("--icount", is_flag=True, help="Clocks advance 1 ns per instruction.")
@click.option("--timeout", "timeout_s", default=60.0, show_default=True, help="Seconds.")
@click.option("--console", is_flag=True, help="Print the kernel's log, too.")
@click.argument("command", nargs=-1, required=True)
def run(
    version: str,
    programs: tuple[str, ...],
    files: tuple[str, ...],
    modules: tuple[str, ...],
    own: tuple[str, ...],
    disks: tuple[str, ...],
    append: str,
    memory: int,
    cpus: int,
    icount: bool,
    timeout_s: float,
    console: bool,
    command: tuple[str, ...],
) -> None:
    """Run COMMAND in the guest; output and exit code are the command's.

    COMMAND's program is brought along with its libraries if the host has it, else it is busybox's.
    Exit code 125: there was no result (no QEMU, no kernel, a panic, the time is over).
    """
    brought = [*programs, *([command[0]] if shutil.which(command[0]) else [])]
    machine = Machine(
        _kernel(version),
        programs=brought,
        files={guest: Path(host) for host, _, guest in (text.partition(":") for text in files)},
        modules=modules,
        own_modules=[
            (Path(file), words) for file, _, words in (text.partition(" ") for text in own)
        ],
        disks=[
            Disk(Path(image).absolute(), mount or "/mnt")
            for image, _, mount in (text.partition(":") for text in disks)
        ],
        append=append,
        memory_mib=memory,
        cpus=cpus,
        icount=icount,
    )
    result = machine.run(command, timeout_s)
    sys.stdout.buffer.write(result.stdout)
    sys.stderr.buffer.write(result.stderr)
    if console:
        sys.stderr.write(result.dmesg)
    sys.exit(result.returncode)


def _kernel(version: str) -> Kernel:
    if version.endswith(SUFFIX):
        return obtain_debug(version.removesuffix(SUFFIX))
    return obtain(version)


if __name__ == "__main__":
    try:
        main()
    except VmError as error:
        print(f"vm: {error}", file=sys.stderr)
        sys.exit(HARNESS_FAILED)
