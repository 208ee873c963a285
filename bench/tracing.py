# SPDX-License-Identifier: MIT
"""What tracing costs the traced program, under each backend and under other tools.

Every variant runs the command from within a shell that reads the clock before and after it, so
that the time of all is taken in the same way and no tool's own start or end is in it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click

from bench.harness import save, script, spread
from tracer.backends import bcc

SLOWDOWN_MAX = 1.10
WRITE_RATE_MIN = 2e6
EVENT_BYTES_MAX = 20
_CLOCK = 'a=$EPOCHREALTIME; "$@" > "$OUT"; s=$?; b=$EPOCHREALTIME; echo "$a $b $s" > "$TIMES"'
_BPFTRACE = """tracepoint:raw_syscalls:sys_enter /@in[pid] || pid == cpid/ { @start[tid] = nsecs; }
tracepoint:raw_syscalls:sys_exit /@start[tid]/ {
  @calls[args->id] = count(); @ns[args->id] = sum(nsecs - @start[tid]); delete(@start[tid]); }
tracepoint:sched:sched_process_fork /@in[pid] || pid == cpid/ { @in[args->child_pid] = 1; }"""


@dataclass(frozen=True)
class Tool:
    """A way to trace: the words in front of the command, and how to find what was lost."""

    name: str
    prefix: Callable[[Path], Sequence[str]]
    lacks: str | None = None
    """Why it cannot be used here."""
    lost: Callable[[Path, str], int | None] = lambda _folder, _said: None
    """From its folder and what it said; None: it does not tell."""


@dataclass
class Result:
    """The runs of one tool; times in seconds."""

    times: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    """With the tool's own start and end."""
    lost: list[int | None] = field(default_factory=list)
    same: bool = True


def _own_lost(folder: Path, _said: str) -> int | None:
    meta = json.loads((folder / "t.cosytrace" / "meta.json").read_text())
    return int(meta["lost_events"])


def _lost_lines(_folder: Path, said: str) -> int | None:
    return sum(int(n) for n in re.findall(r"(?i)lost (\d+) events", said))


def tools() -> list[Tool]:
    """All of them, native first."""

    def own(name: str) -> Callable[[Path], Sequence[str]]:
        return lambda folder: (
            *(script("cosy-trace"), "--backend", name, "--force"),
            *("-o", str(folder / "t.cosytrace")),
        )

    def missing(program: str, package: str) -> str | None:
        return None if shutil.which(program) else f"no {program}: apt-get install {package}"

    no_root = None if os.geteuid() == 0 else "needs root"
    return [
        Tool("native", lambda _: ()),
        Tool("shim", own("shim"), lost=_own_lost),
        Tool("bcc", own("bcc"), bcc.why_not(), _own_lost),
        Tool("ptrace", own("ptrace"), lost=_own_lost),
        Tool(
            "strace -f -o",
            lambda folder: ("strace", "-f", "-o", str(folder / "s")),
            missing("strace", "strace"),
        ),
        Tool(
            "strace -c",
            lambda folder: ("strace", "-f", "-c", "-o", str(folder / "s")),
            missing("strace", "strace"),
        ),
        Tool(
            "perf trace",
            lambda folder: ("perf", "trace", "-o", str(folder / "p")),
            no_root or missing("perf", "linux-perf"),
            lambda folder, said: _lost_lines(folder, said + _tail(folder / "p")),
        ),
        Tool(
            "bpftrace",
            lambda folder: ("bpftrace", "-o", str(folder / "b"), "-e", _BPFTRACE, "-c"),
            no_root or missing("bpftrace", "bpftrace"),
            _lost_lines,
        ),
    ]


def _tail(path: Path) -> str:
    lines = [line for line in path.open(errors="replace") if "LOST" in line]
    return "\n".join(lines)


