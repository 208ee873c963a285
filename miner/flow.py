# SPDX-License-Identifier: MIT
"""The body of a motif drawn: calls one below the other, arrows where data goes, as SVG."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from miner.motifs import Arg, ArgKind, Call, Motif, Over
from miner.render import body_line

ROW, TOP, LEFT, GUTTER, LANE, CHARACTER = 34, 40, 10, 26, 58, 7.2
_SHOWN = 16  # calls
_LONGEST = 78  # characters of a call


@dataclass(frozen=True)
class Edge:
    """Data that goes from call `source` (-1: from outside of the body) to call `target`."""

    source: int
    target: int
    label: str


def edges(motif: Motif) -> list[Edge]:
    """Where the arguments of each call come from, each pair of calls once per kind of data."""
    found: dict[tuple[int, int, str], Edge] = {}
    for i, call in enumerate(motif.calls[:_SHOWN]):
        for arg in call.args:
            edge = _edge(arg, i)
            if edge and edge.source < _SHOWN:
                found.setdefault((edge.source, edge.target, edge.label), edge)
    return list(found.values())


def _edge(arg: Arg, target: int) -> Edge | None:
    if arg.kind in (ArgKind.RESULT, ArgKind.FIELD, ArgKind.SAME) and arg.call is not None:
        if arg.call == target:
            return None
        what = {ArgKind.RESULT: "result", ArgKind.FIELD: arg.field or "field"}.get(arg.kind, "same")
        return Edge(arg.call, target, what)
    if arg.kind in (ArgKind.NAME, ArgKind.PATH, ArgKind.ITEM):
        return Edge(-1, target, "")
    return None


_SOURCES = {
    Over.ENTRIES: "each e in entries(D)",
    Over.FILES: "each path p",
    Over.PATHS: "each path p of a list",
    Over.REQUESTS: "each request on F",
    Over.UNTIL_EOF: "until F ends",
    Over.TANDEM: "again and again",
}


def _note(call: Call) -> str:
    words = []
    if call.share < 0.98:
        words.append(f"{call.share:.0%}")
    if call.per_iteration >= 1.05:
        words.append(f"x{call.per_iteration:.3g}")
    if call.errors:
        words.append(f"{call.errors / call.count:.0%} {next(iter(call.error_names), 'error')}")
    return ", ".join(words)


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _middle(row: int) -> float:
    return TOP + (row + 0.5) * ROW


def _trunks(motif: Motif) -> list[tuple[int, int, list[Edge]]]:
    """(lane, source, edges) of each kind of data that a call gives: it leaves the call once."""
    groups: dict[tuple[int, str], list[Edge]] = {}
    for edge in edges(motif):
        if edge.source >= 0:
            groups.setdefault((edge.source, edge.label), []).append(edge)
    found = []
    lanes: list[list[tuple[int, int]]] = []  # rows that each lane is taken for
    for (source, _), group in sorted(
        groups.items(), key=lambda g: max(abs(e.target - e.source) for e in g[1])
    ):
        rows = [source, *(edge.target for edge in group)]
        top, bottom = min(rows), max(rows)
        lane = 0
        while lane < len(lanes) and any(top <= b and a <= bottom for a, b in lanes[lane]):
            lane += 1
        if lane == len(lanes):
            lanes.append([])
        lanes[lane].append((top, bottom))
        found.append((lane, source, group))
    return found


def _arrows(motif: Motif, right: float) -> Iterator[str]:
    """Dotted lines from the loop's own variable, and a trunk with branches for each result."""
    for edge in edges(motif):
        if edge.source < 0:
            y = _middle(edge.target)
            yield f'<path class="in" d="M {LEFT + 12} {TOP - 12} V {y} H {LEFT + GUTTER - 2}"/>'
    for lane, source, group in _trunks(motif):
        x = right + 14 + LANE * lane
        start = _middle(source) + 4
        for edge in group:
            stop = _middle(edge.target) - 4
            yield (
                f'<path class="data" d="M {right:.0f} {start:.0f} H {x - 5:.0f} Q {x:.0f} '
                f"{start:.0f} {x:.0f} {start + (5 if stop > start else -5):.0f} "
                f"V {stop + (-5 if stop > start else 5):.0f} Q {x:.0f} {stop:.0f} {x - 5:.0f} "
                f'{stop:.0f} H {right + 4:.0f}" marker-end="url(#tip)"/>'
            )
        yield (
            f'<text class="label" x="{x + 5:.0f}" y="{start + ROW / 2:.0f}">'
            f"{escape(group[0].label)}</text>"
        )


def drawing(motif: Motif) -> str:
    """The SVG element; it uses the classes and the arrow tip of `miner/page.py`."""
    calls = motif.calls[:_SHOWN]
    lines = [_shortened(body_line(call)) for call in calls]
    notes = [_note(call) for call in calls]
    width = max(len(a) + len(b) + 3 for a, b in zip(lines, notes, strict=True)) * CHARACTER
    right = LEFT + GUTTER + width
    whole = right + 90 + LANE * (1 + max((lane for lane, _, _ in _trunks(motif)), default=0))
    height = TOP + ROW * len(calls) + (ROW if len(motif.calls) > _SHOWN else 8)
    title = _SOURCES[motif.loop.over] if motif.loop else "in this order"
    out = [
        f'<svg class="flow" role="img" viewBox="0 0 {whole:.0f} {height}" '
        f'width="{whole:.0f}" height="{height}">',
        f"<title>{escape(motif.name)}: {escape('; '.join(lines))}</title>",
        f'<text class="over" x="{LEFT}" y="20">{escape(title)}</text>',
    ]
    for i, (line, note) in enumerate(zip(lines, notes, strict=True)):
        y = TOP + i * ROW
        kind = "optional" if calls[i].optional else calls[i].sclass
        out.append(
            f'<rect class="call {escape(kind)}" x="{LEFT + GUTTER}" y="{y + 4}" '
            f'width="{width:.0f}" height="{ROW - 8}" rx="4"/>'
            f'<text class="line" x="{LEFT + GUTTER + 8}" y="{y + 21}">{escape(line)}</text>'
        )
        if note:
            out.append(
                f'<text class="note" text-anchor="end" x="{right - 8:.0f}" y="{y + 21}">'
                f"{escape(note)}</text>"
            )
    if len(motif.calls) > _SHOWN:
        out.append(
            f'<text class="note" x="{LEFT + GUTTER}" y="{height - 12}">'
            f"and {len(motif.calls) - _SHOWN} more calls</text>"
        )
    return "".join([*out, *_arrows(motif, right), "</svg>"])
