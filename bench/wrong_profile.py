# SPDX-License-Identifier: MIT
"""A profile that was mined from another program: no program may be slower than 0.98x with it.

Each program of datasets/ (servers apart) runs with profiles that were mined from the traces least
like its own: of its calls they have the fewest in common. Three variants take turns: native; cosy-
auto with a profile that never fires, which is what start and interposition cost whatever the
profile; cosy-auto with the wrong one. Ratios are of processor time (children included), which
moves least with what else the machine does: medians of the rounds with 95 % intervals. The last
one is native over wrong, less what `true` costs more under cosy-auto: the start, for which 15 ms
are allowed, and short programs are little else. A loss of more than 2 % is said to be one when the
whole interval says so, none when none of it does, and otherwise it is undecided: then rounds go
on, up to --most.
"""

from __future__ import annotations

import statistics
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click

from bench.harness import Job, Variant, native, run_once, save, script
from bench.intervals import median_interval
from bench.leave_one_out import spelled
from bench.programs import Programs, Run
from miner.motifs import MotifFile
from synth.compile import compile_profile, load_profile
from synth.language import Profile
from synth.shipped import DATASETS, TEXT, mined
from synth.synthesize import synthesize
from synth.verify import MAX_ENTRIES, MAX_NTH
from tracer.dataset import Dataset

GOAL = 0.98
ROUNDS = 10  # before the first verdict
Ratio = tuple[float, float, float]


@dataclass(frozen=True)
class Row:
    """One program with one wrong profile.

    `idle`: native over idle; `profile`: idle over wrong; `apart`: native over wrong, the start
    taken off. All of processor time.
    """

    name: str
    other: str
    n: int
    identical: bool
    native_ms: float
    idle: Ratio
    profile: Ratio
    apart: Ratio

    @property
    def verdicts(self) -> tuple[str, str]:
        """Of what the profile costs, and of all that the start does not explain."""
        if not self.identical:
            return "DIFFERS", "DIFFERS"
        return verdict(self.profile), verdict(self.apart)


def verdict(ratio: Ratio) -> str:
    """Whether it is below the goal, as far as its interval tells."""
    _, low, high = ratio
    return "below" if high < GOAL else "not below" if low >= GOAL else "undecided"


def likeness(calls: dict[str, Counter[int]], one: str, other: str) -> float:
    """The share of their calls that two traces have in common, 0 to 1."""
    totals = [calls[name].total() for name in (one, other)]
    return sum(
        min(calls[one][nr] / totals[0], calls[other][nr] / totals[1])
        for nr in calls[one].keys() & calls[other].keys()
    )


def calls_of(name: str) -> Counter[int]:
    """How often a trace of datasets/ has each system call."""
    table = Dataset(DATASETS / f"{name}.cosytrace").events(["nr"])
    return Counter(table.column("nr").to_pylist())


def images(found: dict[str, MotifFile], work: Path) -> dict[str, Path]:
    """The profile of each trace by itself that justifies one."""
    made = {}
    for name, motifs in found.items():
        profile, _ = synthesize([motifs])
        if profile.compounds:
            made[name] = image(work / f"{name}.img", profile)
    return made


def never(work: Path) -> Path:
    """The shipped profile, but for directories that nobody has."""
    shipped = load_profile(TEXT)
    compounds = tuple(replace(c, nth=MAX_NTH, min_entries=MAX_ENTRIES) for c in shipped.compounds)
    return image(work / "never.img", Profile(compounds))


def image(path: Path, profile: Profile) -> Path:
    """Write a profile's image where cosy-auto accepts it."""
    path.write_bytes(compile_profile(profile, path.stem))
    path.chmod(0o600)
    return path


def start_s(prefix: Sequence[str], rounds: int) -> Ratio:
    """Seconds of processor time that `true` takes more with these words in front of it."""
    job, ours = Job(("true",)), Variant("cosy", tuple(prefix))
    added = [-run_once(job, native()).cpu_s + run_once(job, ours).cpu_s for _ in range(rounds)]
    return median_interval(added)


