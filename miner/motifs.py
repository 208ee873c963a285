# SPDX-License-Identifier: MIT
"""The motif file: what the miner found, in the form that the synthesizer reads.

`docs/motifs.md` explains each field to people; this module is the definition. The schema is
checked on loading: an unknown field, a missing one or a wrong type is a `MotifFileError` that
names the place.
"""

from __future__ import annotations

import dataclasses
import json
import os
import types
import typing
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from tracer import output

SCHEMA = 3


class MotifFileError(Exception):
    """A motif file that cannot be read, or that is none."""


class ArgKind(StrEnum):
    """Where a system call argument comes from; all but UNKNOWN can be computed ahead."""

    NONE = "none"  # the call ignores it
    CONST = "const"  # always `value`
    STRING = "string"  # always the text `text`
    DIR = "dir"  # a descriptor of D, the directory that the loop runs over
    NAME = "name"  # e.name, relative to the dirfd argument, which is `dir`
    PATH = "path"  # D + "/" + e.name
    ITEM = "item"  # a path of the list that the loop runs over, known from earlier runs only
    FILE = "file"  # the descriptor that a read loop runs over
    OUT = "out"  # a buffer that the kernel fills; `value`: its size in bytes where known
    RESULT = "result"  # the return value of call `call`
    FIELD = "field"  # field `field` of the output of call `call`
    SAME = "same"  # the same as argument `field` of call `call`, otherwise free (an object F)
    STAT = "stat"  # field `field` of the attributes that the thread asked for last, of any file
    NEXT = "next"  # where the same call ended before: its offset plus its result
    UNKNOWN = "unknown"  # not explained


class Kind(StrEnum):
    """How a motif repeats."""

    LOOP = "loop"
    REPEAT = "repeat"


class Over(StrEnum):
    """What a loop runs over."""

    ENTRIES = "entries"  # each child e of a directory D that was read with getdents64
    UNTIL_EOF = "until-eof"  # the same read until it returns 0
    FILES = "files"  # each file, from the open to the close
    PATHS = "paths"  # each path of a list: the places where a file might be, the files of an index
    REQUESTS = "requests"  # each request that a server reads from a connection
    TANDEM = "tandem"  # the body, back to back


@dataclass
class Seen:
    """One value of an argument and how often it was observed."""

    value: int
    count: int


@dataclass
class Arg:
    """Provenance of one argument; which fields are set follows from `kind`."""

    kind: ArgKind
    value: int | None = None
    text: str | None = None
    call: int | None = None  # index into Motif.calls
    field: str | None = None
    share: float = 1.0  # of the observations that this provenance explains


@dataclass
class XattrSeen:
    """One attribute name of an xattr call and how it was answered."""

    name: str
    count: int
    missing: int  # ENODATA
    unsupported: int  # EOPNOTSUPP


@dataclass
class PathSeen:
    """One path of a list and how it was answered."""

    path: str  # as the program spelled it
    count: int
    missing: int  # of these: ENOENT or ENOTDIR


@dataclass
class Next:
    """What came after a prefix."""

    call: int | None  # index into Motif.calls; null: the iteration ended
    count: int


@dataclass
class Prefix:
    """How iterations go on that began with these calls; a call repeated in a row counts once."""

    calls: list[int]  # indices into Motif.calls, empty: at the start
    reached: int
    next: list[Next]  # most frequent first; counts add up to `reached`


@dataclass
class Call:
    """One call of a motif's body; counts and sums run over all instances."""

    syscall: str
    nr: int
    sclass: str  # class in tracer/syscalls.toml: pure, positional, mutating, sync, process
    args: list[Arg]
    flags: list[Seen]  # values of the flags argument, most frequent first; empty: has none
    mask: list[Seen]  # statx's mask
    optional: bool  # some iterations do not have it
    share: float  # of the iterations that have it at least once
    per_iteration: float  # calls per iteration that has it (tar stats a file twice: 2.0)
    count: int
    time_ns: int
    errors: int
    error_names: dict[str, int]  # "ENODATA": 17
    bytes_in: int  # user to kernel
    bytes_out: int  # kernel to user
    types: dict[str, int]  # calls by type of the child (file, dir, link, other, unknown)
    xattrs: list[XattrSeen]
    repeats: dict[str, float] = field(default_factory=dict)  # quantiles behind per_iteration
    usual_ns: int = 0  # time_ns without what single calls waited; 0: not told
    to_end: float = 0.0  # share of the iterations that have it whose last one returned 0


@dataclass
class Depth:
    """Whether a loop over entries goes down into the sub-directories that it meets."""

    descends: float  # share of the child directories that were read in turn
    interleaved: float  # share of those read before the last call on their parent's children
    histogram: list[int]  # scanned directories by depth below the first one of the walk
    max: int


