# SPDX-License-Identifier: MIT
"""Motifs as one self-contained HTML page: no script, nothing loaded from anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from pathlib import PurePosixPath

from miner import measured, validate
from miner.flow import drawing
from miner.motifs import Motif, MotifFile
from miner.report import covered, loop_line, nanoseconds, octets, savers, warnings

_PATHS = 12  # of a learned list
_BARS = 10
_MEASURED = 20  # rows of predicted and measured

_STYLE = """
:root { --ink: #1c2430; --soft: #5b6675; --line: #d9dee6; --back: #fff; --card: #f7f8fa;
  --pure: #d7ecdd; --positional: #dbe7f8; --mutating: #f9e3cf; --sync: #ecdff4;
  --bar: #3b6fb6; --data: #b4532a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --soft: #98a3b3; --line: #39424f;
  --back: #14181e; --card: #1c222a; --pure: #1f4a30; --positional: #20395c; --mutating: #5a3a1c;
  --sync: #43305a; --bar: #6c9be0; --data: #e98a5f; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back);
  max-width: 1080px; margin: 0 auto; padding: 24px; }
h1 { font-size: 24px; margin: 0; } h2 { font-size: 19px; margin: 36px 0 8px; }
h3 { font-size: 17px; margin: 0; font-family: ui-monospace, monospace; }
p.caption, .soft { color: var(--soft); margin: 4px 0 12px; }
.warning { border: 1px solid #c0392b; border-left-width: 6px; padding: 8px 12px; margin: 12px 0; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: 4px 10px 4px 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.bar { display: inline-block; height: 11px; background: var(--bar); border-radius: 2px;
  min-width: 1px; }
