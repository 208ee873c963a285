# SPDX-License-Identifier: MIT
"""What tracing costs the traced program, under each backend and under other tools.

Every variant runs the command from within a shell that reads the clock before and after it, so
that the time of all is taken in the same way and no tool's own start or end is in it. The CPU time
is the command's own: what a tool that works within the program costs, steadier than wall time.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np

from bench.harness import ROOT, save, script, spread
from tracer.backends import bcc
from tracer.stream import StreamWriter, read_stream
from tracer.syscalls import by_name

SLOWDOWN_MAX = 1.10
WRITE_RATE_MIN = 2e6
EVENT_BYTES_MAX = 20
PARTS = ("slowdown", "event", "writing", "import")
RAW_BYTES = 110  # of an event in the shim's files, about
_CLOCK = """a=$EPOCHREALTIME; "$@" > "$OUT"; s=$?; b=$EPOCHREALTIME
{ echo "$a $b $s"; times; } > "$TIMES\""""
_SECONDS = re.compile(rb"(?m)^(\d+ +)(\d+)")
_TIMES = re.compile(r"(\d+)m([\d.]+)s")
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
    cpu: list[float] = field(default_factory=list)
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
            clock, _, spent = (folder / "times").read_text().splitlines()
            start, end, status = clock.split()
        except (OSError, ValueError):
            raise SystemExit(f"bench: {tool.name} did not run: {done.stderr.strip()}") from None
        output = (folder / "out").read_bytes()
        result.times.append(float(end) - float(start))
        result.cpu.append(sum(float(m) * 60 + float(s) for m, s in _TIMES.findall(spent)))
        result.lost.append(tool.lost(folder, done.stdout + done.stderr))
        result.same &= status == "0" and output == (output if expected is None else expected)
        return output


def compare(command: Sequence[str], rounds: int, names: Sequence[str]) -> dict[str, Result]:
    """Run all tools, or native and these, turn about, each round in the other direction."""
    wanted = [tool for tool in tools() if not names or tool.name in ("native", *names)]
    usable = [tool for tool in wanted if tool.lacks is None]
    for tool in wanted:
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
    print(f"\n{title}\n{'':14} {'median s':>9} {'ratio':>8} {'quartiles':>10} {'cpu s':>7} "
          f"{'ratio':>8} {'low':>6} {'n':>3} {'whole s':>8} {'lost':>8}  output")  # fmt: skip
    base = statistics.median(results["native"].times)
    cpu_base = statistics.median(results["native"].cpu)
    rows = {}
    for name, result in results.items():
        median = statistics.median(result.times)
        whole, cpu = statistics.median(result.whole), statistics.median(result.cpu)
        low = _low(result.cpu) / _low(results["native"].cpu)
        known = [n for n in result.lost if n is not None]
        lost = f"{max(known):,}" if known else "-"
        print(
            f"{name:14} {median:9.3f} {median / base:7.2f}x {spread(result.times) / median:10.0%} "
            f"{cpu:7.3f} {cpu / cpu_base:7.2f}x {low:5.2f}x {len(result.times):3} {whole:8.2f} "
            f"{lost:>8}  "
            f"{'same' if result.same else 'DIFFERS'}",
            flush=True,
        )
        rows[name] = {"times_s": result.times, "cpu_s": result.cpu, "whole_s": result.whole,
                      "ratio": median / base, "cpu_ratio": cpu / cpu_base, "cpu_low_ratio": low,
                      "lost": result.lost, "same": result.same}  # fmt: skip
    return {"command": title, "tools": rows}


