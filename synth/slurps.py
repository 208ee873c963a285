# SPDX-License-Identifier: MIT
"""Loops that open file after file, read each to its end and close it, for the kernel module.

The module reads the next files of the same directory, or of the list of paths that the program was
started with, in one crossing, and the shim answers open, fstat, read and close from that
(shim/files.c). What the program does with a descriptor besides is made good by opening the file
after all, so motifs that nearly always do so are none of these.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from miner.cost import Calibration, fusible_ns
from miner.motifs import Arg, ArgKind, Call, Motif, Over
from synth.constants import AT_FDCWD, AT_FLAGS, OPEN_FLAGS
from synth.language import Call as BodyCall
from synth.language import (
    Compound,
    Directory,
    Limits,
    Name,
    Number,
    Pattern,
    Result,
    Trigger,
)

# Flags of an open that change nothing about a regular file that is only read.
READING: Final = sum(
    OPEN_FLAGS[name] for name in ("O_CLOEXEC", "O_NOFOLLOW", "O_NOCTTY", "O_NONBLOCK")
)
# Of the iterations: what most of them must have, and what too many may not have.
MOST: Final = 0.5
SOME: Final = 0.05
# Shorter ones end before a run pays.
LEAST_FILES: Final = 4
# Bytes of one run, and of the time that it may take.
RUN_BYTES: Final = 64 << 10
RUN_NS: Final = 20_000_000
# Answered from what was read ahead, and what is made good by the way; the rest opens the file.
_ANSWERED: Final = frozenset({"newfstatat", "fstat", "read", "close"})
_HARMLESS: Final = _ANSWERED | {"lseek", "fadvise64"}


@dataclass
class Slurps:
    """Motifs of one kind, and how often their calls were seen by trace."""

    over: Over
    motifs: list[Motif] = field(default_factory=list)
    sources: dict[str, int] = field(default_factory=dict)

    def add(self, motif: Motif, source: str) -> None:
        """One more, mined from `source`."""
        self.motifs.append(motif)
        count = sum(call.count for call in _calls(motif))
        self.sources[source] = self.sources.get(source, 0) + count

    def saved_ns(self, costs: Calibration) -> float:
        """What the module saves, its own time and the shim's taken off."""
        calls = [call for motif in self.motifs for call in _calls(motif)]
        time_ns = sum(fusible_ns(call, costs) for call in calls)
        return time_ns * (1 - costs.module_slurp_ratio) - self.count * costs.inline_ns

    @property
    def time_ns(self) -> float:
        """Of the calls that are answered."""
        return sum(c.usual_ns or c.time_ns for motif in self.motifs for c in _calls(motif))

    @property
    def programs(self) -> str:
        """Their names."""
        exes = {exe for motif in self.motifs for exe in motif.instances_by_program}
        return ", ".join(sorted({exe.rpartition("/")[2] for exe in exes}))

    @property
    def count(self) -> int:
        """Calls that are answered."""
        return sum(call.count for motif in self.motifs for call in _calls(motif))


def kind(motif: Motif) -> Over | None:
    """ENTRIES or FILES: what the motif's files are one of; None: it is no such loop."""
    loop = motif.loop
    if loop is None or loop.over not in (Over.ENTRIES, Over.FILES):
        return None
    found = _open(motif)
    if found is None or loop.iterations < LEAST_FILES * loop.instances:
        return None
    index, opened = found
    path = opened.args[1].kind
    if loop.over is Over.ENTRIES:
        fits = opened.args[0].kind is ArgKind.DIR and path is ArgKind.NAME
    else:
        fits = _is_cwd(opened.args[0]) and path is ArgKind.ITEM
    about = [call for call in motif.calls if _about(call, index)]
    share = opened.share
    reads = any(c.syscall == "read" and c.share >= MOST * share and c.to_end >= MOST for c in about)
    closes = any(c.syscall == "close" and c.share >= MOST * share for c in about)
    odd = any(c.syscall not in _HARMLESS and c.share >= SOME for c in about)
    return loop.over if fits and reads and closes and not odd else None


def _is_cwd(arg: Arg) -> bool:
    return arg.kind is ArgKind.CONST and (arg.value or 0) & 0xFFFFFFFF == AT_FDCWD & 0xFFFFFFFF


def _about(call: Call, index: int) -> bool:
    """The call is on what call `index` opened."""
    return any(arg.kind is ArgKind.RESULT and arg.call == index for arg in call.args)


def _open(motif: Motif) -> tuple[int, Call] | None:
    for index, call in enumerate(motif.calls):
        flags = sum(seen.count for seen in call.flags if not seen.value & ~READING)
        if call.syscall == "openat" and call.share >= MOST and flags >= MOST * call.count:
            return index, call
    return None


def _calls(motif: Motif) -> list[Call]:
    """Those that are answered."""
    found = _open(motif)
    if found is None:
        return []
    index, opened = found
    rest = [call for call in motif.calls if _about(call, index) and call.syscall in _ANSWERED]
    return [opened, *rest]


def compound(slurps: Slurps, evidence: tuple[str, ...]) -> Compound:
    """For all loops of the kind."""
    entries = slurps.over is Over.ENTRIES
    cloexec = Number(OPEN_FLAGS["O_CLOEXEC"], "O")
    subjects = (Directory(), Name()) if entries else (Trigger(0), Trigger(1))
    return Compound(
        name="directory-slurp" if entries else "slurp",
        triggers=(Pattern("openat", ("D", "name"), flags=READING),),
        body=(
            BodyCall("openat", (*subjects, cloexec)),
            BodyCall("fstat", (Result(0),), optional=True),
            BodyCall("read", (Result(0),), until=True),
            BodyCall("close", (Result(0),)),
        ),
        serves=(
            Pattern("fstat"),
            Pattern("newfstatat", flags=AT_FLAGS["AT_EMPTY_PATH"]),
            Pattern("read"),
        ),
        loop=entries,
        scanned=entries,
        child=entries,
        nth=2,
        limits=Limits(bytes=RUN_BYTES, time_ns=RUN_NS),
        executors=("module",),
        evidence=evidence,
    )
