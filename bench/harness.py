# SPDX-License-Identifier: MIT
"""Interleaved runs of the same command in several variants, and what they differ in.

A shared machine drifts by more than what we look for, so variants take turns and their medians are
compared. Runs during which the kernel's caches were dropped (`drop_slab` in /proc/vmstat) are
thrown away, and so is the pair that they belong to.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
DISCARDS_MAX = 20


@dataclass(frozen=True)
class Variant:
    """One way to run a command: words in front of it, and a changed environment."""

    name: str
    prefix: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """A command and the ratio of wall times that it should reach.

    `piped`: give it a reader; some programs do nothing at all for /dev/null.
    """

    command: tuple[str, ...]
    at_most: float | None = None
    piped: bool = False

    @property
    def title(self) -> str:
        """The command as one would type it, cut to fit a table."""
        text = " ".join([Path(self.command[0]).name, *self.command[1:]])
        text = " ".join(text.split())
        return text if len(text) <= 40 else text[:37] + "..."


@dataclass(frozen=True)
class Sample:
    """One run: wall, user and system time in seconds."""

    wall_s: float
    user_s: float
    system_s: float

    @property
    def cpu_s(self) -> float:
        """Time on a CPU, in both modes."""
        return self.user_s + self.system_s


@dataclass(frozen=True)
class Summary:
    """One variant's runs. Times in seconds."""

    n: int
    wall_s: float
    wall_iqr_s: float
    user_s: float
    system_s: float
    cpu_low_s: float  # lower quartile of the time on a CPU


@dataclass(frozen=True)
class Row:
    """What the variants of one job came to; the first variant is the measure of the rest."""

    title: str
    summaries: dict[str, Summary]
    identical: bool
    discarded: int
    at_most: float | None

    def ratio(self, variant: str) -> float:
        """Wall time of `variant` over that of the first one."""
        first = next(iter(self.summaries.values()))
        return self.summaries[variant].wall_s / first.wall_s

    def undisturbed(self, variant: str) -> float:
        """The same of the lower quartiles of time on a CPU: where a machine is shared, these move
        least with what the others do. It says nothing of waiting."""
        first = next(iter(self.summaries.values()))
        return self.summaries[variant].cpu_low_s / first.cpu_low_s

    def met(self, variant: str) -> bool:
        """Outputs are the same, and the ratio is what it should be."""
        return self.identical and (self.at_most is None or self.ratio(variant) <= self.at_most)


def native() -> Variant:
    """The command by itself."""
    return Variant("native")


def cosy(*options: str) -> Variant:
    """The command under cosy-auto."""
    return Variant("cosy", (script("cosy-auto"), *options))


def script(name: str) -> str:
    """Absolute path of one of our commands; ends the program if it is not installed."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise SystemExit(f"bench: {name} is not installed: make setup")
    return found


def present(job: Job) -> bool:
    """Whether the job's program is here; says so if not."""
    if shutil.which(job.command[0]):
        return True
    print(f"bench: left out, no {job.command[0]}: apt-get install {job.command[0]}")
    return False


