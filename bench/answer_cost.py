# SPDX-License-Identifier: MIT
"""How many instructions of the shim an answer takes, by function.

A count, so the same on a busy machine. A program under the shim asks about the entries of a
directory until they are answered; then it is stepped through more questions, one instruction at a
time. Interposition is included, the executor's run is not.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from bench.harness import ROOT, save
from bench.overhead import shim
from tracer import symbols
from tracer.native import find, library

WAYS = {"descriptor": 1, "path": 3}  # calls for each entry that is asked about
ENTRIES = 300
ASKED = 50  # entries
LINES = 12


@dataclass(frozen=True)
class Cost:
    """What answers cost that were asked for in one way."""

    way: str
    calls: int
    served: int
    instructions: float  # an answer
    functions: dict[str, float]  # instructions an answer


def compile_program(folder: Path) -> Path:
    """Build bench/answer_cost.c; returns the program."""
    program = folder / "answer_cost"
    source = ROOT / "bench" / "answer_cost.c"
    subprocess.run(["cc", "-O2", "-Wall", "-Werror", "-o", program, source], check=True)
    return program


def measure(way: str, work: Path) -> Cost:
    """Step through answers; `work` takes the program and a directory of files.

    Raises subprocess.CalledProcessError when the program cannot be stepped through.
    """
    folder = work / way
    folder.mkdir()
    for k in range(ENTRIES):
        file = folder / f"some-name-of-a-file-{k}"
        file.touch()
        file.stat()  # a change time that nobody saw yet is not told (docs/bpf-executor.md)
    variant = shim("exec", image=str(find("default.img")), max_age_ms="60000")
    output = subprocess.check_output(
        [compile_program(work), folder, way], env={**os.environ, **variant.env}, text=True
    )
    *lines, (_, served) = (line.split() for line in output.splitlines())
    names = symbols.of_file(str(library()))
    functions: Counter[str] = Counter()
    for offset, count in lines:
        name = names.name(int(offset, 16)) or "?"
        functions[name.split("+")[0]] += int(count)
    calls = ASKED * WAYS[way]
    return Cost(
        way,
        calls,
        int(served),
        functions.total() / calls,
        {name: count / calls for name, count in functions.most_common()},
    )


@click.command(help=__doc__)
def main() -> None:
    """Both ways, as a table and as JSON."""
    with tempfile.TemporaryDirectory(prefix="cosy-bench-") as name:
        costs = [measure(way, Path(name)) for way in WAYS]
    for cost in costs:
        print(
            f"by {cost.way}: {cost.instructions:.0f} instructions an answer"
            f" ({cost.served} of {cost.calls} calls answered)"
        )
        for function, count in list(cost.functions.items())[:LINES]:
            print(f"  {count:7.1f} {function}")
    print("saved", save("answer-cost", [asdict(cost) for cost in costs]))


if __name__ == "__main__":
    main()