@dataclass
class Loop:
    """Shape of a loop. Quantiles are keyed p10, p50, p90, p99, max."""

    over: Over
    instances: int
    iterations: int
    per_instance: dict[str, float]  # iterations per instance
    # Loops over entries only:
    entries: dict[str, float] = field(default_factory=dict)  # entries per scanned directory
    entries_total: int = 0
    scanned: int = 0  # directories read by the programs of this motif
    untouched: int = 0  # of these: no child was ever asked for
    coverage: dict[str, float] = field(default_factory=dict)  # share of entries visited, by type
    in_order: float = 0.0  # share of iterations that take the entry right after the previous one
    depth: Depth | None = None
    # Loops over files, paths, requests and reads until the end:
    bytes: dict[str, float] = field(default_factory=dict)  # moved in one iteration (read loop:
    # in one instance)
    sources: dict[str, int] = field(default_factory=dict)  # iterations by where the path comes
    # from: entry (of a directory that was read), argv (a word of the command line), other
    distinct: int = 0  # different paths, with how they were answered
    known: float = 0.0  # share of the iterations whose path and answer an earlier instance had
    whole: float = 0.0  # share of the files that were read to their end
    paths: list[PathSeen] = field(default_factory=list)  # the first ones, in order


@dataclass
class Continuation:
    """How instances go on that have made `n` matching calls in a directory of
    `min_entries` to `max_entries` entries. Sums are additive over rows and motifs.

    A matching call is one of the body's pure calls on a child of D; what a compound that fires at
    the n-th could still answer is `remaining`, what it would compute is `entries`.
    """

    n: int
    min_entries: int
    max_entries: int
    reached: int  # instances with at least n matching calls (n = 0: all scanned directories)
    continued: int  # of these: with at least one more
    remaining: int  # matching calls that came after the n-th, summed
    children: int  # distinct children among these
    entries: int  # of the instances that reached n, summed

    @property
    def probability(self) -> float:
        """Probability that an instance that reached n goes on."""
        return self.continued / self.reached if self.reached else 0.0

    @property
    def expected_remaining(self) -> float:
        """Mean number of matching calls after the n-th."""
        return self.remaining / self.reached if self.reached else 0.0


@dataclass
class Motif:
    """A sequence of calls that a compound could answer or fuse."""

    name: str  # from the content: dirscan-stat, read-until-eof; unique in the file
    kind: Kind
    loop: Loop | None
    calls: list[Call]
    pure: bool  # all calls that at least half of the iterations have are of class pure
    crossings: int  # user/kernel crossings, all calls of all instances
    time_ns: int  # inside these calls
    bytes: int  # moved across the boundary, both directions
    share: float  # of the boundary time of the traces
    instances_by_program: dict[str, int]  # exe -> instances
    build_ids: dict[str, str]  # exe -> build-id in hex, where known
    continuation: list[Continuation]
    continuation_files: list[Continuation]  # the same, n counting calls on non-directories only
    example: list[str]  # real calls of one iteration, as strace would print them
    predicted: dict[str, int]  # executor -> ns saved in these traces; absent: cannot run it
    members: list[str]  # names of the variants that the cluster holds, this one first
    prefixes: list[Prefix] = field(default_factory=list)  # of the body, where it has an order
    cluster: str = ""  # its name without a number: motifs that do the same in other forms share it
    own_ns: int = 0  # time in calls that no motif of an earlier kind has: these add up
    interval: dict[str, list[int]] = field(default_factory=dict)  # executor -> [low, high] ns

    @property
    def only_directories(self) -> bool:
        """A loop over entries that asks for sub-directories only, as walking a tree does."""
        coverage = self.loop.coverage if self.loop else {}
        others = [share for kind, share in coverage.items() if kind != "dir"]
        return bool(others) and max(others) < 0.05 and coverage.get("dir", 0.0) > 0.0


@dataclass
class TraceInfo:
    """A dataset that was mined."""

    path: str
    command: list[str]
    backend: str
    events: int
    lost_events: int
    time_ns: int  # inside calls
    wall_ns: int
    unended: int = 0  # processes whose end the trace does not have
    cpu_ns: int = 0  # CPU time of the traced processes, recording included; 0: not known
    unread_lines: int = 0  # of an imported text, that nobody understood
    filtered: bool = False  # by cosy-trace -e or -P: what is next to each other was not in the run


@dataclass
class Program:
    """A program of the traces, by which runs of it under cosy-auto are found again."""

    exe: str
    build_id: str  # in hex
    processes: int
    commands: dict[str, int]  # processes by `tracer.runs.command_key`, in hex; the most frequent


