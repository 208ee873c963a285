# SPDX-License-Identifier: MIT
"""From trace datasets to ranked motifs: the whole miner in one call."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from miner import cluster, compiled, cost, execution, measured, pieces
from miner.annotate import Via
from miner.bodies import BodyLoop
from miner.loopstats import EntryLoop
from miner.motifs import Motif, MotifFile, Over, TraceInfo
from miner.partial import Partial, merged
from tracer import syscalls
from tracer.dataset import Dataset
from tracer.native import NativeFileError
from tracer.target import DatasetError

_MIN_SHARE = 0.0005  # of the boundary time: rarer sequences are not worth a line


def _entry_signature(loop: EntryLoop) -> cluster.Signature:
    """How regularly each call is made that names the child; others follow from these."""
    return {f: share for f, share in loop.features().items() if f[0].via != Via.RESULT}


def _body_signature(loop: BodyLoop) -> cluster.Signature:
    """How regularly each kind of call is made; around a file, what is done with it counts."""
    out: dict[Any, float] = {}
    for key, share in loop.features().items():
        name = (loop.over, cluster.family(syscalls.name_of(key.nr)), key.via)
        out[name] = max(out.get(name, 0.0), share)
    if loop.over is Over.FILES:
        out = {name: v for name, v in out.items() if name[1] not in cluster.FRAME} or out
    out["missing"] = loop.missing / max(loop.iterations, 1)
    out["whole"] = loop.whole / max(loop.iterations, 1)
    return out


def _entry_key(loop: EntryLoop) -> object:
    return tuple(sorted(loop.programs)), frozenset(loop.calls)


def _body_key(loop: BodyLoop) -> object:
    """Program, calls, and what else the groups of a piece are told apart by."""
    traits = (2 * loop.whole > loop.iterations, 2 * loop.missing > loop.iterations)
    return loop.over, tuple(sorted(loop.programs)), frozenset(loop.calls), traits


def _entry_motifs(found: list[EntryLoop], boundary_ns: int) -> list[Motif]:
    weights = [float(sum(c.count for c in loop.calls.values())) for loop in found]
    names = [cluster.content_name(loop.to_motif("?", boundary_ns)) for loop in found]
    out = []
    for group in cluster.clusters([_entry_signature(loop) for loop in found], weights):
        whole = found[group.medoid]
        for other in group.members[1:]:
            whole.merge(found[other])
        motif = whole.to_motif("?", boundary_ns)
        motif.name = cluster.content_name(motif)
        motif.members = list(dict.fromkeys(names[i] for i in group.members))
        out.append(motif)
    return out


def _body_motifs(found: list[BodyLoop], boundary_ns: int) -> list[Motif]:
    """Clusters of the same kind and name are one motif: the name says what is done."""
    weights = [float(sum(c.count for c in loop.calls.values())) for loop in found]
    names = [cluster.content_name(loop.to_motif("?", boundary_ns)) for loop in found]
    by_name: dict[tuple[object, str], tuple[BodyLoop, list[str]]] = {}
    for group in cluster.clusters([_body_signature(loop) for loop in found], weights):
        whole = found[group.medoid]
        for other in group.members[1:]:
            whole.merge(found[other])
        name = cluster.content_name(whole.to_motif("?", boundary_ns))
        members = list(dict.fromkeys([name, *(names[i] for i in group.members)]))
        same = by_name.get((whole.over, name))
        if same:
            same[0].merge(whole)
            same[1].extend(m for m in members if m not in same[1])
        else:
            by_name[whole.over, name] = whole, members
    out = []
    for (_, name), (whole, members) in by_name.items():
        motif = whole.to_motif(name, boundary_ns)
        motif.members = members
        out.append(motif)
    return out


def _add(whole: Partial, part: Partial) -> None:
    """Add the findings of the next piece: one loop per program and kind, as clusters cost the
    square of their number."""
    whole.entry_loops = merged([*whole.entry_loops, *part.entry_loops], _entry_key)
    whole.body_loops = merged([*whole.body_loops, *part.body_loops], _body_key)
    whole.sequences = merged([*whole.sequences, *part.sequences], lambda s: s.key())
    whole.events += part.events
    whole.work_ns += part.work_ns


def rank(
    traces: list[TraceInfo], partials: Iterable[Partial], calibration: cost.Calibration
) -> MotifFile:
    """Put the findings of all pieces together; the result does not depend on who mined them."""
    boundary_ns = sum(t.time_ns for t in traces)
    found = Partial()
    for partial in partials:
        _add(found, partial)
    motifs = _entry_motifs(found.entry_loops, boundary_ns)
    motifs += _body_motifs(found.body_loops, boundary_ns)
    for motif in motifs:
        motif.predicted = cost.predict(motif, calibration)
        motif.interval = cost.interval(motif, calibration)
    for sequence in found.sequences:
        motif = sequence.to_motif("?", boundary_ns)
        motif.name = cluster.content_name(motif)
        motif.members = [motif.name]
        ends = (sequence.known_ends, sequence.known_ends_ns)
        motif.predicted = cost.predict(motif, calibration, *ends)
        motif.interval = cost.interval(motif, calibration, *ends)
        motifs.append(motif)
    motifs = [m for m in motifs if m.share >= _MIN_SHARE or m.predicted]
    motifs.sort(key=lambda m: (-max(m.predicted.values(), default=0), -m.time_ns, m.name))
    cluster.unique_names(motifs)
    return MotifFile(traces, calibration.to_json(), motifs)


def _check_different(paths: Sequence[Path | str]) -> None:
    seen: set[str] = set()
    for path in map(str, paths):
        place = path.rstrip("/") if "://" in path else os.path.realpath(path)
        if place in seen:
            raise DatasetError(f"given twice: {path}: all its calls would count double")
        seen.add(place)


def _info(path: str, trace: pieces.Trace, time_ns: int) -> TraceInfo:
    """What is said of a trace; time_ns: inside its calls."""
    meta = trace.meta
    return TraceInfo(
        path=path,
        command=[str(word) for word in meta["command"]],
        backend=str(meta["backend"]),
        events=trace.rows,
        lost_events=int(meta["lost_events"]),
        time_ns=time_ns,
        wall_ns=int(meta["wall_ns"]),
        unended=trace.unended,
        cpu_ns=int(meta.get("user_ns", 0)) + int(meta.get("system_ns", 0)),
        unread_lines=int(meta.get("unread_lines", 0)),
        filtered=bool(meta.get("filter")),
    )


def mine(
    paths: Sequence[Path | str],
    calibration: cost.Calibration,
    workers: int | None = None,
    dask: str | None = None,
) -> MotifFile:
    """Mine the traces together.

    workers: processes on this machine (by default one per CPU); dask: address of a scheduler to
    use instead. Raises `tracer.target.DatasetError` for what is no trace or is given twice, and
    ExecutionError.
    """
    _check_different(paths)
    try:
        compiled.function("order")
    except NativeFileError as error:
        raise execution.ExecutionError(str(error)) from None
    rows = sum(len(Dataset(path)) for path in paths)
    with execution.dask(dask) if dask else execution.local(rows, workers) as run:
        opened = [pieces.open_trace(path) for path in paths]
        tasks = (task for trace, parts in opened for task in pieces.tasks(trace, parts))
        owners = [number for number, (_, parts) in enumerate(opened) for _ in parts]
        found, work_ns = Partial(), [0] * len(opened)
        # While others are mined, what is there is added up.
        for owner, partial in zip(owners, run(tasks), strict=True):
            work_ns[owner] += partial.work_ns
            _add(found, partial)
    traces = [
        _info(str(path), trace, time_ns)
        for path, (trace, _), time_ns in zip(paths, opened, work_ns, strict=True)
    ]
    whole = rank(traces, [found], calibration)
    whole.programs = measured.traced(paths)
    return whole
