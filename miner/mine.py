# SPDX-License-Identifier: MIT
"""From trace datasets to ranked motifs: the whole miner in one call."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from miner import cluster, cost, events, loops, sequences
from miner.annotate import Via, annotate
from miner.loopstats import EntryLoop
from miner.motifs import Motif, MotifFile, TraceInfo
from tracer import syscalls

_MIN_SHARE = 0.0005  # of the boundary time: rarer sequences are not worth a line


def _boundary_ns(trace: events.Events) -> int:
    """Time inside calls, without those that wait for someone else."""
    table = syscalls.by_name()
    waiting = np.array([table[n].nr for n in cost.WAITING_CALLS if n in table], dtype=np.int64)
    return int(trace.dur_ns[~np.isin(trace.nr, waiting)].sum())


def _signature(loop: EntryLoop) -> cluster.Signature:
    """How regularly each call is made that names the child; others follow from these."""
    return {f: share for f, share in loop.features().items() if f[0].via != Via.RESULT}


def _merge_entry_loops(found: list[EntryLoop], boundary_ns: int) -> list[Motif]:
    weights = [float(sum(c.count for c in loop.calls.values())) for loop in found]
    names = [cluster.content_name(loop.to_motif("?", boundary_ns)) for loop in found]
    motifs = []
    for group in cluster.clusters([_signature(loop) for loop in found], weights):
        merged = found[group.medoid]
        for other in group.members[1:]:
            merged.merge(found[other])
        motif = merged.to_motif("?", boundary_ns)
        motif.name = cluster.content_name(motif)
        motif.members = list(dict.fromkeys(names[i] for i in group.members))
        motifs.append(motif)
    return motifs


def _merge_sequences(found: list[sequences.Sequence]) -> list[sequences.Sequence]:
    """Add up those that are the same call for call."""
    merged: dict[sequences.SequenceKey, sequences.Sequence] = {}
    for sequence in found:
        same = merged.get(sequence.key())
        if same:
            same.merge(sequence)
        else:
            merged[sequence.key()] = sequence
    return list(merged.values())


def mine(paths: list[Path], calibration: cost.Calibration) -> MotifFile:
    """Mine the traces together; raises `tracer.target.DatasetError` for one that is none."""
    entry_loops: list[EntryLoop] = []
    others: list[sequences.Sequence] = []
    traces = []
    for path in paths:
        trace = events.read(path)
        annotated = annotate(trace)
        folded = loops.entry_loops(annotated)
        entry_loops += folded.loops
        others += sequences.read_loops(annotated) + sequences.sequences(annotated, folded)
        traces.append(
            TraceInfo(
                path=str(path),
                command=[str(word) for word in trace.meta["command"]],
                backend=str(trace.meta["backend"]),
                events=len(trace),
                lost_events=int(trace.meta["lost_events"]),
                time_ns=_boundary_ns(trace),
                wall_ns=int(trace.meta["wall_ns"]),
            )
        )
    boundary_ns = sum(t.time_ns for t in traces)
    motifs = _merge_entry_loops(entry_loops, boundary_ns)
    for motif in motifs:
        motif.predicted = cost.predict(motif, calibration)
    for sequence in _merge_sequences(others):
        motif = sequence.to_motif("?", boundary_ns)
        if motif.share < _MIN_SHARE:
            continue
        motif.name = cluster.content_name(motif)
        motif.members = [motif.name]
        motif.predicted = cost.predict(
            motif, calibration, sequence.known_ends, sequence.known_ends_ns
        )
        motifs.append(motif)
    motifs.sort(key=lambda m: (-max(m.predicted.values(), default=0), -m.time_ns, m.name))
    cluster.unique_names(motifs)
    return MotifFile(traces, calibration.to_json(), motifs)
