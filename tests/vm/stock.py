# SPDX-License-Identifier: MIT
"""Stock programs of Debian in a virtual machine, alone and under cosy-auto, over a tree on ext4.

The tree is the include folder of the guest kernel's own headers, some 5,900 files, or a part of it:
the same everywhere.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kmod.vm import Disk, Kernel, Machine, make_ext4
from kmod.vm.place import FOLDER
from tests.vm.programs import build_program

TREE_MIB = 160
NATIVE, COSY = "native", "cosy"
AUTO = ("/cosy/cosy-auto",)
# Where a build has what cosy-auto needs; the guest has all in one folder.
PARTS = ("shim/libcosy.so", "shim/launcher/cosy-auto", "synth/default.img")
BPF_PARTS = ("kmod/bpf/cosy-bpf-load", "kmod/bpf/cosy_dirscan.bpf.o")
PROGRAMS = ("du", "ls", "find", "tar", "grep", "cat", "wc", "md5sum", "cp", "xargs", "rm", "true")
# Of what --stats prints, the answers of all compounds in all processes, and the calls seen.
SERVED = "awk '/^  calls/ { seen = $2 } /^  call site/ { table = 0 } table { n += $4 }"
SERVED += f" /^  compound/ {{ table = 1 }} END {{ print n + 0, seen + 0 }}' /tmp/{COSY}.err"


@dataclass(frozen=True)
class StockJob:
    """A command over /mnt. `makes`: what it leaves is the result, not what it prints."""

    name: str
    command: tuple[str, ...]
    makes: str | None = None


START = "start"  # what every program pays
JOBS = (
    StockJob(START, ("true",)),
    StockJob("du -s", ("du", "-s", "/mnt")),
    StockJob("ls -lR", ("ls", "-lR", "/mnt")),
    StockJob("find -size", ("find", "/mnt", "-size", "+20k")),
    StockJob("tar", ("tar", "cf", "-", "/mnt")),
    StockJob("grep -r", ("grep", "-r", "struct cosy_", "/mnt")),
    StockJob("cat", ("xargs", "-a", "/list", "cat")),
    StockJob("wc", ("xargs", "-a", "/list", "wc", "-l")),
    StockJob("md5sum", ("xargs", "-a", "/list", "md5sum")),
    StockJob("cp -r", ("cp", "-r", "/mnt", "/tmp/copy"), makes="/tmp/copy"),
)


@dataclass(frozen=True)
class StockRow:
    """One job: instructions of each round by variant, and whether nothing differed.

    served: calls that were answered without the kernel, in a round that is not counted.
    seen: those of the kinds that can be, wherever the shim looked.
    """

    job: StockJob
    instructions: dict[str, list[int]]
    identical: bool
    served: int
    seen: int


def tree_image(kernel: Kernel, part: str) -> Path:
    """An ext4 image of the kernel's include folder, or of a folder in it, made once."""
    image = FOLDER / "images" / f"include-{part}{kernel.release}.img"
    if not image.exists():
        image.parent.mkdir(parents=True, exist_ok=True)
        common = kernel.build.with_name(kernel.build.name.replace("-amd64", "-common"))
        scratch = image.with_suffix(".new")
        make_ext4(common / "include" / part, scratch, TREE_MIB).rename(image)
    return image


def stock_machine(
    kernel: Kernel, native: Path, module: Path | None, folder: Path, tree: Path
) -> Machine:
    """The programs, cosy-auto from the build folder `native`, and the image `tree` on /mnt."""
    parts = [native / part for part in (*PARTS, *BPF_PARTS) if (native / part).exists()]
    files = {f"/cosy/{part.name}": part for part in parts}
    loaders = [str(part) for part in parts if part.name == "cosy-bpf-load"]
    return Machine(
        kernel,
        programs=[*PROGRAMS, *loaders],
        files={**files, "/measure": build_program("measure", folder)},
        own_modules=[] if module is None else [(module, "")],
        disks=[Disk(tree, options="ro,noatime")],
        memory_mib=1024,
    )


def stock_script(jobs: Sequence[StockJob], rounds: int) -> str:
    """Each job alone and under `cosy-auto`, `rounds` times in turn after one that is not counted.

    What the latter's --stats say goes to standard error, so that it is no output to compare.
    """
    lines = [
        "mount -t bpf bpf /sys/fs/bpf",
        "[ ! -x /cosy/cosy-bpf-load ] || /cosy/cosy-bpf-load 2>/dev/null",
        "[ ! -e /dev/cosy ] || chmod 666 /dev/cosy",
        "find /mnt -type f >/list",
    ]
    for number, job in enumerate(jobs):
        for turn in range(rounds + 1):
            stats = () if turn else ("--stats",)
            for variant, prefix in ((NATIVE, ()), (COSY, (*AUTO, *stats))):
                once = _once(job, variant, prefix)
                lines.append(f'echo "{number} {turn} {variant} $({once})"')
            if not turn:
                lines.append(f'echo "{number} served $({SERVED})"')
        outputs = f"/tmp/{NATIVE} /tmp/{COSY}", f"/tmp/{NATIVE}.err /tmp/{COSY}.err"
        checks = [f"cmp {pair}" for pair in outputs]
        if job.makes:
            checks.append(f"diff -r {job.makes}.{NATIVE} {job.makes}.{COSY}")
        lines.append(f'if {" && ".join(checks)}; then echo "{number} same"; fi')
        lines.append(f"rm -rf /tmp/{NATIVE}* /tmp/{COSY}* /tmp/copy*")
    return "\n".join(lines) + "\n"


def _once(job: StockJob, variant: str, prefix: Sequence[str]) -> str:
    command = shlex.join(("/measure", f"/tmp/{variant}", *prefix, *job.command))
    if job.makes is None:
        return command
    kept = f"{job.makes}.{variant}"
    return f"{command}; rm -rf {kept}; mv {job.makes} {kept}"


def parse_stock(output: str, jobs: Sequence[StockJob]) -> list[StockRow]:
    """Rows of what the script printed."""
    counts: list[dict[str, list[int]]] = [{NATIVE: [], COSY: []} for _ in jobs]
    codes: list[set[str]] = [set() for _ in jobs]
    same = [False] * len(jobs)
    served = [(0, 0)] * len(jobs)
    for line in output.splitlines():
        words = line.split()
        number = int(words[0])
        if words[1:] == ["same"]:
            same[number] = True
            continue
        if words[1] == "served":
            served[number] = int(words[2]), int(words[3])
            continue
        turn, variant, instructions, code = words[1:]
        codes[number].add(code)
        if int(turn) > 0:
            counts[number][variant].append(int(instructions))
    return [
        StockRow(job, counts[number], same[number] and len(codes[number]) == 1, *served[number])
        for number, job in enumerate(jobs)
    ]


def run_stock(
    kernel: Kernel,
    native: Path,
    module: Path | None,
    folder: Path,
    *,
    part: str = "",
    rounds: int = 1,
    append: str = "",
    icount: bool = False,
    timeout_s: float = 300,
) -> tuple[list[StockRow], list[str]]:
    """Rows, and what was printed to standard error. The executor is the module if there is one,
    without a word.

    folder: for scratch files. part: the folder of the tree to use. append: to the kernel's command
    line. icount: count instructions, else the numbers are nanoseconds.
    """
    machine = stock_machine(kernel, native, module, folder, tree_image(kernel, part))
    machine = replace(machine, append=append, icount=icount)
    result = machine.run(stock_script(JOBS, rounds), timeout_s).check()
    errors = result.stderr.decode(errors="replace").splitlines()
    return parse_stock(result.stdout.decode(), JOBS), errors
