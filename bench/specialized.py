# SPDX-License-Identifier: MIT
"""Would an eBPF program made for one compound pay? ns per entry, against the one for all.

The compound asks for attributes by stat alone: no extended attributes, no flags as statx tells
them. A copy of kmod/bpf without the code for these is built, which is what the kernel's verifier
makes of a program whose constants say that nobody wants them. Both are loaded several times, and
the loads take turns; root is needed. Printed: the ratio of loads (special / generic) with the 95 %
interval of its mean, and what that is of the processor time of `du -s` under cosy-auto.
"""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from bench.harness import ROOT, Job, cosy, run_once, save, script
from bench.intervals import interval

# The generic program's questions that such a compound needs no answer to.
LEFT_OUT = ("has_no_xattr(inode, kind)", "is_plain(inode, kind)")
WORTH = 0.03  # of a program
CLANGS = ("clang-19", "clang-18", "clang-17", "clang-16", "clang-15", "clang")
BPF_FLAGS = ("-target", "bpf", "-mcpu=v3", "-std=gnu11", "-O2", "-g", "-D__TARGET_ARCH_x86")


@dataclass(frozen=True)
class Result:
    """ns per child of each load, generic and special; `ratio`: mean, low, high."""

    where: str
    generic: list[float]
    special: list[float]
    ratio: tuple[float, float, float]


def build(work: Path, name: str, left_out: tuple[str, ...]) -> Path:
    """The eBPF object; raises SystemExit where the sources are others than these."""
    shutil.copytree(ROOT / "kmod" / "uapi", work / name / "uapi")
    shutil.copytree(ROOT / "kmod" / "bpf", work / name / "bpf")
    header = work / name / "bpf" / "attributes.h"
    text = header.read_text()
    for question in left_out:
        if text.count(f"if ({question})") != 1:
            raise SystemExit(f"bench: not asked just once: {question}: {header.name}")
        text = text.replace(f"if ({question})", "if (0)")
    header.write_text(text)
    clang = next(filter(None, map(shutil.which, CLANGS)), None)
    if clang is None:
        raise SystemExit("bench: no clang: apt-get install clang")
    source, to = work / name / "bpf" / "cosy_dirscan.bpf.c", work / f"{name}.o"
    # What nobody asks any more stays behind as an unused function.
    command = [clang, *BPF_FLAGS, "-Wno-unused-function", "-c", str(source), "-o", str(to)]
    subprocess.run(command, check=True)
    return to


def compile_program(work: Path) -> Path:
    """Build bench/specialized.c; returns the program."""
    program, uapi = work / "specialized", ROOT / "kmod" / "uapi"
    source = ROOT / "bench" / "specialized.c"
    command = ["cc", "-O2", "-D_GNU_SOURCE", "-Wno-unused-function", f"-I{uapi}"]
    command += [f"-I{ROOT / 'kmod' / 'bpf'}", "-o", str(program), str(source), "-lbpf"]
    subprocess.run(command, check=True)
    return program


def measure(work: Path, folder: str, rounds: int, loads: int) -> list[Result]:
    """Both builds, on directories just run over and on a walk of all of them."""
    objects = [build(work, "generic", ()), build(work, "special", LEFT_OUT)]
    command = [str(compile_program(work)), str(rounds), str(loads), *map(str, objects), folder]
    lines = subprocess.check_output(command, text=True).splitlines()
    values = [tuple(map(float, line.split())) for line in lines]
    results = []
    for column, where in ((1, "again"), (2, "walk")):
        generic = [value[column] for value in values if value[0] == 0]
        special = [value[column] for value in values if value[0] == 1]
        middle = statistics.fmean(generic)
        ratio = interval([ns / middle for ns in special])
        results.append(Result(where, generic, special, ratio))
    return results


def share_of_program(folder: str, gain_ns: float) -> tuple[int, float, float]:
    """Results of `du -s` under cosy-auto, its processor time in s, and which share the gain is."""
    command = ["du", "-s", folder]
    report = subprocess.run(
        [script("cosy-auto"), "--stats", *command], capture_output=True, text=True, check=False
    ).stderr
    found = re.search(r"^  [a-z0-9-]+ +[\d,]+ +([\d,]+) +[\d,]+$", report, re.M)
    entries = int(found[1].replace(",", "")) if found else 0
    cpu_s = statistics.median(run_once(Job(tuple(command)), cosy()).cpu_s for _ in range(5))
    return entries, cpu_s, entries * gain_ns / 1e9 / cpu_s


@click.command(help=__doc__)
@click.option("--folder", default="/usr", show_default=True, help="Walked as a whole.")
@click.option("--rounds", default=10, show_default=True, help="Each runs every load once.")
@click.option("--loads", default=6, show_default=True, help="Of each program; at most 16.")
def main(folder: str, rounds: int, loads: int) -> None:
    """Measure, print, save."""
    with tempfile.TemporaryDirectory(prefix="cosy-bench-") as work:
        results = measure(Path(work), folder, rounds, loads)
    for result in results:
        mean, low, high = result.ratio
        print(
            f"{result.where:6} generic {statistics.fmean(result.generic):.0f} ns per child "
            f"({min(result.generic):.0f}-{max(result.generic):.0f}), special "
            f"{statistics.fmean(result.special):.0f} ({min(result.special):.0f}-"
            f"{max(result.special):.0f}): {mean:.3f} ({low:.3f}-{high:.3f})"
        )
    walk = results[-1]
    gain_ns = statistics.fmean(walk.generic) - statistics.fmean(walk.special)
    entries, cpu_s, share = share_of_program(folder, gain_ns)
    print(
        f"du -s {folder}: {entries:,} results in {cpu_s * 1e3:.0f} ms of processor time: a gain of "
        f"{gain_ns:.0f} ns each is {share:.1%} of it (worth building: {WORTH:.0%})"
    )
    rows = {"results": [asdict(result) for result in results], "share": share}
    print("saved", save("specialized", rows))


if __name__ == "__main__":
    main()
