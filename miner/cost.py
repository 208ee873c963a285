# SPDX-License-Identifier: MIT
"""The cost model: what a motif would save on each executor.

Native cost is what the trace measured. Executor costs are the calibration; its defaults are medians
of measurements on one machine (Linux 6.18, ext4, warm cache), `cosy-doctor --calibrate` replaces
them. Everything that predicts a saving, here or in the synthesizer, asks this module.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from miner.motifs import Call, Continuation, Motif, Over
from tracer import native, output

LEAST_ERROR = 0.05  # of a cost, however well it seems to be known
DEFAULT_ERROR = 0.3  # of a cost that was not measured on this machine
# A body asks for a child's attributes so often at most; further questions go to the kernel.
MOST_TIMES = 3
_EXECUTOR_COSTS = frozenset(
    (
        *("serve_ns", "bpf_run_ns", "bpf_child_ns", "module_run_ns", "module_child_ratio"),
        *("module_slurp_ratio", "ahead_gate_ns", "ahead_ratio", "inline_ns", "copy_byte_ns"),
        "watch_ns",
    )
)
_FORMER_COSTS = frozenset(("byte_ns",))  # in files of earlier versions; nothing asks for them
EXECUTORS = ("inline", "ahead", "bpf", "module")

STAT_CALLS = frozenset({"stat", "lstat", "newfstatat", "statx"})
XATTR_CALLS = frozenset({"getxattr", "lgetxattr"})


class CalibrationError(Exception):
    """A calibration file that cannot be used."""


@dataclass(frozen=True)
class Calibration:
    """Costs in ns unless the name says otherwise."""

    call_ns: float = 60.0  # the cheapest call there is: what trace_ns is measured against
    trace_ns: float = 0.0  # that recording a call adds to its duration
    record_ns: float = 250.0  # that recording a call adds to the CPU time of the program
    start_ns: float = 1e6  # starting a program under cosy-auto
    stat_ns: float = 550.0  # attributes of a child whose dentry is cached, native
    serve_ns: float = 150.0  # the shim answers a call from its result table, cold
    bpf_run_ns: float = 900.0  # one run on an empty directory
    bpf_child_ns: float = 300.0  # per child of the directory, asked for or not
    watch_ns: float = 40.0  # that the shim adds to a call that it lets pass
    module_run_ns: float = 400.0
    module_child_ratio: float = 1 / 2.3  # of the native stat, fused against the VFS
    module_slurp_ratio: float = 1 / 1.65  # of native open, fstat, read, close
    ahead_gate_ns: float = 40_000.0  # calls that are faster on average are cached: no gain
    ahead_ratio: float = 0.35  # of the native time, cold, with helper threads
    inline_ns: float = (
        10.0  # an answer that follows from what is known: what the shim adds to a call
    )
    copy_byte_ns: float = 0.1  # by byte that a read copies, which no executor saves
    errors: dict[str, float] = field(default_factory=dict)  # relative, of the costs measured here
    machine: str = ""  # what they were measured on; empty: defaults

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return dataclasses.asdict(self)


def load_calibration(path: Path) -> Calibration:
    """Read a calibration; costs that it does not name keep their defaults."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise CalibrationError(f"cannot read calibration: {path}: {error}") from None
    return calibration_from(value, str(path))


