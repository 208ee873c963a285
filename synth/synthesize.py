# SPDX-License-Identifier: MIT
"""The synthesizer: from mined motifs to compounds, by expected saving against expected waste.

Loops over the entries of a directory that ask for attributes become one compound: their statistics
are additive, and one scan of the directory answers them all. For every trigger position (the nth
call in a directory of at least so many entries) the continuation statistics say how often it would
fire, what it would answer afterwards and what it would compute for nothing; the cost model prices
both. A motif that gives no compound is rejected with a reason that a person understands.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Final

from miner.cost import (
    MOST_TIMES,
    Calibration,
    CalibrationError,
    calibration_from,
    saved_per_child_ns,
)
from miner.motifs import ArgKind, Call, Motif, MotifFile, Over, TraceInfo
from synth import chunks, slurps
from synth.capability import SCAN_ATTRIBUTES, SCAN_FLAGS, SCAN_MASK, STAT_CALLS, XATTR_CALLS
from synth.constants import AT_FLAGS
from synth.errors import SynthError
from synth.language import (
    Argument,
    Compound,
    Directory,
    Limits,
    Name,
    Number,
    Path,
    Pattern,
    Profile,
    Text,
)
from synth.language import Call as BodyCall
from tracer.syscalls import ArgKind as CallArg
from tracer.syscalls import SyscallClass, by_name

# A trigger that fires less, or later, is safer for programs that nobody traced, and is taken if it
# costs no more than this share of the saving. The running shim decides for each directory anew.
SAFETY: Final = 0.01
# Programs that nobody traced: one directory in so many is looked at and left again, and after each
# call it is as likely to be left as not.
DOUBT: Final = 0.1
# Below this share of a loop's own time a compound is not worth its risk.
LEAST_GAIN: Final = 0.05
# Where several programs were traced the compound is for all there are: one that polls a file is to
# see its change at the third question, whatever others do.
MOST_TIMES_OF_ALL: Final = 2
# A call that fewer iterations have is no part of the body: asking for it ahead is a guess.
LEAST_SHARE: Final = 0.02
RECORD_BYTES: Final = 128  # of one result: the record, its name and its place in the table
NS_PER_MS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Trigger:
    """One trigger position and what the traces say it would have done; all times in ns."""

    nth: int
    min_entries: int
    fired: int
    served: float
    saved_ns: float
    cost_ns: float
    wasted_ns: float  # part of the cost: entries that nobody asked for
    doubt_ns: float  # allowance for programs that nobody traced

    @property
    def net_ns(self) -> float:
        """What remains."""
        return self.saved_ns - self.cost_ns - self.doubt_ns


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of motifs: a compound, or a reason why not."""

    motifs: tuple[str, ...]
    reason: str
    compound: Compound | None = None
    trigger: Trigger | None = None


@dataclass
class _Scan:
    """Loops that one directory scan answers, and the calls in them that it does."""

    motifs: list[Motif] = field(default_factory=list)
    calls: list[tuple[Call, float]] = field(default_factory=list)  # with the share answered
    sources: dict[str, int] = field(default_factory=dict)  # calls of that kind, by trace
    traced_ns: int = 0  # time in calls, of the traces that the motifs come from


def synthesize_reference(files: Sequence[MotifFile]) -> tuple[Profile, list[Decision]]:
    """A profile of all that the motifs describe, for the reference executor; see `synth.shapes`."""
    from synth import shapes

    decisions: list[Decision] = []
    compounds: list[Compound] = []
    for file in files:
        traced_ns = sum(trace.time_ns for trace in file.traces)
        for motif in file.motifs:
            try:
                compound = shapes.compound_of(motif)
            except shapes.UnsuitableError as error:
                decisions.append(Decision((motif.name,), str(error)))
                continue
            share = f", {motif.time_ns / traced_ns:.0%} of the time in calls" if traced_ns else ""
            programs = ", ".join(
                sorted(exe.rpartition("/")[2] for exe in motif.instances_by_program)
            )
            line = _plain(f"evidence: {programs}; {motif.crossings:,} calls{share}")
            compound = replace(compound, evidence=(line,))
            compounds.append(compound)
            decisions.append(Decision((motif.name,), "as the motif describes it", compound))
    profile = Profile(shapes.unique(compounds), comments=_provenance(files))
    return profile, decisions


