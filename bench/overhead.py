# SPDX-License-Identifier: MIT
"""What the shim costs a program that gains nothing: per call, per exec, at the start; and what
`cosy-auto --learn` costs the run that is recorded."""

from __future__ import annotations

import fcntl
import os
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path

import click

from bench.harness import (
    HEADER,
    ROOT,
    Job,
    Row,
    Variant,
    cosy,
    measure,
    native,
    present,
    print_row,
    save,
    script,
    spread,
)
from synth.store import SHIPPED
from tracer.native import cache_folder, find, library

CALL_NS_MAX = 20.0
EXEC_US_MAX = 120.0
START_MS_MAX = 15.0
LEARN = (("true",), ("du", "-s", "/usr/share"), ("find", "/usr/share", "-name", "*.h"))
LEARN_HEADER = HEADER.replace("cosy ", "learn")


def shim(mode: str, **orders: str) -> Variant:
    """The shim by its two variables, without a launcher in front."""
    pairs = {"mode": mode, "cache": str(cache_folder()), **orders}
    text = ";".join(f"{key}={value}" for key, value in pairs.items())
    return Variant(mode, (), {"LD_PRELOAD": str(library()), "COSY_SHIM": text})


def compile_program(folder: Path, name: str) -> str:
    """Build bench/NAME.c; returns the program."""
    program = folder / name
    source = ROOT / "bench" / f"{name}.c"
    subprocess.run(["cc", "-O2", "-o", program, source], check=True)
    return str(program)


def call_cost(program: str, variants: list[Variant], runs: int, calls: int) -> dict[str, object]:
    """CPU ns per getppid and per 4 KiB pread, by variant."""
    found: dict[str, list[tuple[float, float]]] = {variant.name: [] for variant in variants}
    for _ in range(runs):
        for variant in variants:
            output = subprocess.check_output(
                [*variant.prefix, program, str(calls)], env={**os.environ, **variant.env}
            )
            trivial, read = output.split()
            found[variant.name].append((float(trivial), float(read)))
    return {
        name: {
            "getppid_ns": statistics.median(pair[0] for pair in pairs),
            "pread_ns": statistics.median(pair[1] for pair in pairs),
            "getppid_iqr_ns": spread([pair[0] for pair in pairs]),
            "n": len(pairs),
        }
        for name, pairs in found.items()
    }


def exec_cost(program: str, variants: list[Variant], runs: int) -> dict[str, object]:
    """CPU and wall µs of `true` from vfork to exit, by variant; by bench/exec_cost.c."""
    command = str(Path(shutil.which("true") or "/bin/true").resolve())
    words: list[str] = []
    for variant in variants:
        words += ["--", *variant.prefix, *(f"{key}={value}" for key, value in variant.env.items())]
    # The first run of each fills the caches.
    for n in (1, runs):
        output = subprocess.check_output([program, str(n), command, *words], text=True)
    found: list[list[tuple[float, float]]] = [[] for _ in variants]
    for line in output.splitlines():
        number, cpu, wall = line.split()
        found[int(number)].append((float(cpu), float(wall)))
    return {
        variant.name: {
            "cpu_us": statistics.median(pair[0] for pair in pairs),
            "cpu_iqr_us": spread([pair[0] for pair in pairs]),
            "cpu_low_us": statistics.quantiles([pair[0] for pair in pairs], n=4)[0],
            "wall_us": statistics.median(pair[1] for pair in pairs),
            "n": len(pairs),
        }
        for variant, pairs in zip(variants, found, strict=True)
    }


def learn_cost(jobs: list[Job], runs: int, folder: Path) -> list[Row]:
    """The jobs without and with --learn; learners, who would mine on the same CPUs, wait."""
    queue = folder / "cosy" / "learn"
    queue.mkdir(mode=0o700, parents=True)
    learn = Variant("cosy", (script("cosy-auto"), "--learn"), {"XDG_CACHE_HOME": str(folder)})
    rows = []
    with (queue / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for job in filter(present, jobs):
            rows.append(measure(job, [native(), learn], runs))
            recordings = list(queue.glob("due-*"))
            if len(recordings) != runs + rows[-1].discarded + 1:
                raise SystemExit(f"bench: {job.title}: not every run was recorded: more disk space")
            for recording in recordings:
                shutil.rmtree(recording)
    return rows


def judge(what: str, value: float, limit: float, unit: str) -> None:
    """One line: the number and its limit."""
    verdict = "ok" if value <= limit else "MISSED"
    print(f"{what:48} {value:9.1f} {unit:3} (at most {limit:.0f})  {verdict}")


@click.command(help=__doc__)
@click.option("--runs", default=9, show_default=True, help="Rounds of the call loop.")
@click.option("--execs", default=1000, show_default=True, help="Rounds of `true`.")
@click.option("--quick", is_flag=True, help="Few and short rounds.")
def main(runs: int, execs: int, quick: bool) -> None:
    """Measure, print, save."""
    calls = 1_000_000
    if quick:
        runs, execs, calls = 3, 200, 200_000
    variants = [native(), shim("pass"), cosy()]
    starts = [native(), shim("pass"), shim("exec", image=str(find(SHIPPED))), cosy()]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        per_call = call_cost(compile_program(folder, "call_cost"), variants, runs, calls)
        per_exec = exec_cost(compile_program(folder, "exec_cost"), starts, execs)
    for name, row in per_call.items():
        print(f"{name:8} per call {row}")
    for name, row in per_exec.items():
        print(f"{name:8} per exec {row}")
    plain, passed, auto = (per_call[variant.name] for variant in variants)
    for title, other in (("pass-through", passed), ("cosy-auto", auto)):
        for key in ("getppid_ns", "pread_ns"):
            judge(
                f"{title}: {key[:-3]}, added", _of(other, key) - _of(plain, key), CALL_NS_MAX, "ns"
            )
    plain, passed, fused, auto = (per_exec[variant.name] for variant in starts)
    for title, other in (("pass-through", passed), ("execution", fused)):
        judge(
            f"{title}: per exec, added CPU",
            _of(other, "cpu_us") - _of(plain, "cpu_us"),
            EXEC_US_MAX,
            "us",
        )
    added_ms = (_of(auto, "wall_us") - _of(plain, "wall_us")) / 1e3
    judge("cosy-auto true: added wall time", added_ms, START_MS_MAX, "ms")
    with tempfile.TemporaryDirectory() as scratch:
        learn = learn_cost([Job(command) for command in LEARN], runs, Path(scratch))
    print(LEARN_HEADER)
    for measured in learn:
        print_row(measured)
    rows = {"per_call": per_call, "per_exec": per_exec, "learn": learn}
    print(f"saved {save('overhead', rows)}")


def _of(row: object, key: str) -> float:
    assert isinstance(row, dict)
    return float(row[key])


if __name__ == "__main__":
    main()
