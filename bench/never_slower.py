# SPDX-License-Identifier: MIT
"""Other programs: nobody may be slowed down, even by a profile that is wrong for everybody.

Three variants take turns: native, cosy-auto with the profile that it would choose, and cosy-auto
with an adversarial one that fires at the very first call in every directory. Outputs must be the
same. A ratio is the median of native's wall time over the variant's, pair by pair; 1 is no loss.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click

from bench.harness import ROOT, Job, Variant, cosy, digest, native, present, run_once, save
from synth.compile import compile_profile, load_profile
from synth.language import Profile

GOAL = 0.98
LEAST_S = 0.05  # shorter programs run several times in a row
STORED = 1000

PYTHON = """
import os, sys
total = 0
for top, folders, files in os.walk(sys.argv[1]):
    for name in files[:1]:
        total += os.stat(os.path.join(top, name)).st_size
print(total)
"""


def jobs(work: Path) -> list[Job]:
    """What people run: most ask for nothing that a compound could answer."""
    share, text = "/usr/share", str(work / "text")
    return [
        Job(("find", share, "-name", "zzz")),
        Job(("find", share, "-type", "d")),
        Job(("find", share, "-maxdepth", "3", "-name", "*.conf", "-size", "+1k")),
        Job(("ls", "-R", share)),
        Job(("ls", "-U", "/usr/bin")),
        Job(("ls", "-l", "/usr/bin")),
        Job(("du", "-s", "/usr/include")),
        Job(("tar", "cf", "-", "/usr/include/linux"), piped=True),
        Job(("grep", "-r", "license", "/usr/include/linux")),
        Job(("grep", "-c", "the", text)),
        Job(("cp", "-r", "/usr/include/linux", str(work / "copy"))),
        Job(("cat", text, text), piped=True),
        Job(("md5sum", text)),
        Job(("sha256sum", text)),
        Job(("sort", text)),
        Job(("wc", text)),
        Job(("sed", "s/a/b/", text)),
        Job(("awk", "{ n += NF } END { print n }", text)),
        Job(("gzip", "-1", "-c", text), piped=True),
        Job(("xz", "-0", "-c", text), piped=True),
        Job(("od", "-x", text), piped=True),
        Job(("diff", text, "/etc/services")),
        Job(("python3", "-S", "-E", "-c", "print(sum(range(3000000)))")),
        Job(("python3", "-S", "-E", "-c", PYTHON, share)),
        Job(("python3", "-E", "-c", "import json, email, unittest, asyncio")),
        Job(("perl", "-e", "my $n = 0; $n += $_ for 1..3000000; print $n")),
        Job(("sh", "-c", "i=0; while [ $i -lt 60 ]; do /bin/true; i=$((i+1)); done")),
        Job(("make", "-s", "-C", str(work), "-f", "Makefile")),
        Job(("git", "--no-pager", "-C", str(ROOT), "status", "--short")),
        Job(("sqlite3", ":memory:", "select count(*) from pragma_function_list")),
        Job(("dpkg", "-l")),
        Job(("rsync", "-an", "/usr/include/linux", str(work / "sync"))),
    ]


def prepare(work: Path) -> None:
    """Files to work on."""
    lines = (f"{k} the quick brown fox jumps over the lazy dog\n" for k in range(120_000))
    (work / "text").write_text("".join(lines))
    rules = "\n".join(f"t{k}:\n\t@true" for k in range(40))
    (work / "Makefile").write_text(f"all: {' '.join(f't{k}' for k in range(40))}\n{rules}\n")


def adversary(work: Path) -> Path:
    """The shipped compounds, but at the first call in any directory, whatever it asks about."""
    shipped = load_profile(ROOT / "synth" / "profiles" / "default.cosy")
    eager = tuple(replace(c, nth=1, min_entries=0, leaf=False) for c in shipped.compounds)
    image = work / "adversary.img"
    image.write_bytes(compile_profile(Profile(eager), "adversary"))
    image.chmod(0o600)
    return image


@dataclass(frozen=True)
class Row:
    """One program: by variant the median ratio native / variant, and its quartiles."""

    title: str
    native_s: float
    n: int
    ratios: dict[str, tuple[float, float, float]]
    identical: bool


def timed(job: Job, variant: Variant, times: int, work: Path) -> float:
    """Wall time in seconds of so many runs in a row."""
    total = 0.0
    for _ in range(times):
        shutil.rmtree(work / "copy", ignore_errors=True)
        total += run_once(job, variant).wall_s
    return total


def measure(job: Job, variants: list[Variant], runs: int, work: Path) -> Row:
    """Outputs compared, then rounds in which every variant runs once, in changing order."""
    digests = set()
    for variant in variants:
        shutil.rmtree(work / "copy", ignore_errors=True)
        digests.add(digest(job, variant))
    times = max(1, round(LEAST_S / max(timed(job, variants[0], 1, work), 1e-4)))
    walls: dict[str, list[float]] = {variant.name: [] for variant in variants}
    for number in range(runs):
        turn = number % len(variants)
        for variant in variants[turn:] + variants[:turn]:
            walls[variant.name].append(timed(job, variant, times, work))
    base = walls[variants[0].name]
    ratios = {}
    for variant in variants[1:]:
        pairs = [a / b for a, b in zip(base, walls[variant.name], strict=True)]
        low, middle, high = statistics.quantiles(pairs, n=4, method="inclusive")
        ratios[variant.name] = (low, middle, high)
    median = statistics.median(base) / times
    return Row(job.title, median, runs, ratios, len(digests) == 1)


def start_cost(runs: int, work: Path) -> dict[str, float]:
    """Wall ms that `cosy-auto true` takes longer than `true`, the store empty and full."""
    home = work / "home"
    profiles = home / "cosy" / "profiles"
    profiles.mkdir(parents=True, mode=0o700)
    job = Job(("true",))
    variants = [native(), Variant("cosy", cosy().prefix, {"XDG_DATA_HOME": str(home)})]
    found = {}
    data = compile_profile(load_profile(ROOT / "synth" / "profiles" / "default.cosy"), "default")
    for name in ("empty", f"{STORED} profiles"):
        walls: dict[str, list[float]] = {variant.name: [] for variant in variants}
        for _ in range(runs):
            for variant in variants:
                walls[variant.name].append(run_once(job, variant).wall_s)
        added = [b - a for a, b in zip(walls["native"], walls["cosy"], strict=True)]
        found[name] = statistics.median(added) * 1e3
        for k in range(STORED):
            (profiles / f"{k:040x}.img").write_bytes(data)
            (profiles / f"{k:040x}.img").chmod(0o600)
    return found


def opens(work: Path) -> str:
    """How often cosy-auto looks at the full store: calls that name its folder, by strace."""
    if shutil.which("strace") is None:
        return "not counted: no strace"
    env = {**os.environ, "XDG_DATA_HOME": str(work / "home")}
    command = ["strace", "-qq", *cosy("--explain").prefix, "true"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    return str(sum("/cosy/profiles" in line for line in done.stderr.splitlines()))


@click.command(help=__doc__)
@click.option("--runs", default=15, show_default=True, help="Rounds; each runs every variant once.")
@click.option("--quick", is_flag=True, help="Three rounds.")
@click.option("--only", default="", help="Only commands that hold this word.")
@click.option("--check", is_flag=True, help=f"Exit 1 when a median is below {GOAL}.")
def main(runs: int, quick: bool, only: str, check: bool) -> None:
    """Measure, print, save."""
    runs = 3 if quick else runs
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="cosy-bench-") as scratch:
        work = Path(scratch)
        prepare(work)
        wrong = Variant("wrong", cosy("--profile", str(adversary(work))).prefix)
        variants = [native(), cosy(), wrong]
        print(f"{'command':40} {'native':>9}  {'cosy (quartiles)':22} {'wrong profile':22}  output")
        for job in jobs(work):
            if (only and only not in job.title) or not present(job):
                continue
            rows.append(measure(job, variants, runs, work))
            print_row(rows[-1])
        start = start_cost(20 if quick else 100, work) if not only else {}
        for name, added in start.items():
            print(f"cosy-auto true, store {name}: {added:.2f} ms over true")
        if start:
            print(f"calls that look at the store: {opens(work)}")
    for name in ("cosy", "wrong"):
        medians = [row.ratios[name][1] for row in rows]
        if medians:
            least = min(rows, key=lambda row: row.ratios[name][1])
            print(
                f"{name}: {sum(m >= GOAL for m in medians)} of {len(medians)} at {GOAL} or better, "
                f"least {min(medians):.3f} ({least.title}), median {statistics.median(medians):.3f}"
            )
    print(f"saved {save('never-slower', {'rows': [asdict(r) for r in rows], 'start': start})}")
    if not all(row.identical for row in rows):
        raise SystemExit("bench: outputs differ")
    if check and any(ratio[1] < GOAL for row in rows for ratio in row.ratios.values()):
        raise SystemExit("bench: a program was slowed down")


def print_row(row: Row) -> None:
    """One line of the table."""
    cells = "  ".join(
        f"{middle:.3f} ({low:.3f}-{high:.3f})" for low, middle, high in row.ratios.values()
    )
    same = "same" if row.identical else "DIFFERS"
    print(f"{row.title:40} {row.native_s * 1e3:7.1f}ms  {cells}  {same}", flush=True)


if __name__ == "__main__":
    main()
