# SPDX-License-Identifier: MIT
"""Instructions per item of the kernel module's fused operations and of plain calls: JSON lines.

Counted in a virtual machine, so they are the same on every host. Each line is the median of
interleaved runs over one directory of `FILES` files on tmpfs or ext4, over a tree of FOLDERS
directories with as many files together, and over 64 sockets; `ratio` is plain / this way.
kmod_bench compares what both ways read and fails if it differs.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import click

from kmod.vm import Disk, Machine, build_module, make_ext4, obtain
from tests.vm.programs import build_program

FILES = 2000
FILE_BYTES = 4096
FOLDERS = 40
DISK_MIB = 64
TIMEOUT_S = 900


def _files(folder: Path) -> Path:
    (folder / "d").mkdir()
    for i in range(FILES):
        content = i.to_bytes(4, "little") + bytes([97 + i % 26]) * (FILE_BYTES - 4)
        (folder / "d" / f"file-{i:05}.txt").write_bytes(content)
    for i in range(FOLDERS):
        (folder / "tree" / f"folder-{i:02}").mkdir(parents=True)
        for k in range(FILES // FOLDERS):
            (folder / "tree" / f"folder-{i:02}" / f"file-{k:02}.txt").write_bytes(b"x")
    return folder


@click.command()
@click.option("--kernel", "kernels", multiple=True, default=("6.1", "6.12"), show_default=True)
@click.option("--repeats", default=3, show_default=True)
def main(kernels: tuple[str, ...], repeats: int) -> None:
    """Print one JSON line per kernel, page-table isolation, directory and way."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        (scratch / "files").mkdir()
        disk = Disk(make_ext4(_files(scratch / "files"), scratch / "disk", DISK_MIB), "/mnt")
        program = build_program("kmod_bench", scratch)
        for version in kernels:
            kernel = obtain(version)
            module = build_module(kernel)
            for isolation in ("off", "on"):
                machine = Machine(
                    kernel,
                    files={"/kmod_bench": program},
                    own_modules=[(module, "")],
                    disks=[disk],
                    append=f"pti={isolation}",
                    memory_mib=1024,
                    icount=True,
                )
                script = f"""mkdir /t; mount -t tmpfs t /t; cp -r /mnt/d /mnt/tree /t/
                /kmod_bench /t/d {repeats} /t/tree && /kmod_bench /mnt/d {repeats} /mnt/tree"""
                result = machine.run(script, TIMEOUT_S).check()
                for line in result.stdout.splitlines():
                    facts = {"kernel": kernel.release, "pti": isolation, **json.loads(line)}
                    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