def measure(
    programs: Programs, name: str, other: str, idle: Path, wrong: Path, start: float, most: int
) -> Row:
    """Rounds until the verdict is certain, `most` of them at most."""
    auto = script("cosy-auto")
    prefixes = [[], [auto, "--profile", str(idle)], [auto, "--profile", str(wrong)]]
    digests = {programs.run(name, prefix).digest for prefix in prefixes}
    rounds: list[tuple[Run, ...]] = []
    while True:
        turn = len(rounds) % 3
        runs: dict[int, Run] = {}
        for which in (*range(turn, 3), *range(turn)):
            runs[which] = programs.run(name, prefixes[which])
        rounds.append(tuple(runs[which] for which in range(3)))
        if len(rounds) < ROUNDS:
            continue
        digests |= {run.digest for three in rounds for run in three}
        row = Row(
            name=name,
            other=other,
            n=len(rounds),
            identical=len(digests) == 1,
            native_ms=statistics.median(a.cpu_s for a, _, _ in rounds) * 1e3,
            idle=median_interval([a.cpu_s / b.cpu_s for a, b, _ in rounds]),
            profile=median_interval([b.cpu_s / c.cpu_s for _, b, c in rounds]),
            apart=median_interval([a.cpu_s / max(c.cpu_s - start, 1e-6) for a, _, c in rounds]),
        )
        if "undecided" not in row.verdicts or len(rounds) >= most:
            return row


@click.command(help=__doc__)
@click.option("--only", default="", help="Only programs whose name holds this word.")
@click.option("--others", default=2, show_default=True, help="Wrong profiles for each program.")
@click.option("--most", default=30, show_default=True, help="Rounds at most.")
@click.option("--check", is_flag=True, help=f"Exit 1 when a program is below {GOAL}.")
def main(only: str, others: int, most: int, check: bool) -> None:
    """Mine, pair, measure, print, save."""
    programs = Programs()
    found = mined()
    calls = {name: calls_of(name) for name in found}
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="cosy-bench-") as scratch:
        work = Path(scratch)
        made = images(found, work)
        idle = never(work)
        auto = script("cosy-auto")
        starts = {
            what: start_s([auto, "--profile", str(path)], 40)
            for what, path in (
                ("an empty profile", image(work / "empty.img", Profile(()))),
                ("a profile", idle),
            )
        }
        for what, (middle, low, high) in starts.items():
            print(f"start with {what}: {middle * 1e3:.2f} ms ({low * 1e3:.2f}-{high * 1e3:.2f})")
        print(f"profiles of their own: {', '.join(made)}")
        print(
            f"{'program':18} {'profile of':18} {'like':>4} {'native':>8}  {'nothing fires':19}"
            f" {'what the profile adds':31} {'all but the start':31}  n"
        )
        for name in programs.names(only):
            if name not in found:
                continue
            pairs = sorted(
                (likeness(calls, name, other), other)
                for other in made
                if programs.program(other) != programs.program(name)
            )
            for like, other in pairs[:others]:
                start, _, _ = starts["a profile"]
                row = measure(programs, name, other, idle, made[other], start, most)
                rows.append(row)
                print_row(row, like)
    verdicts = [Counter(row.verdicts[which] for row in rows) for which in range(2)]
    for what, counter in zip(("the profile", "all but the start"), verdicts, strict=True):
        print(f"{what}: {', '.join(f'{n} {said}' for said, n in counter.most_common())}")
    print(f"saved {save('wrong-profile', {'rows': [asdict(r) for r in rows], 'start_s': starts})}")
    if verdicts[0]["DIFFERS"]:
        raise SystemExit("bench: outputs differ")
    if check and verdicts[0]["below"]:
        raise SystemExit("bench: a program was slowed down")


def print_row(row: Row, like: float) -> None:
    """One line of the table."""
    print(
        f"{row.name:18} {row.other:18} {like:4.2f} {row.native_ms:6.1f}ms  "
        f"{spelled(row.idle):19} {spelled(row.profile):19} {row.verdicts[0]:11} "
        f"{spelled(row.apart):19} {row.verdicts[1]:11} {row.n:2}",
        flush=True,
    )


if __name__ == "__main__":
    main()
