# SPDX-License-Identifier: MIT
"""Other programs: nobody may be slowed down, even by a profile that is wrong for everybody.

Three variants take turns: native, cosy-auto with the profile that it would choose, and cosy-auto
with an adversarial one that fires at the very first call in every directory. Outputs must be the
same. A ratio is the median of native's time over the variant's, pair by pair; 1 is no loss. Of wall
time it moves with whatever else runs on the machine, of processor time (children included) less,
so that is what is judged. What the start alone costs is a line of its own, and programs that are
over before it could be made good (200 ms) are judged by it: so many ms more are no slower.
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
from synth.language import Profile, Reach

GOAL = 0.98
LEAST_S = 0.05  # shorter programs run several times in a row
SHORT_S = 0.2  # below this the start of cosy-auto is most of 2 % by itself
START_MS = 2.5
STORED = 1000
# Directories, and files in each, for tests/native/programs/adversary.c; and what it does there.
SHAPES = {"small": (500, 12), "large": (40, 400), "huge": (2, 20_000)}
ADVERSARIES = (
    ("one", "huge"),
    ("epochs", "large"),
    ("directories", "large"),
    ("subset", "large"),
    ("turncoat", "small"),
)

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
        Job(("/usr/bin/python3", "-S", "-E", "-c", "print(sum(range(3000000)))")),
        Job(("/usr/bin/python3", "-S", "-E", "-c", PYTHON, share)),
        Job(("/usr/bin/python3", "-E", "-c", "import json, email, unittest, asyncio")),
        Job(("perl", "-e", "my $n = 0; $n += $_ for 1..3000000; print $n")),
        Job(("sh", "-c", "i=0; while [ $i -lt 60 ]; do /bin/true; i=$((i+1)); done")),
        Job(("make", "-s", "-C", str(work), "-f", "Makefile")),
        Job(("git", "--no-pager", "-C", str(ROOT), "status", "--short")),
        Job(("sqlite3", ":memory:", "select count(*) from pragma_function_list")),
        Job(("dpkg", "-l")),
        Job(("rsync", "-an", "/usr/include/linux", str(work / "sync"))),
        *(
            Job((str(work / "adversary"), how, "6", *map(str, sorted((work / shape).iterdir()))))
            for how, shape in ADVERSARIES
        ),
    ]


def tree(top: Path, shape: tuple[int, int]) -> list[Path]:
    """So many directories of so many files; one entry in 20 is a directory."""
    count, files = shape
    folders = [top / f"d{d}" for d in range(count)]
    for folder in folders:
        folder.mkdir(parents=True)
        for k in range(files):
            (folder / f"f{k}").touch()
        for k in range(files // 20):
            (folder / f"s{k}").mkdir()
    return folders


def prepare(work: Path) -> None:
    """Files to work on, and the programs that waste on purpose."""
    source = ROOT / "tests" / "native" / "programs" / "adversary.c"
    subprocess.run(["cc", "-O2", "-o", work / "adversary", source], check=True)
    for name, shape in SHAPES.items():
        tree(work / name, shape)
    lines = (f"{k} the quick brown fox jumps over the lazy dog\n" for k in range(120_000))
    (work / "text").write_text("".join(lines))
    rules = "\n".join(f"t{k}:\n\t@true" for k in range(40))
    (work / "Makefile").write_text(f"all: {' '.join(f't{k}' for k in range(40))}\n{rules}\n")


def adversary(
    work: Path, most: int | None = None, reach: Reach | None = None, least: int = 0
) -> Path:
    """The shipped compounds, but at the first call in any directory, whatever it asks about.

    `least`, `most`: in none of fewer or more entries than that; `reach`: so far, if it is given.
    """
    shipped = load_profile(ROOT / "synth" / "profiles" / "default.cosy")
    eager = tuple(
        replace(
            c,
            nth=1,
            min_entries=least,
            leaf=False,
            limits=replace(
                c.limits,
                ops=most or c.limits.ops,
                reach=c.limits.reach and (reach or c.limits.reach),
            ),
        )
        for c in shipped.compounds
    )
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
    wall: dict[str, tuple[float, float, float]]
    cpu: dict[str, tuple[float, float, float]]
    added_ms: dict[str, float]  # processor time
    identical: bool

    def met(self, variant: str) -> bool:
        """Not slower, the start apart."""
        short = self.native_s < SHORT_S and self.added_ms[variant] <= START_MS
        return self.identical and (short or self.cpu[variant][1] >= GOAL)


def timed(job: Job, variant: Variant, times: int, work: Path) -> tuple[float, float]:
    """Wall and processor time in seconds of one run, the mean of so many in a row."""
    wall = cpu = 0.0
    for _ in range(times):
        shutil.rmtree(work / "copy", ignore_errors=True)
        sample = run_once(job, variant)
        wall += sample.wall_s
        cpu += sample.cpu_s
    return wall / times, cpu / times


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """The three of them."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def measure(job: Job, variants: list[Variant], runs: int, work: Path) -> Row:
    """Outputs compared, then rounds in which every variant runs once, in changing order."""
    digests = set()
    for variant in variants:
        shutil.rmtree(work / "copy", ignore_errors=True)
        digests.add(digest(job, variant))
    times = max(1, round(LEAST_S / max(timed(job, variants[0], 1, work)[0], 1e-4)))
    found: dict[str, list[tuple[float, float]]] = {variant.name: [] for variant in variants}
    for number in range(runs):
        turn = number % len(variants)
        for variant in variants[turn:] + variants[:turn]:
            found[variant.name].append(timed(job, variant, times, work))
    base = found[variants[0].name]
    wall, cpu, added = {}, {}, {}
    for variant in variants[1:]:
        pairs = list(zip(base, found[variant.name], strict=True))
        wall[variant.name] = quartiles([a[0] / b[0] for a, b in pairs])
        cpu[variant.name] = quartiles([a[1] / b[1] for a, b in pairs])
        added[variant.name] = statistics.median(b[1] - a[1] for a, b in pairs) * 1e3
    median = statistics.median(sample[0] for sample in base)
    return Row(job.title, median, runs, wall, cpu, added, len(digests) == 1)


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
        print(f"{'':40} {'':9}  {'processor time: cosy':30}{'wrong profile':30}wall time")
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
        if rows:
            print(f"{name}: {sum(row.met(name) for row in rows)} of {len(rows)} not slower")
    print(f"saved {save('never-slower', {'rows': [asdict(r) for r in rows], 'start': start})}")
    if not all(row.identical for row in rows):
        raise SystemExit("bench: outputs differ")
    if check and not all(row.met(name) for row in rows for name in row.cpu):
        raise SystemExit("bench: a program was slowed down")


def print_row(row: Row) -> None:
    """One line of the table."""
    cells = "".join(
        f"{row.cpu[name][1]:.3f} ({row.cpu[name][0]:.2f}-{row.cpu[name][2]:.2f}) "
        f"{row.added_ms[name]:+6.1f}ms{'  ' if row.met(name) else ' !'} "
        for name in row.cpu
    )
    walls = " ".join(f"{middle:.2f}" for _, middle, _ in row.wall.values())
    same = "same" if row.identical else "DIFFERS"
    print(f"{row.title:40} {row.native_s * 1e3:7.1f}ms  {cells} {walls}  {same}", flush=True)


if __name__ == "__main__":
    main()