def run_once(job: Job, variant: Variant) -> Sample:
    """Run to the end, output thrown away; a failing command is measured like any other."""
    env = {**os.environ, "LC_ALL": "C.UTF-8", **variant.env}
    reader = None
    with open(os.devnull, "wb") as null:
        out: int = null.fileno()
        if job.piped:
            reader = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=null)
            assert reader.stdin is not None
            out = reader.stdin.fileno()
        start = time.monotonic()
        process = subprocess.Popen(
            [*variant.prefix, *job.command],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=null,
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(status)
    if reader is not None:
        assert reader.stdin is not None
        reader.stdin.close()
        reader.wait()
    return Sample(wall, usage.ru_utime, usage.ru_stime)


def digest(job: Job, variant: Variant) -> str:
    """Hash of all that the command shows: standard output, standard error, exit code."""
    env = {**os.environ, "LC_ALL": "C.UTF-8", **variant.env}
    total = hashlib.sha256()
    errors = hashlib.sha256()
    with subprocess.Popen(
        [*variant.prefix, *job.command],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        # A file: a pipe would have to be drained beside the other one.
        stderr=(err := _scratch()),
    ) as process:
        assert process.stdout is not None
        for block in iter(lambda: process.stdout.read(1 << 20), b""):  # type: ignore[union-attr]
            total.update(block)
    os.lseek(err, 0, os.SEEK_SET)
    while block := os.read(err, 1 << 20):
        errors.update(block)
    os.close(err)
    return f"{total.hexdigest()} {errors.hexdigest()} {process.returncode}"


def _scratch() -> int:
    return os.memfd_create("stderr")


def cache_drops() -> int:
    """How often the kernel's caches were dropped since boot."""
    for line in Path("/proc/vmstat").read_text().splitlines():
        name, value = line.split()
        if name == "drop_slab":
            return int(value)
    return 0


def measure(job: Job, variants: Sequence[Variant], runs: int) -> Row:
    """Warm caches, compare outputs, then `runs` rounds in which each variant runs once."""
    digests = {digest(job, variant) for variant in variants}
    samples: dict[str, list[Sample]] = {variant.name: [] for variant in variants}
    discarded = 0
    drops = cache_drops()
    rounds = 0
    while rounds < runs:
        # Turn about: what comes second finds other caches than what comes first.
        order = list(variants) if rounds % 2 == 0 else list(reversed(variants))
        found = [(variant.name, run_once(job, variant)) for variant in order]
        if cache_drops() != drops and discarded < DISCARDS_MAX:
            discarded += 1
            run_once(job, variants[0])
            drops = cache_drops()
            continue
        for name, sample in found:
            samples[name].append(sample)
        rounds += 1
    summaries = {name: summarize(runs_of) for name, runs_of in samples.items()}
    return Row(job.title, summaries, len(digests) == 1, discarded, job.at_most)


def summarize(samples: Sequence[Sample]) -> Summary:
    """Medians, and the distance of the quartiles of wall time."""
    walls = [sample.wall_s for sample in samples]
    return Summary(
        n=len(samples),
        wall_s=statistics.median(walls),
        wall_iqr_s=spread(walls),
        user_s=statistics.median(sample.user_s for sample in samples),
        system_s=statistics.median(sample.system_s for sample in samples),
        cpu_low_s=lower_quartile([sample.cpu_s for sample in samples]),
    )


def lower_quartile(values: Sequence[float]) -> float:
    """The first quartile; the least of fewer than two values."""
    if len(values) < 2:
        return min(values)
    return statistics.quantiles(values, n=4, method="inclusive")[0]


def spread(values: Sequence[float]) -> float:
    """Distance between the quartiles; 0 for fewer than two values."""
    if len(values) < 2:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return high - low


def machine() -> dict[str, object]:
    """What one needs to know of a machine to read its numbers."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return {
        "kernel": platform.release(),
        "cpu": model,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "root": os.geteuid() == 0,
        "load": os.getloadavg()[0],
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


HEADER = (
    f"{'command':40} {'native':>9} {'cosy':>9} {'ratio':>6} {'target':>7} {'n':>3}  "
    "quartiles ±  CPU, low  output"
)


def print_row(row: Row, variant: str = "cosy") -> None:
    """One line of the table under HEADER."""
    first, second = next(iter(row.summaries.values())), row.summaries[variant]
    target = "" if row.at_most is None else f"<={row.at_most:.2f}"
    spreads = f"{first.wall_iqr_s / first.wall_s:.0%}/{second.wall_iqr_s / second.wall_s:.0%}"
    print(
        f"{row.title:40} {first.wall_s * 1e3:7.1f}ms {second.wall_s * 1e3:7.1f}ms "
        f"{row.ratio(variant):6.3f} {target:>7} {second.n:3}  {spreads:>11}  "
        f"{row.undisturbed(variant):8.3f}  "
        f"{'same' if row.identical else 'DIFFERS'}{'' if row.met(variant) else '  MISSED'}",
        flush=True,
    )


def save(name: str, rows: object) -> Path:
    """Write bench/results/NAME-TIME.json and return its path."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}-{time.strftime('%Y%m%dT%H%M%S')}.json"
    text = json.dumps({"machine": machine(), "rows": rows}, indent=1, default=_plain)
    scratch = path.with_suffix(".tmp")
    scratch.write_text(text + "\n")
    scratch.replace(path)
    return path


def _plain(value: object) -> object:
    if isinstance(value, Row):
        plain = asdict(value)
        plain["ratios"] = {name: value.ratio(name) for name in value.summaries}
        return plain
    raise TypeError(type(value).__name__)