def calibration_from(value: object, where: str) -> Calibration:
    """A calibration from plain JSON values; raises CalibrationError that names `where`."""
    if not isinstance(value, Mapping):
        raise CalibrationError(f"is no calibration: {where}: expected a JSON object")
    known = {f.name for f in dataclasses.fields(Calibration)} - {"errors", "machine"}
    errors, machine = value.get("errors", {}), value.get("machine", "")
    if not isinstance(errors, Mapping) or not isinstance(machine, str):
        raise CalibrationError(f"errors and machine are not as they should be: {where}")
    errors = {k: v for k, v in errors.items() if k not in _FORMER_COSTS}
    not_costs = _FORMER_COSTS | {"errors", "machine"}
    numbers = {k: v for k, v in value.items() if k not in not_costs}
    for name, number in (*numbers.items(), *((k, errors[k]) for k in errors)):
        if name not in known:
            raise CalibrationError(f"unknown cost {name!r}: {where}: run cosy-doctor --calibrate")
        if isinstance(number, bool) or not isinstance(number, int | float) or not number >= 0:
            raise CalibrationError(f"cost {name} is no positive number: {where}")
    return Calibration(
        **{name: float(number) for name, number in numbers.items()},
        errors={str(name): float(error) for name, error in errors.items()},
        machine=machine,
    )


def stored_path() -> Path | None:
    """Where `cosy-doctor --calibrate` keeps the costs of this machine; None without a home."""
    root = native.xdg_folder("XDG_DATA_HOME", ".local/share")
    return root / "calibration.json" if root else None


def here() -> Calibration:
    """The costs of this machine if they were measured, else the defaults.

    Raises CalibrationError for a stored file that is none.
    """
    path = stored_path()
    return load_calibration(path) if path and path.exists() else Calibration()