def _low(times: Sequence[float]) -> float:
    """The lower quartile: on a shared machine times are steadier below than in the middle."""
    return sorted(times)[len(times) // 4]


def _dd(calls: int) -> list[str]:
    return ["dd", "if=/dev/zero", "of=/dev/null", "bs=1", f"count={calls // 2}", "status=none"]


WORKLOADS: dict[str, list[list[str]]] = {
    "dd bs=1": [_dd(1_000_000)],
    "file tools": [
        ["du", "-s", "/usr"],
        ["ls", "-lR", "/usr/share"],
        ["find", "/usr/share", "-size", "+1"],
        ["grep", "-rc", "include", "/usr/include"],
        ["sh", "-c", "tar cf - /usr/share 2>/dev/null | cat"],
    ],
}


LONG_CALL = "dd bs=1 from outside, within one long call"
STREAM = "outside.stream"


def _long_call(path: Path, events: int) -> None:
    """What bcc would record of dd under a shell: its wait4 is the last record, and the first call.

    Made here, so that neither root is needed nor the time of a real run.
    """
    block = 1 << 11  # less than the writer flushes by itself
    numbers = {name: call.nr for name, call in by_name().items()}
    with StreamWriter(path) as writer:
        writer.process(10, 1000, 1, b"/bin/sh", b"/", [b"sh"])
        writer.process(11, 2000, 10, b"/bin/dd", b"/", [b"dd"])
        writer.flush()
        for i in range(block):
            call = numbers["write" if i % 2 else "read"]
            writer.event(11, 11, call, 0, 70 + i % 7, 1, (i % 2, 0x5000, 1, 0, 0, 0))
        words = np.frombuffer(writer.take(), np.uint64).reshape(block, -1).copy()
        for begin in range(0, events, block):
            words[:, 2] = 5000 + 200 * (begin + np.arange(block, dtype=np.uint64))
            writer.copy(words[: events - begin].tobytes())
        end = 5000 + 200 * events
        writer.event(10, 10, numbers["wait4"], 4000, end, 11)


def write_speed(workload: str, events: int) -> dict[str, object]:
    """Record the programs of a workload again and again, about this many events; time the writing.

    The dataset is made in a process of its own, so that its peak of memory is known.
    """
    from tracer import native
    from tracer.backends import shim

    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        folder = Path(name) / "raw"
        folder.mkdir()
        if workload == LONG_CALL:
            _long_call(folder / STREAM, events)
            return {"workload": workload, **_write_apart(folder)}
        env = shim.with_orders(os.environb, native.library(), folder)
        # By blocks: the files have holes.
        while sum(file.stat().st_blocks for file in folder.iterdir()) * 512 < events * RAW_BYTES:
            for command in WORKLOADS[workload]:
                subprocess.run(command, env=env, check=False, stdout=subprocess.DEVNULL)
        return {"workload": workload, **_write_apart(folder)}


def _write_apart(folder: Path) -> dict[str, object]:
    writer = [sys.executable, "-m", "bench.tracing", "--write", str(folder)]
    done = subprocess.run(writer, check=True, stdout=subprocess.PIPE, cwd=ROOT)
    found: dict[str, object] = json.loads(done.stdout)
    return found


class _Memory(threading.Thread):
    """The most private memory of this process; mapped files do not count."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_bytes = 0
        self.ended = threading.Event()

    def run(self) -> None:
        """Look every 50 ms."""
        while not self.ended.wait(0.05):
            words = Path("/proc/self/status").read_text().split()
            now = int(words[words.index("RssAnon:") + 1]) * 1024
            self.peak_bytes = max(self.peak_bytes, now)


def write(folder: Path) -> dict[str, object]:
    """Make a dataset of a folder of raw files, and say what that took."""
    from tracer.backends import shim
    from tracer.convert import write_dataset
    from tracer.dataset import META_KEYS, Writer

    out = folder.with_name("out")
    memory = _Memory()
    memory.start()
    begin, cpu = time.monotonic(), time.process_time()
    stream = folder / STREAM
    raw = read_stream(stream) if stream.exists() else shim.read(folder)
    with Writer(out) as writer:
        write_dataset(raw, writer, dict.fromkeys(META_KEYS, 0))
    wall, cpu = time.monotonic() - begin, time.process_time() - cpu
    memory.ended.set()
    size = sum(path.stat().st_size for path in out.iterdir())
    return {"events": raw.n_calls, "lost_events": raw.lost_events, "wall_s": wall, "cpu_s": cpu,
            "events_per_s": raw.n_calls / wall, "bytes_per_event": size / raw.n_calls,
            "peak_bytes": memory.peak_bytes}  # fmt: skip


CALLS = ("getppid", "read", "fstatat")
_LOOPS = 200_000
_FEW, _MORE = 100, 600  # calls whose instructions are counted


def event_cost(rounds: int) -> list[dict[str, object]]:
    """What tracing adds to single calls: ns of CPU time and instructions.

    Medians of interleaved runs; with somebody who takes blocks away while the program runs, as
    under cosy-trace, and without.
    """
    from tracer import native
    from tracer.backends import shim
    from tracer.drain import Drain

    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        program = str(Path(name) / "event_cost")
        source = Path(__file__).with_name("event_cost.c")
        subprocess.run(["cc", "-O2", "-o", program, source], check=True)

        def traced(words: Sequence[str], taker: bool) -> str:
            folder = Path(tempfile.mkdtemp(dir=name))
            env = shim.with_orders(os.environb, native.library(), folder)
            if words[0] == "steps":  # only the program itself is to be traced
                env[b"STEPS_PRELOAD"] = env.pop(b"LD_PRELOAD")
                env[b"STEPS_SHIM"] = env.pop(b"COSY_SHIM")
            drain = Drain(folder) if taker else None
            said = subprocess.run([program, *words], env=env, check=True, stdout=subprocess.PIPE)
            if drain:
                drain.close()
            shutil.rmtree(folder)
            return said.stdout.decode()

        def plain(words: Sequence[str]) -> str:
            return subprocess.run([program, *words], check=True, stdout=subprocess.PIPE,
                                  text=True).stdout  # fmt: skip

        def per_call(run_it: Callable[[Sequence[str]], str], call: str) -> float:
            few, more = (
                int(run_it(["steps", program, call, str(n), "once"])) for n in (_FEW, _MORE)
            )
            return (more - few) / (_MORE - _FEW)

        for call in CALLS:
            words = [call, str(_LOOPS)]
            times = [
                (float(plain(words)), float(traced(words, True)), float(traced(words, False)))
                for _ in range(rounds)
            ]
            native_ns, taken_ns, alone_ns = (
                statistics.median(column) for column in zip(*times, strict=True)
            )
            count = per_call(lambda w: traced(w, False), call) - per_call(plain, call)
            print(f"{call}: {native_ns:.0f} ns; traced +{taken_ns - native_ns:.0f} ns, "
                  f"with nobody to take the blocks +{alone_ns - native_ns:.0f} ns; "
                  f"+{count:.0f} instructions", flush=True)  # fmt: skip
            rows.append({"call": call, "native_ns": native_ns, "traced_ns": taken_ns,
                         "alone_ns": alone_ns, "instructions": count})  # fmt: skip
    return rows


def import_speed(lines: int) -> dict[str, object]:
    """Import strace's text of file tools, again and again, until there are so many lines.

    They come through a pipe, each time as if the tools had run later.
    """
    with tempfile.TemporaryDirectory() as name:
        text = Path(name) / "text"
        command = ["strace", "-f", "-ttt", "-T", "-y", "-v", "-o", str(text), "sh", "-c",
                   "find /usr/share -size +1 | wc; grep -rc include /usr/include | wc"]  # fmt: skip
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        once = text.read_bytes()
        first, last = (int(line.split()[1].split(b".")[0]) for line in _ends(once))
        words = [sys.executable, "-m", "bench.tracing", "--import-text", str(name)]
        with subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
        ) as importer:
            assert importer.stdin
            assert importer.stdout
            for turn in range(-(-lines // once.count(b"\n"))):
                importer.stdin.write(_later(once, turn * (last - first + 1)))
            importer.stdin.close()
            found: dict[str, object] = json.loads(importer.stdout.read())
        return found


def _later(text: bytes, seconds: int) -> bytes:
    """The same lines with later times."""
    return _SECONDS.sub(lambda found: found[1] + b"%d" % (int(found[2]) + seconds), text)


def _ends(text: bytes) -> tuple[bytes, bytes]:
    """The first and the last line."""
    return text[: text.index(b"\n")], text[text.rindex(b"\n", 0, -1) + 1 :]


def import_text(folder: Path) -> dict[str, object]:
    """Import standard input, and say what that took."""
    from tracer.convert import write_dataset
    from tracer.dataset import META_KEYS, Writer
    from tracer.strace_text import Importer
    from tracer.stream import StreamWriter, read_stream

    memory = _Memory()
    memory.start()
    cpu = time.process_time()
    with StreamWriter(folder / "s") as records:
        importer = Importer(records)
        for _ in importer.read(sys.stdin.buffer):
            pass
    reading, cpu = time.process_time() - cpu, time.process_time()
    peak_bytes = memory.peak_bytes
    with Writer(folder / "d") as writer:
        raw = read_stream(folder / "s")
        write_dataset(raw, writer, dict.fromkeys(META_KEYS, 0))
    writing = time.process_time() - cpu
    memory.ended.set()
    n = importer.lines
    return {"lines": n, "unread": importer.unread, "events": raw.n_calls,
            "read_us": reading / n * 1e6, "write_us": writing / n * 1e6,
            "read_peak_bytes": peak_bytes, "peak_bytes": memory.peak_bytes}  # fmt: skip


def _importing(lines: int) -> dict[str, object]:
    if not shutil.which("strace"):
        print("bench: left out, import: no strace: apt-get install strace")
        return {}
    found = import_speed(lines)
    print(f"importing {found['lines']:,} lines of strace: {found['read_us']:.1f} us of CPU a line, "
          f"{found['write_us']:.1f} more for the dataset, "
          f"{float(str(found['read_peak_bytes'])) / 1e6:.0f} MB while they are read, "
          f"{float(str(found['peak_bytes'])) / 1e6:.0f} MB in all", flush=True)  # fmt: skip
    return found


def _verdict(good: bool) -> str:
    return "ok" if good else "MISSED"


def _writing(events: int) -> list[dict[str, object]]:
    found = []
    for workload in (*WORKLOADS, LONG_CALL):
        speed = write_speed(workload, events)
        rate, size, cpu_s, peak, n = (
            float(str(speed[name]))
            for name in ("events_per_s", "bytes_per_event", "cpu_s", "peak_bytes", "events")
        )
        print(f"writing {n:,.0f} events of {workload}:\n"
              f"  {rate / 1e6:.2f} million a second (at least {WRITE_RATE_MIN / 1e6:.0f}) "
              f"{_verdict(rate >= WRITE_RATE_MIN)}, "
              f"{cpu_s / n * 1e6:.2f} us of CPU an event, {peak / 1e6:.0f} MB\n"
              f"  {size:.1f} bytes each (at most {EVENT_BYTES_MAX}) "
              f"{_verdict(size <= EVENT_BYTES_MAX)}", flush=True)  # fmt: skip
        found.append(speed)
    return found


@click.command(help=__doc__)
@click.option("--runs", default=5, show_default=True, help="Rounds; each runs all tools once.")
@click.option("--count", default=300_000, show_default=True, help="Of dd.")
@click.option("--tool", "names", multiple=True, help="Only these, besides native.")
@click.option(
    "--events",
    default=10_000_000,
    show_default=True,
    help="For the speed of writing and of import.",
)
@click.option("--part", type=click.Choice(PARTS), help="Only this one.")
@click.option("--quick", is_flag=True, help="Three rounds, a tenth of the calls.")
@click.option("--write", "folder", type=Path, hidden=True)
@click.option("--import-text", "text_folder", type=Path, hidden=True)
def main(
    runs: int,
    count: int,
    names: tuple[str, ...],
    events: int,
    part: str | None,
    quick: bool,
    folder: Path | None,
    text_folder: Path | None,
) -> None:
    """Measure, print, save; exit 1 when the shim lost events or an output differs."""
    if folder:
        print(json.dumps(write(folder)))
        return
    if text_folder:
        print(json.dumps(import_text(text_folder)))
        return
    if quick:
        runs, events, count = 3, events // 10, count // 10
    rows, good = [], True
    for command in (
        [["du", "-s", "/usr/share"], _dd(2 * count)] if part in (None, "slowdown") else []
    ):
        results = compare(command, runs, names)
        rows.append(table(command, results))
        if shim := results.get("shim"):
            ratio = _low(shim.cpu) / _low(results["native"].cpu)
            verdict = _verdict(ratio <= SLOWDOWN_MAX)
            print(f"shim: {ratio:.2f}x of CPU time, by lower quartiles "
                  f"(at most {SLOWDOWN_MAX:.2f}x)  {verdict}")  # fmt: skip
            good &= not any(shim.lost)
        good &= all(result.same for result in results.values())
    found = {
        "commands": rows,
        "events": event_cost(runs) if part in (None, "event") else [],
        "writing": _writing(events) if part in (None, "writing") else [],
        "import": _importing(events) if part in (None, "import") else {},
    }
    print(f"saved {save('tracing', found)}")
    if not good:
        raise SystemExit("bench: events were lost, or an output differs")


if __name__ == "__main__":
    main()
