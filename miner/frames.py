# SPDX-License-Identifier: MIT
"""The miner's results as pandas data frames, for notebooks: docs/miner-api.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from miner import cost, measured, motifs, pieces, report
from miner.annotate import SCAN_NAMES, annotate
from miner.mine import mine
from miner.motifs import Motif, MotifFile
from miner.render import body_line
from tracer import syscalls


def _rows(found: Iterable[Motif], rows: str) -> pd.DataFrame:
    """One row per element of the list `rows` of each motif, with the motif's name in front."""
    out: list[dict[str, Any]] = []
    for motif in found:
        for i, row in enumerate(getattr(motif, rows)):
            out.append({"motif": motif.name, "index": i, **asdict(row)})
    return pd.DataFrame(out)


@dataclass(frozen=True)
class Mined:
    """A motif file as tables. Times are in ns, sizes in bytes; `docs/motifs.md` has the fields."""

    file: MotifFile

    @cached_property
    def traces(self) -> pd.DataFrame:
        """One row per trace."""
        return pd.DataFrame([asdict(trace) for trace in self.file.traces])

    @cached_property
    def motifs(self) -> pd.DataFrame:
        """One row per motif, best predicted saving first.

        `saving_ns`, `executor`: the best prediction, with `saving_low_ns` and `saving_high_ns`.
        """
        return pd.DataFrame([_motif_row(motif) for motif in self.file.motifs])

    @cached_property
    def calls(self) -> pd.DataFrame:
        """One row per call of a motif's body; `line` is the call by its provenance."""
        frame = _rows(self.file.motifs, "calls")
        lines = [body_line(call) for motif in self.file.motifs for call in motif.calls]
        frame.insert(2, "line", lines)
        return frame

    @cached_property
    def continuation(self) -> pd.DataFrame:
        """How instances go on, with the `probability` that they do."""
        frame = _rows(self.file.motifs, "continuation")
        if len(frame):
            frame["probability"] = frame["continued"] / frame["reached"].where(frame["reached"] > 0)
        return frame

    @cached_property
    def prefixes(self) -> pd.DataFrame:
        """One row per prefix and what came next (`next`: index of a call, -1: the end)."""
        out = []
        for motif in self.file.motifs:
            for prefix in motif.prefixes:
                for following in prefix.next:
                    out.append(
                        {
                            "motif": motif.name,
                            "prefix": tuple(prefix.calls),
                            "reached": prefix.reached,
                            "next": -1 if following.call is None else following.call,
                            "count": following.count,
                            "probability": following.count / prefix.reached,
                        }
                    )
        return pd.DataFrame(out)

    @cached_property
    def paths(self) -> pd.DataFrame:
        """The learned lists: one row per path of a loop over files or paths."""
        out = []
        for motif in self.file.motifs:
            for seen in motif.loop.paths if motif.loop else []:
                out.append({"motif": motif.name, **asdict(seen)})
        return pd.DataFrame(out)

    @cached_property
    def measured(self) -> pd.DataFrame:
        """One row per program with runs under cosy-auto on record: predicted and measured."""
        return pd.DataFrame([asdict(row) for row in measured.compare(self.file)])

    def coverage(self, top: int = 10) -> float:
        """Share of the boundary time that the `top` motifs cover together, each call once."""
        return report.covered(self.file, top)


def _motif_row(motif: Motif) -> dict[str, Any]:
    best = max(motif.predicted, key=lambda e: motif.predicted[e], default=None)
    low, high = motif.interval.get(best or "", [0, 0])
    loop = motif.loop
    return {
        "name": motif.name,
        "cluster": motif.cluster,
        "over": str(loop.over) if loop else "repeat",
        "body": "; ".join(body_line(call) for call in motif.calls),
        "programs": ", ".join(Path(exe).name for exe in motif.instances_by_program),
        "instances": loop.instances if loop else max(c.count for c in motif.calls),
        "iterations": loop.iterations if loop else 0,
        "calls": motif.crossings,
        "time_ns": motif.time_ns,
        "own_ns": motif.own_ns,
        "share": motif.share,
        "bytes": motif.bytes,
        "pure": motif.pure,
        "executor": best or "",
        "saving_ns": motif.predicted[best] if best else 0,
        "saving_low_ns": low,
        "saving_high_ns": high,
    }


def load(
    *sources: str | Path,
    calibration: cost.Calibration | None = None,
    workers: int | None = None,
    dask: str | None = None,
) -> Mined:
    """Read one motif file (NAME.json), or mine traces together.

    calibration: by default that of this machine. Raises MotifFileError, OSError,
    `tracer.target.DatasetError`, CalibrationError or ExecutionError.
    """
    if len(sources) == 1 and str(sources[0]).endswith(".json"):
        return Mined(motifs.load(sources[0]))
    return Mined(mine(sources, calibration or cost.here(), workers, dask))


def calls(source: str | Path) -> pd.DataFrame:
    """Every call of a trace that fits into memory, with its data flow.

    `via` and `directory`: how the call names an entry of which directory that was read (`name`,
    `path`, `cwd`: relative to it; `result`: a descriptor that opening the entry gave).
    `opened_by`: row of the call that opened the descriptor argument, -1: not in the trace.
    """
    events = pieces.read(source)
    found = annotate(events)
    table: Mapping[int, syscalls.Syscall] = syscalls.by_nr()
    folder = (
        np.where(found.scan >= 0, found.scans.folder[found.scan], -1)
        if len(found.scans)
        else np.full(len(events), -1)
    )
    return pd.DataFrame(
        {
            "t_ns": events.t_ns,
            "pid": events.pid,
            "tid": events.tid,
            "call": pd.Categorical([table[n].name if n in table else str(n) for n in events.nr]),
            "path": [events.path[i] or None for i in range(len(events))],
            "ret": events.ret,
            "dur_ns": events.dur_ns,
            "bytes": events.bytes_in + events.bytes_out,
            "opened_by": found.root,
            "via": pd.Categorical.from_codes(found.via, categories=pd.Index(SCAN_NAMES)),
            "directory": [found.directories[i] if i >= 0 else None for i in folder.tolist()],
        }
    )
