# SPDX-License-Identifier: MIT
"""Motifs as a table for the terminal: at most 80 columns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePosixPath
from textwrap import shorten, wrap

from miner.motifs import Call, Loop, Motif, MotifFile, Over
from miner.render import body_line

WIDTH = 80
_TOP = 10  # motifs whose share of the time is said
_INDENT = "     "
_SHARES_SHOWN = 0.98
_CALLS_SHOWN = 10


def nanoseconds(value: float) -> str:
    """A time with three digits and its unit."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}" if value < 1e3 * size else f"{value / size:,.0f} s"
    return f"{value:.0f} ns"


def octets(value: float) -> str:
    """A number of bytes with three digits and its unit."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f} B"


def _wrapped(text: str, indent: str, hanging: str) -> list[str]:
    return wrap(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=hanging,
        break_on_hyphens=False,
    )


def loop_line(loop: Loop) -> str:
    if loop.over is Over.UNTIL_EOF:
        return f"until F ends ({loop.instances:,} times, {loop.iterations:,} calls)"
    if loop.over is Over.FILES:
        known = f", {loop.known:.0%} opened before" if loop.known >= 0.005 else ""
        return f"each file f  ({loop.iterations:,} files, {loop.instances:,} runs{known})"
    if loop.over is Over.PATHS:
        return (
            f"each path p of a list  ({loop.iterations:,} paths, {loop.distinct:,} different, "
            f"{loop.instances:,} lists, {loop.known:.0%} as before)"
        )
    if loop.over is Over.REQUESTS:
        return f"each request  ({loop.iterations:,} requests, {loop.instances:,} runs)"
    if loop.over is Over.TANDEM:
        return f"again and again ({loop.instances:,} times, {loop.iterations:,} rounds)"
    touched = loop.scanned - loop.untouched
    directories = f"{touched:,} of {loop.scanned:,}" if loop.untouched else f"{loop.scanned:,}"
    unit = "directory" if loop.scanned == 1 else "directories"
    entries = f"{loop.iterations:,} of {loop.entries_total:,} entries"
    if loop.iterations == loop.entries_total:
        entries = f"{loop.iterations:,} entries"
    return f"each e in entries(D)  ({directories} {unit}, {entries})"


def _skipped(loop: Loop) -> str | None:
    """Which types of entry the loop passes over."""
    none = [kind for kind, share in loop.coverage.items() if share == 0.0]
    if not none or loop.over is not Over.ENTRIES:
        return None
    return f"never for a {' or a '.join(none)}"


def _notes(call: Call) -> str:
    notes = []
    if call.share < _SHARES_SHOWN:
        notes.append(f"{call.share:.0%}")
    if call.per_iteration >= 1.05:
        notes.append(f"x{call.per_iteration:.3g}")
    if call.errors:
        name = next(iter(call.error_names), "error")
        notes.append(f"{call.errors / call.count:.0%} {name}")
    return f"  [{', '.join(notes)}]" if notes else ""


def _call_lines(motif: Motif, i: int, indent: str) -> Iterator[str]:
    call = motif.calls[i]
    used = any(arg.call == i for other in motif.calls for arg in other.args)
    label = f"r{i} = " if used else ""
    text = f"{label}{body_line(call)}{_notes(call)}"
    yield from _wrapped(text, indent, indent + "    ")


def motif_lines(number: int, motif: Motif) -> Iterator[str]:
    """One motif: a head line, its body by provenance, who does it and what it would save."""
    numbers = f"{motif.crossings:,} calls  {motif.share:6.1%} of time"
    name = shorten(motif.name, WIDTH - len(numbers) - 6, placeholder="...")
    yield f"{number:3}. {name}{numbers:>{WIDTH - 5 - len(name)}}"
    indent = _INDENT
    if motif.loop:
        yield from _wrapped(loop_line(motif.loop), _INDENT, _INDENT + "    ")
        indent += "  "
        skipped = _skipped(motif.loop)
        if skipped:
            yield indent + skipped
    for i in range(min(len(motif.calls), _CALLS_SHOWN)):
        yield from _call_lines(motif, i, indent)
    if len(motif.calls) > _CALLS_SHOWN:
        yield f"{indent}... {len(motif.calls) - _CALLS_SHOWN} more calls"
    programs = list(motif.instances_by_program)
    who = ", ".join(PurePosixPath(exe).name for exe in programs[:4])
    who += f" and {len(programs) - 4} more" if len(programs) > 4 else ""
    saves = ", ".join(f"{nanoseconds(ns)} ({e})" for e, ns in motif.predicted.items())
    facts = f"by {who}; {nanoseconds(motif.time_ns)}, {octets(motif.bytes)}; "
    facts += f"would save {saves}" if saves else "nothing to save"
    yield from _wrapped(facts, _INDENT, _INDENT)


def covered(found: MotifFile, top: int) -> float:
    """Share of the boundary time that the `top` largest motifs cover, each call once."""
    own = sorted((motif.own_ns for motif in found.motifs), reverse=True)[:top]
    return sum(own) / max(sum(trace.time_ns for trace in found.traces), 1)


def warnings(found: MotifFile) -> Iterator[str]:
    """What is wrong with the traces, a line each."""
    for trace in found.traces:
        if trace.lost_events:
            yield (
                f"LOSSY: {trace.path} lacks {trace.lost_events:,} events: "
                "all its numbers are lower bounds"
            )
        if trace.unread_lines:
            yield (
                f"LOSSY: {trace.path}, lines not understood: {trace.unread_lines:,}: "
                "all its numbers may be too low"
            )
        if trace.filtered:
            yield (
                f"FILTERED: {trace.path} has some of the calls only: calls that follow one another "
                "here had others between them"
            )
        if trace.unended:
            yield (
                f"TRUNCATED: {trace.path}: {trace.unended:,} of its processes were still running "
                "when it ended: their last loops are cut"
            )


def savers(found: MotifFile, min_saving_ns: int) -> list[Motif]:
    """The motifs that would save at least so much on some executor."""
    return [m for m in found.motifs if max(m.predicted.values(), default=0) >= min_saving_ns]


def selection(found: MotifFile, top: int | None, min_saving_ns: int) -> MotifFile:
    """The file with the motifs only that a table of `top` motifs (None: all) would show."""
    return replace(found, motifs=savers(found, min_saving_ns)[:top])


def lines(found: MotifFile, top: int, min_saving_ns: int = 0) -> Iterator[str]:
    """The whole table, without the next command to type."""
    chosen = savers(found, min_saving_ns)
    events = sum(t.events for t in found.traces)
    time_ns = sum(t.time_ns for t in found.traces)
    traces = "1 trace" if len(found.traces) == 1 else f"{len(found.traces)} traces"
    yield f"{traces}, {events:,} events, {nanoseconds(time_ns)} inside calls"
    for text in warnings(found):
        yield from _wrapped(text, "", "    ")
    if found.motifs:
        top_share = covered(found, _TOP)
        yield f"the {min(_TOP, len(found.motifs))} largest motifs cover {top_share:.0%} of it"
    if not found.motifs:
        yield ""
        yield "no motifs: nothing in there repeats in a way that a compound could use"
    elif not chosen:
        yield ""
        yield f"no motif would save {nanoseconds(min_saving_ns)}"
    for number, motif in enumerate(chosen[:top], 1):
        yield ""
        yield from motif_lines(number, motif)
    hidden = len(chosen) - top
    if hidden > 0:
        yield ""
        yield f"{hidden} more: see them with --top {len(chosen)}"
