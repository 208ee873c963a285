# SPDX-License-Identifier: MIT
"""Planted motifs are found again: in noise, with threads that interleave call by call.

Recall: iterations and calls that were planted and are in the motif of that name. Precision: calls
of the motif that were planted.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from miner import cost, mine
from tests.unit.trace_builder import AT_FDCWD, REG, Program, TraceBuilder, random_tree, run
from tracer import syscalls

ENOENT = 2
LEAST = 0.95


@dataclass
class Plan:
    """What was planted: calls by motif and name of the call, and iterations by motif."""

    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    iterations: Counter[str] = field(default_factory=Counter)


def note(plan: Plan, builder: TraceBuilder, motif: str, part: Iterator[None]) -> Iterator[None]:
    """Run `part` and count the calls that it makes itself."""
    while True:
        before = len(builder.rows)
        done = next(part, StopIteration) is StopIteration
        for row in builder.rows[before:]:
            plan.calls[motif, syscalls.name_of(row["nr"])] += 1
        if done:
            return
        yield


def slurp(program: Program, path: str, rng: random.Random) -> Iterator[None]:
    fd = program.open(AT_FDCWD, path, 0, "file")
    yield
    if rng.random() < 0.8:  # optional
        program.call("fstat", fd, 0x7000, st_mode=0o100644, st_size=4096, bytes_out=144)
    for _ in range(rng.randrange(1, 4)):
        yield
        program.call("read", fd, 0x8000, 4096, ret=4096, bytes_out=4096)
    yield
    program.call("read", fd, 0x8000, 4096, ret=0)
    yield
    program.close(fd)


def mapped(program: Program, path: str) -> Iterator[None]:
    fd = program.open(AT_FDCWD, path, 0o2000000, "file")
    yield
    program.call("fstat", fd, 0x7000, st_mode=0o100644, st_size=4096, bytes_out=144)
    yield
    program.call("mmap", 0, 4096, 1, 2, fd, 0, ret=0x7F0000000000)
    yield
    program.close(fd)


def probes(program: Program, name: str) -> Iterator[None]:
    for folder in ("/a", "/b", "/c", "/d"):
        program.call("newfstatat", AT_FDCWD, 0, 0, 0, path=f"{folder}/{name}", ret=-ENOENT)
        yield


def listed(program: Program, names: list[str]) -> Iterator[None]:
    for name in names:
        program.stat(AT_FDCWD, name, REG)
        yield


def noise(program: Program, rng: random.Random, calls: int) -> Iterator[None]:
    """Calls that belong to nothing: no paths, no descriptors, arguments at random."""
    for _ in range(calls):
        name = rng.choice(["mprotect", "getpid", "brk", "futex", "getrandom", "uname", "madvise"])
        program.call(name, rng.randrange(1 << 40), rng.randrange(1 << 20))
        yield


def in_turn(*parts: Iterator[None]) -> Iterator[None]:
    for part in parts:
        yield from part


def planted(seed: int) -> tuple[TraceBuilder, Plan]:
    """Threads that each do one thing many times, among others that do nothing in particular."""
    rng = random.Random(seed)
    builder, plan = TraceBuilder(), Plan()
    program = builder.program("/usr/bin/app")
    threads = [program.thread(2000 + i) for i in range(8)]
    files = 30
    parts: list[Iterator[None]] = []
    for n, thread in enumerate(threads[:2]):
        slurps = [slurp(thread, f"/data/{n}/{i}", rng) for i in range(files)]
        parts.append(note(plan, builder, "slurp", in_turn(*slurps)))
    plan.iterations["slurp"] = 2 * files
    maps = [mapped(threads[2], f"/lib/{i}") for i in range(files)]
    parts.append(note(plan, builder, "map-file", in_turn(*maps)))
    plan.iterations["map-file"] = files
    lists = [probes(threads[3], f"mod{i}") for i in range(files)]
    parts.append(note(plan, builder, "probe-list", in_turn(*lists)))
    plan.iterations["probe-list"] = 4 * files
    names = [f"/index/{i}" for i in range(4 * files)]
    parts.append(note(plan, builder, "list-stat", listed(threads[4], names)))
    plan.iterations["list-stat"] = len(names)
    tree = random_tree(rng, 2, 12)
    walk = builder.program("/usr/bin/walk")
    parts.append(walk.du(AT_FDCWD, "top", tree))
    parts += [noise(t, rng, 600) for t in threads[5:]]
    parts.append(noise(threads[3], rng, 300))
    parts.append(noise(threads[0], rng, 300))
    run(*parts, rng=rng)
    return builder, plan


def score(seed: int, path: Path) -> dict[str, tuple[float, float, float]]:
    """By motif: precision and recall of calls, recall of iterations."""
    builder, plan = planted(seed)
    found = mine.mine([builder.write(path / "t.cosytrace")], cost.Calibration(), workers=1)
    out = {}
    for name, iterations in plan.iterations.items():
        wanted = {call: n for (motif, call), n in plan.calls.items() if motif == name}
        motif = next((m for m in found.motifs if m.name == name), None)
        if motif is None or motif.loop is None:
            out[name] = (0.0, 0.0, 0.0)
            continue
        have: Counter[str] = Counter()
        for call in motif.calls:
            have[call.syscall] += call.count
        hits = sum(min(have[call], n) for call, n in wanted.items())
        got = motif.loop.iterations
        out[name] = (
            hits / max(sum(have.values()), 1),
            hits / sum(wanted.values()),
            min(got, iterations) / max(got, iterations),
        )
    return out


@pytest.mark.parametrize("seed", range(6))
def test_planted_motifs_are_recovered(seed: int, tmp_path: Path) -> None:
    for name, (precision, recall, iterations) in score(seed, tmp_path).items():
        assert min(precision, recall, iterations) >= LEAST, (name, precision, recall, iterations)


def test_noise_alone_gives_no_loops(tmp_path: Path) -> None:
    rng = random.Random(3)
    builder = TraceBuilder()
    program = builder.program("/usr/bin/noise")
    threads = [program, *(program.thread(10 + i) for i in range(3))]
    run(*(noise(t, rng, 1500) for t in threads), rng=rng)
    found = mine.mine([builder.write(tmp_path / "t.cosytrace")], cost.Calibration())
    over = {str(m.loop.over) for m in found.motifs if m.loop}
    assert over <= {"tandem"}  # the same call thrice in a row happens by chance