def synthesize(
    files: Sequence[MotifFile], costs: Calibration | None = None
) -> tuple[Profile, list[Decision]]:
    """The profile that the motif files justify, and the decision on each motif.

    `costs`: by default those that the first file was mined with. Raises SynthError when that file's
    are none.
    """
    if costs is None:
        costs = _costs_of(files)
    decisions: list[Decision] = []
    scan = _Scan()
    files_read = {over: slurps.Slurps(over) for over in (Over.ENTRIES, Over.FILES)}
    for file in files:
        scan.traced_ns += sum(trace.time_ns for trace in file.traces)
        for motif in file.motifs:
            answered = _answered_calls(motif)
            reason = _rejection(motif, answered)
            kind = slurps.kind(motif)
            if kind:
                files_read[kind].add(motif, _source(file))
            if reason and not kind:
                decisions.append(Decision((motif.name,), reason))
            elif not reason:
                scan.motifs.append(motif)
                scan.calls += answered
                source = _source(file)
                count = sum(call.count for call, _ in answered)
                scan.sources[source] = scan.sources.get(source, 0) + count
    compounds: tuple[Compound, ...] = ()
    if scan.motifs:
        decision = _decide(scan, costs)
        decisions.insert(0, decision)
        if decision.compound:
            compounds = (decision.compound,)
    for found in files_read.values():
        if found.motifs:
            decision = _decide_slurps(found, costs, scan.traced_ns)
            decisions.append(decision)
            if decision.compound:
                compounds = (*compounds, decision.compound)
    return Profile(compounds, comments=_provenance(files)), decisions


def _costs_of(files: Sequence[MotifFile]) -> Calibration:
    try:
        return calibration_from(files[0].calibration, "motif file") if files else Calibration()
    except CalibrationError as error:
        raise SynthError(f"{error}: mine again (cosy-mine)") from None


def _source(file: MotifFile) -> str:
    """The trace that its motifs come from; of several that were mined together, all of them."""
    return ", ".join(_trace_name(trace) for trace in file.traces)


def _trace_name(trace: TraceInfo) -> str:
    return PurePath(trace.path).name.removesuffix(".cosytrace")


def _provenance(files: Iterable[MotifFile]) -> tuple[str, ...]:
    lines = ["Synthesized from traces of:"]
    for file in files:
        for trace in file.traces:
            lost = f", {trace.lost_events:,} lost" if trace.lost_events else ""
            command = " ".join(trace.command)
            lines.append(f"  {_trace_name(trace)}: {command} ({trace.events:,} calls{lost})")
    return tuple(_plain(line) for line in lines)


def _plain(text: str) -> str:
    """As a comment: one printable line, whatever a command's arguments or a file's name hold."""
    return "".join(char if char.isprintable() else "?" for char in text).rstrip()


def _path_kind(call: Call) -> ArgKind:
    """Where the call's path comes from."""
    syscall = by_name().get(call.syscall)
    position = syscall.index(CallArg.PATH) if syscall else None
    if position is None or position >= len(call.args):
        return ArgKind.NONE
    return call.args[position].kind


def _matching(call: Call) -> bool:
    """A pure call that names a child of D: what the continuation statistics count."""
    return call.sclass == SyscallClass.PURE and _path_kind(call) in (ArgKind.NAME, ArgKind.PATH)


def _answered_share(call: Call) -> float:
    """Share of the call's occurrences that the record of a scan answers."""
    if not _matching(call) or not call.count:
        return 0.0
    if call.syscall in XATTR_CALLS:
        return sum(x.missing for x in call.xattrs if x.name in SCAN_ATTRIBUTES) / call.count
    if call.syscall not in STAT_CALLS:
        return 0.0
    share = 1.0
    for seen, allowed in ((call.flags, SCAN_FLAGS), (call.mask, SCAN_MASK)):
        total = sum(value.count for value in seen)
        fitting = sum(value.count for value in seen if not value.value & ~allowed)
        share *= fitting / total if total else 1.0
    return share


def _answered_calls(motif: Motif) -> list[tuple[Call, float]]:
    found = [(call, _answered_share(call)) for call in motif.calls if call.share >= LEAST_SHARE]
    return [(call, share) for call, share in found if share > 0]


_SHAPES: Final = {
    Over.UNTIL_EOF: "reads of an open file until its end",
    Over.FILES: "one file opened after the other",
    Over.PATHS: "a list of paths asked for by name",
    Over.REQUESTS: "the requests of a server",
}