.facts { display: flex; flex-wrap: wrap; gap: 24px; margin: 16px 0; }
.facts div b { display: block; font-size: 22px; }
section.motif { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: 16px; margin: 16px 0; overflow-x: auto; }
pre { font: 12.5px/1.45 ui-monospace, monospace; overflow-x: auto; margin: 6px 0; }
a { color: inherit; }
summary { cursor: pointer; color: var(--soft); }
svg.flow { display: block; margin: 8px 0; max-width: none; }
svg text { font: 12px ui-monospace, "DejaVu Sans Mono", monospace; fill: var(--ink); }
svg text.over { font-weight: 600; } svg text.note, svg text.label { fill: var(--soft); }
svg text.label { font-size: 10.5px; fill: var(--data); }
svg rect.call { fill: var(--card); stroke: var(--line); }
svg rect.pure { fill: var(--pure); } svg rect.positional { fill: var(--positional); }
svg rect.mutating { fill: var(--mutating); } svg rect.sync, svg rect.process { fill: var(--sync); }
svg rect.optional { stroke-dasharray: 4 3; stroke: var(--soft); }
svg path { fill: none; } svg path.data { stroke: var(--data); stroke-width: 1.4; }
svg path.in { stroke: var(--soft); stroke-dasharray: 2 3; }
svg marker path { fill: var(--data); }
"""

_TIP = (
    '<svg width="0" height="0" style="position:absolute"><defs><marker id="tip" markerWidth="8" '
    'markerHeight="8" refX="6" refY="3" orient="auto"><path d="M0,0 L6,3 L0,6 z"/></marker>'
    "</defs></svg>"
)


def _row(cells: Iterable[str], tag: str = "td", numbers: int = 0) -> str:
    """A table row; the last `numbers` cells are numbers. Cells are HTML."""
    all_cells = list(cells)
    first = len(all_cells) - numbers
    return (
        "<tr>"
        + "".join(
            f"<{tag}{' class=n' if i >= first else ''}>{cell}</{tag}>"
            for i, cell in enumerate(all_cells)
        )
        + "</tr>"
    )


def saving(motif: Motif) -> str:
    """The best prediction with its interval, as text."""
    if not motif.predicted:
        return "nothing"
    best = max(motif.predicted, key=lambda e: motif.predicted[e])
    text = f"{nanoseconds(motif.predicted[best])} ({best})"
    if best in motif.interval:
        low, high = motif.interval[best]
        text += f", {nanoseconds(low)} to {nanoseconds(high)}"
    return text


def _overview(found: MotifFile, top: int, drawn: set[str]) -> Iterator[str]:
    time_ns = sum(t.time_ns for t in found.traces)
    wall_ns = sum(t.wall_ns for t in found.traces)
    facts = {
        "calls recorded": f"{sum(t.events for t in found.traces):,}",
        "inside calls": nanoseconds(time_ns),
        "of the wall time": f"{time_ns / wall_ns:.0%}" if wall_ns else "?",
        f"covered by the top {_BARS}": f"{covered(found, _BARS):.0%}",
        "lost events": f"{found.lost_events:,}",
    }
    yield '<div class="facts">'
    for name, value in facts.items():
        yield f"<div><b>{escape(value)}</b>{escape(name)}</div>"
    yield "</div><table>"
    yield _row(["trace", "command", "calls", "inside calls", "lost"], "th", 3)
    for trace in found.traces:
        words = [PurePosixPath(trace.path).name, " ".join(trace.command)[:120]]
        numbers = [f"{trace.events:,}", nanoseconds(trace.time_ns), f"{trace.lost_events:,}"]
        yield _row([escape(cell) for cell in words + numbers], numbers=3)
    yield "</table>"
    yield "<h2>Where the time goes</h2>"
    yield (
        '<p class="caption">Each call counts for one motif only, so the bars add up. Calls that '
        "wait for someone else are left out.</p><table>"
    )
    yield _row(["motif", "", "share", "calls", "would save"], "th", 3)
    largest = sorted(found.motifs, key=lambda m: -m.own_ns)[: min(_BARS, top)]
    longest = max((motif.own_ns for motif in largest), default=0) or 1
    for motif in largest:
        share = motif.own_ns / time_ns if time_ns else 0.0
        bar = f'<span class="bar" style="width:{320 * motif.own_ns / longest:.0f}px"></span>'
        link = escape(motif.name)
        if motif.name in drawn:
            link = f'<a href="#{link}">{link}</a>'
        cells = [link, bar, f"{share:.1%}", f"{motif.crossings:,}", escape(saving(motif))]
        yield _row(cells, numbers=3)
    yield "</table>"


def _continuation(motif: Motif) -> Iterator[str]:
    sums: dict[int, list[int]] = {}
    for row in motif.continuation:
        at = sums.setdefault(row.n, [0, 0])
        at[0] += row.reached
        at[1] += row.continued
    rows = [(n, reached, more / reached) for n, (reached, more) in sums.items() if n and reached]
    if not rows:
        return
    yield "<details><summary>how likely it goes on</summary><table>"
    yield _row(["after", "", "goes on", "instances"], "th", 2)
    for n, reached, share in sorted(rows):
        bar = f'<span class="bar" style="width:{200 * share:.0f}px"></span>'
        yield _row([f"{n:,}", bar, f"{share:.1%}", f"{reached:,}"], numbers=2)
    yield "</table></details>"


def _motif(number: int, motif: Motif, time_ns: int) -> Iterator[str]:
    name = escape(motif.name)
    yield f'<section class="motif" id="{name}"><h3>{number}. {name}</h3>'
    who = ", ".join(PurePosixPath(exe).name for exe in list(motif.instances_by_program)[:6])
    more = len(motif.instances_by_program) - 6
    who += f" and {more} more" if more > 0 else ""
    line = f"{loop_line(motif.loop)}; " if motif.loop else ""
    yield f'<p class="soft">{escape(line + "by " + who)}</p>'
    yield drawing(motif)
    yield "<table>"
    yield _row(["calls", "time", "own share", "moved", "would save"], "th", 5)
    share = motif.own_ns / time_ns if time_ns else 0.0
    cells = [f"{motif.crossings:,}", nanoseconds(motif.time_ns), f"{share:.1%}"]
    yield _row([*cells, octets(motif.bytes), escape(saving(motif))], numbers=5)
    yield "</table>"
    yield from _continuation(motif)
    if motif.loop and motif.loop.paths:
        yield f"<details><summary>the list of paths ({motif.loop.distinct:,})</summary><pre>"
        for seen in motif.loop.paths[:_PATHS]:
            note = f"  ({seen.missing:,} of {seen.count:,} missing)" if seen.missing else ""
            yield escape(f"{seen.path}  x{seen.count:,}{note}\n")
        yield "</pre></details>"
    yield "<details><summary>an example</summary><pre>"
    yield escape("\n".join(motif.example))
    yield "</pre></details></section>"


def _measurements(found: MotifFile) -> Iterator[str]:
    """What runs under cosy-auto measured, of the programs of these traces."""
    rows = measured.compare(found)[:_MEASURED]
    if not rows:
        return
    yield (
        '<p class="caption">Of one run under cosy-auto, as it measured itself: medians and '
        "quartiles. Runs of other commands than the traced ones count by their calls.</p><table>"
    )
    yield _row(["program", "runs", "predicted", "measured", "quartiles", "answered"], "th", 5)
    for row in rows:
        low, high = map(measured.signed, row.quartiles_ns)
        other = "" if row.same_command else ", other commands"
        cells = [
            escape(f"{PurePosixPath(row.program).name} ({row.executor}{other})"),
            f"{row.runs:,}",
            measured.signed(row.predicted_ns),
            measured.signed(row.measured_ns),
            f"{low} to {high}",
            f"{row.answers:,} of {row.calls:,}",
        ]
        yield _row(cells, numbers=5)
    yield "</table>"


def _validations() -> Iterator[str]:
    rows = validate.history()[-_MEASURED:]
    if not rows:
        return
    yield (
        '<p class="caption">Savings of CPU time on this machine, by cosy-mine --validate --rerun: '
        "median and quartiles of runs in turns.</p><table>"
    )
    yield _row(["command", "predicted", "measured", "quartiles", "without"], "th", 4)
    for row in rows:
        low, high = map(measured.signed, row.quartiles_ns)
        cells = [
            escape(" ".join(row.command)[:80]),
            measured.signed(row.predicted_ns),
            measured.signed(row.measured_ns),
            f"{low} to {high}",
            nanoseconds(row.native_ns),
        ]
        yield _row(cells, numbers=4)
    yield "</table>"


def page(found: MotifFile, top: int, min_saving_ns: int = 0) -> str:
    """The whole page, with at most `top` motifs drawn, of those that would save so much."""
    chosen = savers(found, min_saving_ns)
    shown = chosen[:top]
    title = "Cosy: " + ", ".join(
        PurePosixPath(t.command[0]).name if t.command else t.path for t in found.traces[:4]
    )
    title += f" and {len(found.traces) - 4} more" if len(found.traces) > 4 else ""
    time_ns = sum(t.time_ns for t in found.traces)
    parts = [
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>{_TIP}",
        f"<h1>{escape(title)}</h1>",
        *(f'<p class="warning">{escape(text)}</p>' for text in warnings(found)),
        *_overview(found, top, {motif.name for motif in shown}),
        "<h2>Hot sequences</h2>",
        '<p class="caption">Best predicted saving first. Boxes are calls, green ones without side '
        "effect; dashed ones are not in every iteration. Arrows show where an argument comes from."
        "</p>",
    ]
    for number, motif in enumerate(shown, 1):
        parts += _motif(number, motif, time_ns)
    if len(chosen) > top:
        parts.append(f'<p class="soft">{len(chosen) - top} more in the motif file.</p>')
    elif not chosen and found.motifs:
        parts.append(f"<p>No motif would save {nanoseconds(min_saving_ns)}.</p>")
    machine = found.calibration.get("machine") or "defaults, not measured on this machine"
    compared = [*_measurements(found), *_validations()]
    if compared:
        parts += ["<h2>Predicted and measured</h2>", *compared]
    parts.append(
        f'<p class="soft">Predictions rest on the costs of: {escape(str(machine))}.</p>'
        "</body></html>\n"
    )
    return "".join(parts)