@dataclass
class MotifFile:
    """Everything that `cosy-mine -o` writes."""

    traces: list[TraceInfo]
    calibration: dict[str, Any]  # `miner.cost.Calibration` as JSON
    motifs: list[Motif]  # best predicted saving first
    programs: list[Program] = field(default_factory=list)  # that have a build-id
    schema: int = SCHEMA

    @property
    def lost_events(self) -> int:
        """Events that the traces are known to lack; above 0 all counts are lower bounds."""
        return sum(t.lost_events for t in self.traces)


def to_json(motifs: MotifFile) -> dict[str, Any]:
    """The file as plain JSON values, with the derived numbers that readers like to see."""
    out = dataclasses.asdict(motifs)
    out = {"schema": out.pop("schema"), **out}
    for motif, plain in zip(motifs.motifs, out["motifs"], strict=True):
        for key in ("continuation", "continuation_files"):
            for row, target in zip(getattr(motif, key), plain[key], strict=True):
                target["probability"] = round(row.probability, 6)
                target["expected_remaining"] = round(row.expected_remaining, 3)
    return out


_DERIVED: dict[type, set[str]] = {Continuation: {"probability", "expected_remaining"}}


def _decode(hint: Any, value: Any, where: str) -> Any:
    """`value` from JSON as the type `hint`; raises MotifFileError that names `where`."""
    origin = typing.get_origin(hint)
    if hint is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        options = typing.get_args(hint)
        if value is None and type(None) in options:
            return None
        return _decode(next(o for o in options if o is not type(None)), value, where)
    if origin is list:
        if not isinstance(value, list):
            raise MotifFileError(f"{where}: expected a list")
        (item,) = typing.get_args(hint)
        return [_decode(item, v, f"{where}[{i}]") for i, v in enumerate(value)]
    if origin is dict:
        if not isinstance(value, dict):
            raise MotifFileError(f"{where}: expected an object")
        _, item = typing.get_args(hint)
        return {str(k): _decode(item, v, f"{where}.{k}") for k, v in value.items()}
    if dataclasses.is_dataclass(hint):
        return _decode_object(typing.cast(type, hint), value, where)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        try:
            return hint(value)
        except ValueError:
            raise MotifFileError(f"{where}: {value!r} is none of {', '.join(hint)}") from None
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise MotifFileError(f"{where}: expected {hint.__name__}, found {value!r:.60}")
    return value


def _decode_object(cls: type, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise MotifFileError(f"{where}: expected an object")
    hints = typing.get_type_hints(cls)
    unknown = set(value) - set(hints) - _DERIVED.get(cls, set())
    if unknown:
        raise MotifFileError(f"{where}: unknown field {min(unknown)!r}")
    required = {
        f.name
        for f in dataclasses.fields(cls)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    if required - set(value):
        raise MotifFileError(f"{where}: field {min(required - set(value))!r} is missing")
    return cls(**{k: _decode(hints[k], v, f"{where}.{k}") for k, v in value.items() if k in hints})


def _check_references(motifs: MotifFile) -> None:
    names = [m.name for m in motifs.motifs]
    for i, motif in enumerate(motifs.motifs):
        where = f"motifs[{i}]"
        if not motif.calls:
            raise MotifFileError(f"{where}: no calls")
        if names.count(motif.name) > 1:
            raise MotifFileError(f"{where}: name {motif.name!r} is not unique")
        if (motif.kind is Kind.LOOP) != (motif.loop is not None):
            raise MotifFileError(f"{where}: kind and loop contradict each other")
        for j, call in enumerate(motif.calls):
            for k, arg in enumerate(call.args):
                needs_call = arg.kind in (ArgKind.RESULT, ArgKind.FIELD, ArgKind.SAME)
                if needs_call and not (arg.call is not None and 0 <= arg.call < len(motif.calls)):
                    raise MotifFileError(f"{where}.calls[{j}].args[{k}]: refers to no call")


def from_json(value: Any) -> MotifFile:
    """The file from plain JSON values; raises MotifFileError on anything unexpected."""
    if not isinstance(value, dict) or "schema" not in value:
        raise MotifFileError("this is no motif file")
    if value["schema"] != SCHEMA:
        raise MotifFileError(f"schema {value['schema']!r} is not {SCHEMA}: mine the trace again")
    motifs: MotifFile = _decode_object(MotifFile, value, "file")
    _check_references(motifs)
    return motifs


def load(path: str | os.PathLike[str]) -> MotifFile:
    """Read and check a motif file; raises MotifFileError (without the path) or OSError."""
    data = Path(path).read_bytes()
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise MotifFileError(f"this is no JSON: {error}") from None
    return from_json(value)


def save(motifs: MotifFile, path: str | os.PathLike[str]) -> None:
    """Write the file whole or not at all (tracer/output.py); raises OSError."""
    _check_references(motifs)
    with output.written(Path(path)) as file:
        file.write(json.dumps(to_json(motifs), indent=1).encode() + b"\n")