def save_calibration(costs: Calibration, path: Path) -> None:
    """Write the file whole or not at all (tracer/output.py); raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with output.written(path) as file:
        file.write(json.dumps(costs.to_json(), indent=1).encode() + b"\n")


@dataclass(frozen=True)
class Placement:
    """Where a compound for a loop over entries should fire, and what that would have saved."""

    saved_ns: int
    nth: int  # at the nth matching call within one directory
    min_entries: int  # and only in directories of at least so many entries
    leaf: bool  # nth counts calls on children that are no directories


def answerable(call: Call, executor: str) -> float:
    """Share of the observed calls whose answer the executor could have had ready."""
    if call.sclass != "pure" or not call.count:
        return 0.0
    if executor == "bpf":
        if call.syscall in STAT_CALLS:
            return 1.0 - call.errors / call.count
        if call.syscall in XATTR_CALLS:
            return sum(x.missing for x in call.xattrs) / call.count
        return 0.0
    return 1.0


def _by_name(call: Call) -> bool:
    """The call names the child: not one on a descriptor that opening it gave."""
    return any(arg.kind in ("name", "path") for arg in call.args)


def native_ns(call: Call, c: Calibration) -> float:
    """What the kernel usually takes for the call."""
    return max((call.usual_ns or call.time_ns) / max(call.count, 1) - c.trace_ns, 0.0)


def saved_per_child_ns(motif: Motif, executor: str, c: Calibration) -> float:
    """Mean saving on one child whose answers are ready, each as often as the body asks."""
    saved = 0.0
    for call in motif.calls:
        if _by_name(call):
            asked = call.share * min(call.per_iteration, MOST_TIMES)
            saved += asked * answerable(call, executor) * (native_ns(call, c) - c.serve_ns)
    return saved


def _cost_ns(motif: Motif, executor: str, c: Calibration) -> tuple[float, float]:
    """Cost of one run and of one child in it."""
    if executor == "bpf":
        return c.bpf_run_ns, c.bpf_child_ns
    native = sum(
        call.share * native_ns(call, c)
        for call in motif.calls
        if _by_name(call) and answerable(call, executor)
    )
    return c.module_run_ns, c.module_child_ratio * native


def placement(motif: Motif, executor: str, c: Calibration) -> Placement | None:
    """The best place for the trigger of a loop over entries; None: it never pays.

    Expected saving against expected waste, summed over what the traces did: firing costs one run
    and every entry of the directory, and saves only on the children that were still asked for.
    A walk that asks for sub-directories only has no place: where they are all that a directory
    holds it would gain a little, but it looks like that everywhere.
    """
    if not motif.loop or motif.loop.over is not Over.ENTRIES or executor not in ("bpf", "module"):
        return None
    if motif.only_directories:
        return None
    per_child = saved_per_child_ns(motif, executor, c)
    run_ns, child_ns = _cost_ns(motif, executor, c)
    best: Placement | None = None
    for leaf, table in ((False, motif.continuation), (True, motif.continuation_files)):
        for nth, rows in _by_n(table).items():
            total = 0.0
            # From the largest directories down: each step lets smaller ones in.
            for row in sorted(rows, key=lambda r: -r.min_entries):
                total += row.children * per_child - row.reached * run_ns - row.entries * child_ns
                if total > (best.saved_ns if best else 0):
                    best = Placement(int(total), nth, row.min_entries, leaf)
    return best


def _by_n(table: Iterable[Continuation]) -> dict[int, list[Continuation]]:
    out: dict[int, list[Continuation]] = {}
    for row in table:
        if row.n > 0:
            out.setdefault(row.n, []).append(row)
    return out


def predict(
    motif: Motif, c: Calibration, known_ends: int = 0, known_ends_ns: int = 0
) -> dict[str, int]:
    """Saving in ns on each executor that can run the motif at a gain.

    known_ends: reads of the motif that could only return 0, as the one before them fell short, and
    the time that they took.
    """
    saved: dict[str, int] = {}
    for executor in ("bpf", "module"):
        best = placement(motif, executor, c)
        if best:
            saved[executor] = best.saved_ns
    names = {call.syscall for call in motif.calls}
    if names & {"open", "openat"} and names & {"read", "pread64"}:
        slurp_ns = sum(fusible_ns(call, c) for call in motif.calls if _is_slurp(call))
        saved["module"] = max(saved.get("module", 0), int(slurp_ns * (1 - c.module_slurp_ratio)))
    slow_ns = sum(
        call.time_ns
        for call in motif.calls
        if call.sclass == "pure" and call.time_ns > c.ahead_gate_ns * call.count
    )
    if slow_ns and motif.loop and motif.loop.over is Over.ENTRIES:
        saved["ahead"] = int(slow_ns * (1 - c.ahead_ratio))
    if known_ends:
        saved["inline"] = int(known_ends_ns - known_ends * c.inline_ns)
    return {executor: saved[executor] for executor in EXECUTORS if saved.get(executor, 0) > 0}


def at_pace(motif: Motif, pace: float) -> Motif:
    """The motif as if its calls had taken `pace` times as long."""
    calls = [
        dataclasses.replace(
            call, usual_ns=int(call.usual_ns * pace), time_ns=int(call.time_ns * pace)
        )
        for call in motif.calls
    ]
    return dataclasses.replace(motif, calls=calls)


def interval(
    motif: Motif, c: Calibration, known_ends: int = 0, known_ends_ns: int = 0
) -> dict[str, list[int]]:
    """[low, high] of each prediction: all costs of the executors at the upper, at the lower end of
    their errors. The trigger stays where the prediction puts it only if it pays there as well."""
    ends = []
    for sign in (1.0, -1.0):
        changed = {
            f.name: getattr(c, f.name) * max(1 + sign * c.errors.get(f.name, DEFAULT_ERROR), 0.0)
            for f in dataclasses.fields(c)
            if f.name in _EXECUTOR_COSTS
        }
        ends.append(predict(motif, dataclasses.replace(c, **changed), known_ends, known_ends_ns))
    low, high = ends
    return {
        executor: sorted([low.get(executor, 0), high.get(executor, 0)])
        for executor in predict(motif, c, known_ends, known_ends_ns)
    }


def fusible_ns(call: Call, c: Calibration) -> float:
    """What all calls of a slurp take but for copying what is read."""
    return max(call.count * native_ns(call, c) - call.bytes_out * c.copy_byte_ns, 0.0)


def _is_slurp(call: Call) -> bool:
    if call.syscall in STAT_CALLS or call.syscall == "fstat":
        return not _by_name(call)
    return call.syscall in ("open", "openat", "read", "pread64", "close")