def _rejection(motif: Motif, answered: list[tuple[Call, float]]) -> str | None:
    """Why a motif gives no compound whatever it costs; None: it may."""
    if motif.loop is None:
        return "a sequence without a loop: no executor here runs it in fewer crossings"
    if motif.loop.over is Over.TANDEM:
        return "the same calls back to back, over nothing: no executor runs them in fewer crossings"
    if motif.loop.over is not Over.ENTRIES:
        return f"{_SHAPES[motif.loop.over]}: no fast executor runs that yet"
    if not answered:
        calls = ", ".join(dict.fromkeys(call.syscall for call in motif.calls))
        return (
            f"no call in it asks for an entry's attributes by name ({calls}): a scan answers none"
        )
    if not any(call.syscall in STAT_CALLS for call, _ in answered):
        return "it asks for extended attributes only: a scan for these alone is not worth it"
    known = sum(n for call, _ in answered for kind, n in call.types.items() if kind != "unknown")
    directories = sum(call.types.get("dir", 0) for call, _ in answered)
    if known and directories == known:
        return "it asks about directories only: a scan would compute the files for nothing"
    return None


def _decide(scan: _Scan, costs: Calibration) -> Decision:
    """The best trigger position, and whether it is worth it."""
    names = tuple(motif.name for motif in scan.motifs)
    candidates = triggers(scan.motifs, costs)
    best = max(candidates, key=lambda t: t.net_ns, default=None)
    if best is None:
        return Decision(names, "the motif file holds no continuation statistics: mine it again")
    good = [t for t in candidates if t.net_ns >= best.net_ns - SAFETY * abs(best.net_ns)]
    best = min(good, key=lambda t: (t.fired, -t.nth))
    # On a busy machine single calls wait, for a processor or a disk: no measure of what is to gain.
    time_ns = sum(call.usual_ns or call.time_ns for motif in scan.motifs for call in motif.calls)
    if best.net_ns < LEAST_GAIN * time_ns:
        return Decision(
            names,
            f"it would save {ms(best.saved_ns)} and cost {ms(best.cost_ns)} at its best trigger "
            f"(call {best.nth} in directories of {best.min_entries} entries or more): not worth it",
            trigger=best,
        )
    compound = _compound(scan, best, costs)
    reason = f"saves {ms(best.saved_ns)} for {ms(best.cost_ns)} in these traces"
    return Decision(names, reason, compound, best)


def _decide_slurps(found: slurps.Slurps, costs: Calibration, traced_ns: int) -> Decision:
    """Whether reading files ahead is worth it; how much is the running shim's to decide."""
    names = tuple(motif.name for motif in found.motifs)
    saved = found.saved_ns(costs)
    if saved < LEAST_GAIN * found.time_ns:
        return Decision(names, f"reading its files ahead would save {ms(saved)}: not worth it")
    share = f", {found.time_ns / traced_ns:.0%} of the time in calls" if traced_ns else ""
    sources = "; ".join(f"{name} {calls:,}" for name, calls in found.sources.items())
    evidence = (
        f"evidence: {found.programs}; {found.count:,} calls{share}",
        f"from traces (calls of this kind): {sources}",
        f"expected with the kernel module: saves {ms(saved)}",
    )
    compound = slurps.compound(found, tuple(_plain(line) for line in evidence))
    return Decision(names, f"saves {ms(saved)} with the kernel module", compound)


def triggers(motifs: Sequence[Motif], costs: Calibration) -> list[Trigger]:
    """What each trigger position would have done in the traced runs.

    Positions are those of the continuation statistics: nth from its rows, min_entries from its
    buckets of directory sizes.
    """
    rows = [row for motif in motifs for row in motif.continuation if row.n >= 1]
    sums = {
        (nth, least): _at(motifs, nth, least, costs)
        for nth in sorted({row.n for row in rows})
        for least in sorted({row.min_entries for row in rows})
    }
    return [trigger for trigger in sums.values() if trigger.fired]


def _at(motifs: Sequence[Motif], nth: int, least: int, costs: Calibration) -> Trigger:
    fired = entries = 0
    served = saved = wasted = 0.0
    for motif in motifs:
        per_child = sum(
            call.share * min(call.per_iteration, MOST_TIMES) * share
            for call, share in _answered_calls(motif)
        )
        per_child_ns = saved_per_child_ns(motif, "bpf", costs)
        matching = sum(call.count for call in motif.calls if _matching(call))
        asking = sum(c.count for c in motif.calls if _matching(c) and c.syscall in STAT_CALLS)
        stats = asking / max(matching, 1)
        for row in motif.continuation:
            if row.n != nth or row.min_entries < least:
                continue
            # The triggering call is answered as well, from the run that it starts. Only the
            # attributes of a child trigger, and later calls may ask for more of the same child.
            started = row.reached * (1.0 if nth == 1 else stats)
            children = min(row.children + started, row.entries)
            fired += row.reached
            entries += row.entries
            served += children * per_child
            saved += children * per_child_ns
            wasted += (row.entries - children) * costs.bpf_child_ns
    cost = fired * costs.bpf_run_ns + entries * costs.bpf_child_ns
    doubt = DOUBT * 0.5 ** (nth - 1) * cost
    return Trigger(nth, least, fired, served, saved, cost, wasted, doubt)