def run(tool: Tool, command: Sequence[str], result: Result, expected: bytes | None) -> bytes:
    """One run; returns the command's output."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        env = {**os.environ, "OUT": str(folder / "out"), "TIMES": str(folder / "times")}
        words = ["bash", "-c", _CLOCK, "timed", *command]
        if tool.name == "bpftrace":  # takes one word, splits it itself, knows no quotes
            runner = folder / "run"
            runner.write_text(f"#!/bin/bash\nset -- {' '.join(command)}\n{_CLOCK}\n")
            runner.chmod(0o755)
            words = [f"{shutil.which('bash')} {runner}"]
        begin = time.monotonic()
        done = subprocess.run(
            [*tool.prefix(folder), *words],
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        result.whole.append(time.monotonic() - begin)
        try:
            start, end, status = (folder / "times").read_text().split()
        except (OSError, ValueError):
            raise SystemExit(f"bench: {tool.name} did not run: {done.stderr.strip()}") from None
        output = (folder / "out").read_bytes()
        result.times.append(float(end) - float(start))
        result.lost.append(tool.lost(folder, done.stdout + done.stderr))
        result.same &= status == "0" and output == (output if expected is None else expected)
        return output


def compare(command: Sequence[str], rounds: int) -> dict[str, Result]:
    """Run all tools turn about, each round in the other direction."""
    usable = [tool for tool in tools() if tool.lacks is None]
    for tool in tools():
        if tool.lacks:
            print(f"bench: left out, {tool.name}: {tool.lacks}")
    expected = run(usable[0], command, Result(), None)  # warms the caches
    results = {tool.name: Result() for tool in usable}
    for turn in range(rounds):
        for tool in usable if turn % 2 == 0 else reversed(usable):
            run(tool, command, results[tool.name], expected)
    return results


def table(command: Sequence[str], results: dict[str, Result]) -> dict[str, object]:
    """Print the table of one command; returns it as plain data."""
    title = " ".join(command)
    print(f"\n{title}\n{'':14} {'median s':>9} {'ratio':>8} {'quartiles':>10} {'n':>3} "
          f"{'whole s':>8} {'lost':>8}  output")  # fmt: skip
    base = statistics.median(results["native"].times)
    rows = {}
    for name, result in results.items():
        median = statistics.median(result.times)
        whole = statistics.median(result.whole)
        known = [n for n in result.lost if n is not None]
        lost = f"{max(known):,}" if known else "-"
        print(
            f"{name:14} {median:9.3f} {median / base:7.2f}x {spread(result.times) / median:10.0%} "
            f"{len(result.times):3} {whole:8.2f} {lost:>8}  {'same' if result.same else 'DIFFERS'}",
            flush=True,
        )
        rows[name] = {"times_s": result.times, "whole_s": result.whole, "lost": result.lost,
                      "ratio": median / base, "same": result.same}  # fmt: skip
    return {"command": title, "tools": rows}


def write_speed(events: int) -> dict[str, object]:
    """Record about this many events, and time making a dataset of them."""
    from tracer import native
    from tracer.backends import shim
    from tracer.convert import write_dataset
    from tracer.dataset import META_KEYS, Writer

    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        folder = Path(name)
        env = shim.with_orders(os.environb, native.library(), folder)
        count = f"count={events // 2}"
        dd = ["dd", "if=/dev/zero", "of=/dev/null", "bs=1", count, "status=none"]
        subprocess.run(dd, env=env, check=True)
        out = folder / "out"
        begin, cpu = time.monotonic(), time.process_time()
        raw = shim.read(folder)
        with Writer(out) as writer:
            write_dataset(raw, writer, dict.fromkeys(META_KEYS, 0))
        wall, cpu = time.monotonic() - begin, time.process_time() - cpu
        n = raw.n_calls
        size = sum(path.stat().st_size for path in out.iterdir())
        return {"events": n, "lost_events": raw.lost_events, "wall_s": wall, "cpu_s": cpu,
                "events_per_s": n / wall, "bytes_per_event": size / n}  # fmt: skip


@click.command(help=__doc__)
@click.option("--runs", default=5, show_default=True, help="Rounds; each runs all tools once.")
@click.option("--events", default=10_000_000, show_default=True, help="For the speed of writing.")
@click.option("--quick", is_flag=True, help="Three rounds, a tenth of the calls.")
def main(runs: int, events: int, quick: bool) -> None:
    """Measure, print, save; exit 1 when the shim lost events or an output differs."""
    count = 300_000
    if quick:
        runs, events, count = 3, events // 10, count // 10
    commands = [
        ["du", "-s", "/usr/share"],
        ["dd", "if=/dev/zero", "of=/dev/null", "bs=1", f"count={count}", "status=none"],
    ]
    rows = []
    good = True
    for command in commands:
        results = compare(command, runs)
        rows.append(table(command, results))
        shim = results["shim"]
        ratio = statistics.median(shim.times) / statistics.median(results["native"].times)
        verdict = "ok" if ratio <= SLOWDOWN_MAX else "MISSED"
        print(f"shim: {ratio:.2f}x (at most {SLOWDOWN_MAX:.2f}x)  {verdict}")
        good &= not any(shim.lost) and all(result.same for result in results.values())
    speed = write_speed(events)
    rate, size = float(str(speed["events_per_s"])), float(str(speed["bytes_per_event"]))
    print(f"\nwriting {speed['events']:,} events: {rate / 1e6:.2f} million a second "
          f"(at least {WRITE_RATE_MIN / 1e6:.0f})  {'ok' if rate >= WRITE_RATE_MIN else 'MISSED'}, "
          f"{size:.1f} bytes each (at most {EVENT_BYTES_MAX})  "
          f"{'ok' if size <= EVENT_BYTES_MAX else 'MISSED'}")  # fmt: skip
    print(f"saved {save('tracing', {'commands': rows, 'writing': speed})}")
    if not good:
        raise SystemExit("bench: events were lost, or an output differs")


if __name__ == "__main__":
    main()