def _compound(scan: _Scan, trigger: Trigger, costs: Calibration) -> Compound:
    attributes = _attributes(scan)
    stat = BodyCall("newfstatat", (Directory(), Name(), _nofollow()))
    body = [stat, *[replace(stat, optional=True)] * (_times(scan) - 1)]
    body += [
        BodyCall("lgetxattr", (Path(), Text(attribute)), optional=True) for attribute in attributes
    ]
    # One record answers every call of the family, so the siblings of what was seen are served too.
    stats = (
        Pattern("newfstatat", ("D", "name"), flags=SCAN_FLAGS),
        Pattern("statx", ("D", "name"), flags=SCAN_FLAGS, mask=SCAN_MASK),
        Pattern("lstat", ("path",)),
        Pattern("stat", ("path",)),
    )
    xattrs = tuple(
        Pattern(call, ("path",), attribute=attribute)
        for attribute in attributes
        for call in sorted(XATTR_CALLS)
    )
    return Compound(
        name="dirscan-stat",
        triggers=stats,
        body=tuple(body),
        serves=(*(Pattern(pattern.call) for pattern in stats), *xattrs),
        leaf=True,
        nth=trigger.nth,
        min_entries=trigger.min_entries,
        limits=_limits(scan.motifs, costs),
        evidence=_evidence(scan, trigger),
    )


def _times(scan: _Scan) -> int:
    """How often the body asks for a child's attributes: each call of the body is answered once.

    Nearly all of the children that were asked for at all count, so that a program that polls one
    of them does not.
    """
    asked = [call.repeats.get("p99", 1.0) for call, _ in scan.calls if call.syscall in STAT_CALLS]
    programs = {exe for motif in scan.motifs for exe in motif.instances_by_program}
    most = MOST_TIMES if len(programs) == 1 else MOST_TIMES_OF_ALL
    return min(max(round(max(asked, default=1.0)), 1), most)


def _nofollow() -> Argument:
    return Number(AT_FLAGS["AT_SYMLINK_NOFOLLOW"], "AT")


def _attributes(scan: _Scan) -> tuple[str, ...]:
    """Attributes to serve: all that a record answers, if the programs ask for any of them."""
    asked = any(call.syscall in XATTR_CALLS for call, _ in scan.calls)
    return SCAN_ATTRIBUTES if asked else ()


def _limits(motifs: Sequence[Motif], costs: Calibration) -> Limits:
    time_ms = max(round(chunks.MOST_ENTRIES * costs.bpf_child_ns / NS_PER_MS), 1)
    reach = chunks.choose(motifs, costs)
    size = chunks.MOST_ENTRIES * RECORD_BYTES
    return Limits(chunks.MOST_ENTRIES, size, time_ms * NS_PER_MS, reach)


def _evidence(scan: _Scan, trigger: Trigger) -> tuple[str, ...]:
    programs: dict[str, int] = {}
    for motif in scan.motifs:
        for exe, instances in motif.instances_by_program.items():
            name = exe.rpartition("/")[2]
            programs[name] = programs.get(name, 0) + instances
    count = sum(call.count for call, _ in scan.calls)
    time_ns = sum(call.time_ns for call, _ in scan.calls)
    share = f", {time_ns / scan.traced_ns:.0%} of the time in calls" if scan.traced_ns else ""
    seen = ", ".join(dict.fromkeys(call.syscall for call, _ in scan.calls))
    scanned = sum(motif.loop.scanned for motif in scan.motifs if motif.loop)
    waste = trigger.wasted_ns / trigger.cost_ns if trigger.cost_ns else 0.0
    sources = "; ".join(f"{name} {calls:,}" for name, calls in scan.sources.items())
    return (
        _plain(f"evidence: {', '.join(sorted(programs))}; {count:,} calls ({seen}){share}"),
        _plain(f"from traces (calls of this kind): {sources}"),
        f"would have fired in {trigger.fired:,} of {scanned:,} directories, "
        f"answering {trigger.served:,.0f} calls",
        f"expected: saves {ms(trigger.saved_ns)}, costs {ms(trigger.cost_ns)}, "
        f"{waste:.0%} of the cost for nothing",
    )


def ms(time_ns: float) -> str:
    """Milliseconds for people."""
    return f"{time_ns / NS_PER_MS:.3g} ms" if time_ns < 999.5e6 else f"{time_ns / 1e9:.3g} s"
